"""Inverted residuals: MobileNetV2's block (Sandler et al. 2018, table 1), EfficientNet's MBConv (Tan and Le 2019),
which is MobileNetV3's too, and EfficientNetV2's fused MBConv (Tan and Le 2021, figure 2).

Deliberate choices: parameter names are torchvision's.
"""

from typing import cast

from torch import Tensor, nn

from netsmith.arch.blocks.draft import Padding
from netsmith.arch.graph import Activation
from netsmith.nn.layers import DropPath, Norm, SqueezeExcitation, conv, conv_norm, conv_norm_act


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

    def zero_init(self) -> None:
        """Start the residual branch at zero; without a shortcut do nothing."""
        if self.skip:
            nn.init.zeros_(cast(nn.BatchNorm2d, self.conv[-1]).weight)


class MBConv(nn.Module):
    """1x1 expansion (absent when `expand` is None), depthwise, squeeze-excitation (absent when `squeeze` is None),
    linear 1x1; added to the input when `skip`. The excitation has activations of its own."""

    def __init__(
        self, channels: int, expand: int | None, squeeze: int | None, out: int, *, kernel: int, stride: int,
        skip: bool, activation: Activation, squeeze_activation: Activation, gate: Activation, padding: Padding,
        drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = expand or channels
        layers: list[nn.Module] = []
        if expand is not None:
            layers.append(conv_norm_act(channels, expand, norm=norm, activation=activation))
        layers.append(
            conv_norm_act(
                hidden, hidden, kernel, stride=stride, groups=hidden, padding=padding, norm=norm, activation=activation
            )
        )
        if squeeze is not None:
            layers.append(SqueezeExcitation(hidden, squeeze, activation=squeeze_activation, gate=gate))
        layers.append(conv_norm(hidden, out, norm=norm))
        self.block = nn.Sequential(*layers)
        self.drop_path = DropPath(drop_path)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.block(x)
        return x + self.drop_path(y) if self.skip else y

    def zero_init(self) -> None:
        """Start the residual branch at zero; without a shortcut do nothing."""
        if self.skip:
            project = cast(nn.Sequential, self.block[-1])
            nn.init.zeros_(cast(nn.BatchNorm2d, project[1]).weight)


class FusedMBConv(nn.Module):
    """Convolution to `expand` channels and linear 1x1, or, when `expand` is None, one convolution; added to the input
    when `skip`."""

    def __init__(
        self, channels: int, expand: int | None, out: int, *, kernel: int, stride: int, skip: bool,
        activation: Activation, padding: Padding, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = expand or out
        self.block = nn.Sequential(
            conv_norm_act(channels, hidden, kernel, stride=stride, padding=padding, norm=norm, activation=activation)
        )
        if expand is not None:
            self.block.append(conv_norm(hidden, out, norm=norm))
        self.drop_path = DropPath(drop_path)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.block(x)
        return x + self.drop_path(y) if self.skip else y

    def zero_init(self) -> None:
        """Start the residual branch at zero; without a shortcut do nothing."""
        if self.skip:
            last = cast(nn.Sequential, self.block[-1])
            nn.init.zeros_(cast(nn.BatchNorm2d, last[1]).weight)
