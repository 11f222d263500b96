"""Inceptions: GoogLeNet, v3, v4 and Inception-ResNet-v2 (Szegedy et al. 2015, 2016, 2017), and this project's own.

Deliberate choices: initial weights are those of torchvision's networks and, for v4 and Inception-ResNet-v2, of timm's.
The published tables are in `netsmith.arch.families`, the block in `netsmith.nn.branches`.
"""

from torch import Generator, nn

from netsmith.nn.init import init_conv_default, init_convs_and_norms, init_linear_default, init_norm, linears

CUT = 2.0
"""Normal weights beyond are drawn again: torchvision counts in units, not in deviations."""


def init_googlenet(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as torchvision's GoogLeNet does: weights normal with a deviation of 0.01."""
    _init_normal(network, generator, conv=0.01, linear=0.01, auxiliary=0.01)


def init_v3(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as torchvision's Inception-v3 does: weights normal with a deviation of 0.1, and of
    0.001 in the classifier for training."""
    _init_normal(network, generator, conv=0.1, linear=0.1, auxiliary=0.001)


def init_plain(network: nn.Module, generator: Generator) -> None:
    """He's normal for convolutions, torch's own for the classifier, as in torchvision's ResNets."""
    init_convs_and_norms(network, generator)
    for linear in linears(network):
        init_linear_default(linear, generator)


def init_torch(network: nn.Module, generator: Generator) -> None:
    """Set every parameter and buffer as timm's Inception-v4 and Inception-ResNet-v2 do, which is torch's own."""
    for layer in network.modules():
        match layer:
            case nn.Conv2d():
                init_conv_default(layer, generator)
            case nn.BatchNorm2d():
                init_norm(layer)
            case nn.Linear():
                init_linear_default(layer, generator)
            case _:
                pass


def _init_normal(network: nn.Module, generator: Generator, *, conv: float, linear: float, auxiliary: float) -> None:
    """Cut normal weights, torch's own biases; deviations of convolutions, of linear layers, of the auxiliary ones."""
    for name, layer in network.named_modules():
        match layer:
            case nn.Conv2d():
                nn.init.trunc_normal_(layer.weight, std=conv, a=-CUT, b=CUT, generator=generator)
            case nn.BatchNorm2d():
                init_norm(layer)
            case nn.Linear():
                init_linear_default(layer, generator)
                deviation = auxiliary if name.lower().startswith("aux") else linear
                nn.init.trunc_normal_(layer.weight, std=deviation, a=-CUT, b=CUT, generator=generator)
            case _:
                pass
