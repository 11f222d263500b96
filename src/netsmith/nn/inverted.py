"""Inverted residuals: MobileNetV2's block (Sandler et al. 2018, table 1), EfficientNet's MBConv (Tan and Le 2019),
which is MobileNetV3's too, and EfficientNetV2's fused MBConv (Tan and Le 2021, figure 2).

Deliberate choices: parameter names are torchvision's.
"""

from torch import Tensor, nn

from netsmith.arch.blocks.draft import Padding
from netsmith.arch.graph import Activation
from netsmith.nn.layers import DropPath, Norm, SqueezeExcitation, conv, conv_norm, conv_norm_act


class _Branch(nn.Module):
    """A branch, registered as `name`, that is added to its input when `skip`."""

    def __init__(self, name: str, branch: nn.Sequential, *, skip: bool, drop_path: float) -> None:
        super().__init__()
        self.add_module(name, branch)
        self.branch_name = name
        self.drop_path = DropPath(drop_path)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.get_submodule(self.branch_name)(x)
        return x + self.drop_path(y) if self.skip else y

    def zero_init(self) -> None:
        """Start the residual branch at zero: its last norm. Without a shortcut do nothing."""
        if self.skip:
            norms = [
                each for each in self.get_submodule(self.branch_name).modules() if isinstance(each, nn.BatchNorm2d)
            ]
            nn.init.zeros_(norms[-1].weight)


class InvertedResidual(_Branch):
    """1x1 expansion (absent when `expand` is None), depthwise, linear 1x1; added to the input when `skip` (table 1,
    figure 4)."""

    def __init__(
        self, channels: int, expand: int | None, out: int, *, kernel: int, stride: int, skip: bool,
        activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        hidden = expand or channels
        layers = [] if expand is None else [conv_norm_act(channels, expand, norm=norm, activation=activation)]
        branch = nn.Sequential(
            *layers,
            conv_norm_act(hidden, hidden, kernel, stride=stride, groups=hidden, norm=norm, activation=activation),
            conv(hidden, out),
            norm(out),
        )
        super().__init__("conv", branch, skip=skip, drop_path=drop_path)


class MBConv(_Branch):
    """1x1 expansion (absent when `expand` is None), depthwise, squeeze-excitation (absent when `squeeze` is None),
    linear 1x1; added to the input when `skip`. The excitation has activations of its own."""

    def __init__(
        self, channels: int, expand: int | None, squeeze: int | None, out: int, *, kernel: int, stride: int,
        skip: bool, activation: Activation, squeeze_activation: Activation, gate: Activation, padding: Padding,
        drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
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
        super().__init__("block", nn.Sequential(*layers), skip=skip, drop_path=drop_path)


class FusedMBConv(_Branch):
    """Convolution to `expand` channels and linear 1x1, or, when `expand` is None, one convolution; added to the input
    when `skip`."""

    def __init__(
        self, channels: int, expand: int | None, out: int, *, kernel: int, stride: int, skip: bool,
        activation: Activation, padding: Padding, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        hidden = expand or out
        branch = nn.Sequential(
            conv_norm_act(channels, hidden, kernel, stride=stride, padding=padding, norm=norm, activation=activation)
        )
        if expand is not None:
            branch.append(conv_norm(hidden, out, norm=norm))
        super().__init__("block", branch, skip=skip, drop_path=drop_path)
