"""Residual blocks: basic and bottleneck (He et al. 2016, arXiv 1512.03385, figure 5; Xie et al. 2017, figure 3c).

Deliberate choices: parameter names are torchvision's.
"""

from typing import cast

from torch import Tensor, nn

from netsmith.arch.graph import Activation
from netsmith.nn.layers import ACTIVATIONS, DropPath, Norm, conv


class BasicBlock(nn.Module):
    """3x3 (stride), 3x3, plus the shortcut (figure 5 left). `downsample` is the shortcut's layer; None leaves the
    shortcut out."""

    def __init__(
        self, channels: int, width: int, out: int, *, stride: int, downsample: nn.Module | None,
        activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(channels, width, 3, stride=stride)
        self.bn1 = norm(width)
        self.conv2 = conv(width, out, 3)
        self.bn2 = norm(out)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(x)
        return self.activation(y)

    def zero_init(self) -> None:
        """Start the residual branch at zero (Goyal et al. 2017, arXiv 1706.02677); without a shortcut do nothing."""
        if self.downsample is not None:
            nn.init.zeros_(cast(Tensor, self.bn2.weight))


class Bottleneck(nn.Module):
    """1x1 to `reduce`, 3x3 in groups to `width`, 1x1 to `out`, plus the shortcut (figure 5 right; ResNeXt's figure
    3c)."""

    def __init__(
        self, channels: int, reduce: int, width: int, out: int, *, groups: int, strides: tuple[int, int],
        downsample: nn.Module | None, activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(channels, reduce, stride=strides[0])
        self.bn1 = norm(reduce)
        self.conv2 = conv(reduce, width, 3, stride=strides[1], groups=groups)
        self.bn2 = norm(width)
        self.conv3 = conv(width, out)
        self.bn3 = norm(out)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.activation(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(x)
        return self.activation(y)

    def zero_init(self) -> None:
        """Start the residual branch at zero (Goyal et al. 2017, arXiv 1706.02677); without a shortcut do nothing."""
        if self.downsample is not None:
            nn.init.zeros_(cast(Tensor, self.bn3.weight))
