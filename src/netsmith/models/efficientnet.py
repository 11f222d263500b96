"""EfficientNet (Tan and Le 2019, arXiv 1905.11946).

Deliberate choices: parameter names, symmetric padding and initial weights are torchvision's: stem, stages and last
convolution stand in one sequence, `features`. The published table is in `netsmith.arch.families.efficientnet`.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import cast

from torch import Generator, Tensor, nn

from netsmith.arch import blocks as b
from netsmith.arch.layout import ConvNormAct, Layout
from netsmith.arch.spec import Activation
from netsmith.errors import InputError
from netsmith.models.naming import read_name
from netsmith.nn.init import init_convs_and_norms
from netsmith.nn.layers import DropPath, Norm, SqueezeExcitation, conv_norm, conv_norm_act, run_tapped


class MBConv(nn.Module):
    """1x1 expansion (absent when `expand` is None), depthwise, squeeze-excitation (absent when `squeeze` is None),
    linear 1x1; added to the input when `skip`."""

    def __init__(
        self, channels: int, expand: int | None, squeeze: int | None, out: int, *, kernel: int, stride: int,
        skip: bool, activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = expand or channels
        layers: list[nn.Module] = []
        if expand is not None:
            layers.append(conv_norm_act(channels, expand, norm=norm, activation=activation))
        layers.append(
            conv_norm_act(hidden, hidden, kernel, stride=stride, groups=hidden, norm=norm, activation=activation)
        )
        if squeeze is not None:
            layers.append(SqueezeExcitation(hidden, squeeze, activation=activation))
        layers.append(conv_norm(hidden, out, norm=norm))
        self.block = nn.Sequential(*layers)
        self.drop_path = DropPath(drop_path)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.block(x)
        return x + self.drop_path(y) if self.skip else y


class EfficientNet(nn.Module):
    """Stem, stages and a last 1x1 convolution in `features`; global pool; dropout and linear in `classifier`.

    Args:
        layout: what the network is; kept as `.layout`.
        features: images -> the last map.
        taps: name of a stage ("stage1") -> its name in `features`.
        dropout: probability, before the linear layer.
        linear: features -> logits.
    """

    def __init__(
        self, layout: Layout, *, features: nn.Sequential, taps: Mapping[str, str], dropout: float, linear: nn.Linear
    ) -> None:
        super().__init__()
        self.layout = layout
        self.features = features
        self.taps = dict(taps)
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> logits [N,classes]."""
        x = self.features(x)
        x = x.mean(dim=(2, 3))  # [N,channels]
        return self.classifier(x)

    def forward_all(self, x: Tensor) -> dict[str, Tensor]:
        """Images [N,C,H,W] -> the map after every stage ("stage1", ...) and "logits" [N,classes]."""
        x, outputs = run_tapped(self.features, x, self.taps)
        return {**outputs, "logits": self.classifier(x.mean(dim=(2, 3)))}

    def init_weights(self, generator: Generator, *, zero_init_residual: bool = False) -> None:
        """Set every parameter and buffer as torchvision's EfficientNets do.

        Args:
            generator: on the CPU, where the parameters are.
            zero_init_residual: start every residual branch at zero, so that blocks begin as their shortcuts.
        """
        init_convs_and_norms(self, generator)
        linear = cast(nn.Linear, self.classifier[1])
        bound = 1.0 / math.sqrt(linear.out_features)
        nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
        nn.init.zeros_(linear.bias)
        if zero_init_residual:
            for block in self.modules():
                if isinstance(block, MBConv) and block.skip:
                    project = cast(nn.Sequential, block.block[-1])
                    nn.init.zeros_(cast(nn.BatchNorm2d, project[1]).weight)


def build(layout: Layout) -> EfficientNet:
    """The network of a layout, with torch's default weights on the current default device.

    Raises:
        InputError: records that are not an EfficientNet's.
    """
    norm = partial(nn.BatchNorm2d, eps=layout.norm_eps, momentum=layout.norm_momentum)
    match layout.stem, layout.head.conv:
        case (ConvNormAct() as stem,), ConvNormAct() as last:
            pass
        case _:
            raise InputError(f"{layout.name}: an efficientnet has one convolution in its stem and one in its head")
    features: OrderedDict[str, nn.Module] = OrderedDict()
    features["0"] = conv_norm_act(
        layout.input.channels, stem.out, stem.kernel, stride=stem.stride, norm=norm, activation=stem.activation
    )
    channels, position, taps = stem.out, 0, dict[str, str]()
    total = sum(len(stage.blocks) for stage in layout.stages)
    for stage in layout.stages:
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in stage.blocks:
            if not isinstance(block, b.MBConvBlock):
                raise InputError(f"{block.name}: an efficientnet has no blocks of kind {block.kind!r}")
            taps[stage.name], index = read_name(block.name, "features.{}.{}")
            blocks[index] = MBConv(
                channels, block.expand, block.squeeze, block.out, kernel=block.kernel, stride=block.stride,
                skip=block.skip, activation=block.activation, norm=norm,
                drop_path=layout.drop_path * position / max(1, total - 1),
            )  # fmt: skip
            channels, position = block.out, position + 1
        features[taps[stage.name]] = nn.Sequential(blocks)
    (place,) = read_name(last.conv, "features.{}.0")
    features[place] = conv_norm_act(
        channels, last.out, last.kernel, stride=last.stride, norm=norm, activation=last.activation
    )
    linear = nn.Linear(last.out, layout.head.classes)
    return EfficientNet(
        layout, features=nn.Sequential(features), taps=taps, dropout=layout.head.dropout, linear=linear
    )  # fmt: skip
