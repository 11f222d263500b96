"""ResNet, ResNeXt, Wide ResNet and CIFAR ResNets (He et al. 2016, arXiv 1512.03385; Xie et al. 2017; Zagoruyko and
Komodakis 2016).

Deliberate choices: parameter names, the place of the stride and the initial weights are torchvision's. Stochastic depth
and dropout before the classifier are there for training and off unless the layout asks. The published tables are in
`netsmith.arch.families.resnet`, the blocks in `netsmith.nn.residual`.
"""

from torch import Generator, nn

from netsmith.nn.init import init_convs_and_norms, init_linear_default, linears


def init_weights(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as torchvision's ResNets do."""
    init_convs_and_norms(network, generator)
    for linear in linears(network):
        init_linear_default(linear, generator)
