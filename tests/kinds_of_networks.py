"""One small network of every kind of table, for what must hold on all of them."""

from functools import cache

import pytest
import torch
from torch import nn

from netsmith.arch.layout import Layout
from netsmith.arch.lower import lower
from netsmith.arch.names import find_spec
from netsmith.arch.scale import for_size, scale
from netsmith.arch.spec import with_classes
from netsmith.models.build import Network, build

SIDE, CLASSES = 16, 5
KINDS = (
    *("alexnet", "alexnet_2012", "vgg11", "vgg11_bn", "googlenet", "inception_reduced", "inception_v3"),
    *("inception_v4", "inception_resnet_v2", "resnet14_cifar", "resnet18", "resnet18d", "resnet50", "seresnet50"),
    *("resnext50_32x4d", "resnet50_cardinal", "preresnet20_cifar", "resnetv2_50", "squeezenet1_1", "mobilenet_v1"),
    *("mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0", "efficientnet_b0", "efficientnet_lite0"),
    *("tf_efficientnet_b0", "efficientnet_v2_s"),
)
"""Plain, flattened, concatenated, residual, zero-padded, gated, grouped, pre-activated, inverted and fused ones."""
FEW = (
    *("vgg11_bn", "googlenet", "resnet14_cifar", "seresnet50", "resnext50_32x4d", "resnet50_cardinal"),
    *("preresnet20_cifar", "squeezenet1_1", "mobilenet_v3_small", "efficientnet_b0"),
)
"""Of these, those that between them have every way in which channels are tied."""
EVERY_KIND = [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in KINDS if name not in FEW)]
"""As parameters of a test; beyond FEW they are slow."""


@cache
def small(name: str, *, width: float = 0.25, side: int = SIDE) -> Layout:
    """A narrow, shallow version; families too large for the side keep their least."""
    spec = scale(find_spec(name), width=width, depth=0.34)
    return lower(for_size(with_classes(spec, CLASSES), side))


def settled(layout: Layout, *, seed: int = 0) -> Network:
    """A network whose norms are as if it had been trained, in evaluation mode."""
    network = build(layout, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
    return network.eval()
