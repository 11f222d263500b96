"""EfficientNet (Tan and Le 2019, arXiv 1905.11946).

Deliberate choices: parameter names, symmetric padding and initial weights are torchvision's: stem, stages and last
convolution stand in one sequence, `features`. The published table is in `netsmith.arch.families.efficientnet`, the
block in `netsmith.nn.inverted`.
"""

import math

from torch import Generator, nn

from netsmith.nn.init import init_convs_and_norms, linears


def init_weights(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as torchvision's EfficientNets do."""
    init_convs_and_norms(network, generator)
    for linear in linears(network):
        bound = 1.0 / math.sqrt(linear.out_features)
        nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
        nn.init.zeros_(linear.bias)
