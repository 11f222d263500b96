"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381).

Deliberate choices: parameter names and initial weights are torchvision's: all layers before the pool stand in one
sequence, `features`. The published table is in `netsmith.arch.families.mobilenet_v2`, the block in
`netsmith.nn.inverted`.
"""

from torch import Generator, nn

from netsmith.nn.init import init_convs_and_norms, linears


def init_weights(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as torchvision's MobileNetV2 does."""
    init_convs_and_norms(network, generator)
    for linear in linears(network):
        nn.init.normal_(linear.weight, 0.0, 0.01, generator=generator)
        nn.init.zeros_(linear.bias)
