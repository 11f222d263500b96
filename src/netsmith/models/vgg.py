"""VGG (Simonyan and Zisserman 2015, arXiv 1409.1556).

Deliberate choices: initial weights are torchvision's: He's normal by fan-out for convolutions, a deviation of 0.01 for
linear layers. The tables are in `netsmith.arch.families.vgg`.
"""

from torch import Generator, nn

from netsmith.nn.init import init_convs_and_norms, linears


def init_weights(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as torchvision's VGG does."""
    init_convs_and_norms(network, generator)
    for linear in linears(network):
        nn.init.normal_(linear.weight, 0.0, 0.01, generator=generator)
        nn.init.zeros_(linear.bias)
