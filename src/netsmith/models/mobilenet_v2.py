"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381).

Deliberate choices: parameter names and initial weights are torchvision's: all layers before the pool stand in one
sequence, `features`. The published table is in `netsmith.arch.families.mobilenet_v2`.
"""

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
from netsmith.nn.layers import DropPath, Norm, conv, conv_norm_act, run_tapped


class InvertedResidual(nn.Module):
    """1x1 expansion (absent when `expand` is None), depthwise, linear 1x1; added to the input when `skip` (table 1,
    figure 4)."""

    def __init__(
        self, channels: int, expand: int | None, out: int, *, kernel: int, stride: int, skip: bool,
        activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = expand or channels
        layers = [] if expand is None else [conv_norm_act(channels, expand, norm=norm, activation=activation)]
        self.conv = nn.Sequential(
            *layers,
            conv_norm_act(hidden, hidden, kernel, stride=stride, groups=hidden, norm=norm, activation=activation),
            conv(hidden, out),
            norm(out),
        )
        self.drop_path = DropPath(drop_path)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.conv(x)
        return x + self.drop_path(y) if self.skip else y


class MobileNetV2(nn.Module):
    """Stem, inverted residuals and a last 1x1 convolution in `features`; global pool; dropout and linear in
    `classifier`.

    Args:
        layout: what the network is; kept as `.layout`.
        features: images -> the last map.
        taps: name of a stage ("stage1") -> name of its last block in `features`.
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
        """Set every parameter and buffer as torchvision's MobileNetV2 does.

        Args:
            generator: on the CPU, where the parameters are.
            zero_init_residual: start every residual branch at zero, so that blocks begin as their shortcuts.
        """
        init_convs_and_norms(self, generator)
        linear = cast(nn.Linear, self.classifier[1])
        nn.init.normal_(linear.weight, 0.0, 0.01, generator=generator)
        nn.init.zeros_(linear.bias)
        if zero_init_residual:
            for block in self.modules():
                if isinstance(block, InvertedResidual) and block.skip:
                    nn.init.zeros_(cast(nn.BatchNorm2d, block.conv[-1]).weight)


def build(layout: Layout) -> MobileNetV2:
    """The network of a layout, with torch's default weights on the current default device.

    Raises:
        InputError: records that are not a MobileNetV2's.
    """
    norm = partial(nn.BatchNorm2d, eps=layout.norm_eps, momentum=layout.norm_momentum)
    match layout.stem, layout.head.conv:
        case (ConvNormAct() as stem,), ConvNormAct() as last:
            pass
        case _:
            raise InputError(f"{layout.name}: a mobilenet_v2 has one convolution in its stem and one in its head")
    features: OrderedDict[str, nn.Module] = OrderedDict()
    features["0"] = conv_norm_act(
        layout.input.channels, stem.out, stem.kernel, stride=stem.stride, norm=norm, activation=stem.activation
    )
    channels, taps = stem.out, dict[str, str]()
    blocks = [(stage.name, block) for stage in layout.stages for block in stage.blocks]
    for position, (tap, block) in enumerate(blocks):
        if not isinstance(block, b.InvertedResidualBlock):
            raise InputError(f"{block.name}: a mobilenet_v2 has no blocks of kind {block.kind!r}")
        (taps[tap],) = read_name(block.name, "features.{}")
        features[taps[tap]] = InvertedResidual(
            channels, block.expand, block.out, kernel=block.kernel, stride=block.stride, skip=block.skip,
            activation=block.activation, drop_path=layout.drop_path * position / max(1, len(blocks) - 1), norm=norm,
        )  # fmt: skip
        channels = block.out
    (place,) = read_name(last.conv, "features.{}.0")
    features[place] = conv_norm_act(
        channels, last.out, last.kernel, stride=last.stride, norm=norm, activation=last.activation
    )
    linear = nn.Linear(last.out, layout.head.classes)
    return MobileNetV2(
        layout, features=nn.Sequential(features), taps=taps, dropout=layout.head.dropout, linear=linear
    )  # fmt: skip
