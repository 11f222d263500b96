"""Initial weights from an explicit generator: the global random state is neither read nor changed.

Every parameter and buffer of a network is set here, so a network may be constructed without memory and filled once.
"""

import math

from torch import Generator, nn


def init_conv(layer: nn.Conv2d, generator: Generator) -> None:
    """He's normal initialisation by fan-out (He et al. 2015, arXiv 1502.01852), zero bias, as in torchvision's
    networks.

    The fan of a grouped convolution is that of its whole output, as torch counts it.
    """
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_conv_default(layer: nn.Conv2d, generator: Generator) -> None:
    """torch's own for convolutions: weight and bias uniform within 1 / sqrt(inputs of a position)."""
    bound = 1.0 / math.sqrt(layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def init_norm(layer: nn.BatchNorm2d) -> None:
    """Scale 1, shift 0, running mean 0 and variance 1, nothing tracked yet."""
    layer.reset_parameters()


def init_linear_default(layer: nn.Linear, generator: Generator) -> None:
    """torch's own for linear layers: weight and bias uniform within 1 / sqrt(inputs)."""
    bound = 1.0 / math.sqrt(layer.in_features)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def init_convs_and_norms(network: nn.Module, generator: Generator) -> None:
    """`init_conv` and `init_norm` for every such layer, in the order of `network.modules()`."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            init_conv(layer, generator)
        elif isinstance(layer, nn.BatchNorm2d):
            init_norm(layer)


def linears(network: nn.Module) -> list[nn.Linear]:
    """The linear layers, in the order of `network.modules()`."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
