"""MnasNet (Tan et al. 2019, arXiv 1807.11626).

Deliberate choices: initial weights are torchvision's. The published table is in `netsmith.arch.families.mnasnet`, the
block in `netsmith.nn.inverted`.
"""

from torch import Generator, nn

from netsmith.nn.init import init_convs_and_norms, linears


def init_weights(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as torchvision's MnasNet does."""
    init_convs_and_norms(network, generator)
    for linear in linears(network):
        nn.init.kaiming_uniform_(linear.weight, mode="fan_out", nonlinearity="sigmoid", generator=generator)
        nn.init.zeros_(linear.bias)
