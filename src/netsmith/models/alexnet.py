"""AlexNet (Krizhevsky et al. 2012; Krizhevsky 2014, arXiv 1404.5997).

Deliberate choices: initial weights are torchvision's, which are torch's own for every layer. The tables are in
`netsmith.arch.families.alexnet`.
"""

from torch import Generator, nn

from netsmith.nn.init import init_conv_default, init_linear_default, linears


def init_weights(network: nn.Module, generator: Generator) -> None:
    """Set every parameter as torchvision's AlexNet does."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            init_conv_default(layer, generator)
    for linear in linears(network):
        init_linear_default(linear, generator)
