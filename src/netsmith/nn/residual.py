"""Residual blocks: basic and bottleneck (He et al. 2016, arXiv 1512.03385, figure 5; Xie et al. 2017, figure 3c), with
squeeze-excitation at the branch's end (Hu et al. 2018, arXiv 1709.01507, figure 3).

Deliberate choices: parameter names are torchvision's, those of the squeeze-excitation timm's.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, cast

from torch import Tensor, nn

from netsmith.arch.graph import Activation
from netsmith.nn.layers import ACTIVATIONS, DropPath, Norm, SqueezeExcitation, conv


class _Residual(nn.Module, ABC):
    """A branch, its squeeze-excitation, the shortcut, the activation. `downsample` is the shortcut's layer; None leaves
    the shortcut out."""

    last_norm: ClassVar[str]

    def _finish(
        self, out: int, *, squeeze: int | None, downsample: nn.Module | None, activation: Activation, drop_path: float
    ) -> None:
        """Add what follows the branch's layers, behind them in the order of the parameters."""
        self.se = None if squeeze is None else SqueezeExcitation(out, squeeze, activation=activation)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride], before the shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.branch(x)
        if self.se is not None:
            y = self.se(y)
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(x)
        return self.activation(y)

    def zero_init(self) -> None:
        """Start the residual branch at zero (Goyal et al. 2017, arXiv 1706.02677); without a shortcut do nothing."""
        if self.downsample is not None:
            nn.init.zeros_(cast(nn.BatchNorm2d, self.get_submodule(self.last_norm)).weight)


class BasicBlock(_Residual):
    """3x3 (stride), 3x3, plus the shortcut (figure 5 left). `downsample` is the shortcut's layer; None leaves the
    shortcut out."""

    last_norm = "bn2"

    def __init__(
        self, channels: int, width: int, out: int, *, stride: int, squeeze: int | None = None,
        downsample: nn.Module | None, activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(channels, width, 3, stride=stride)
        self.bn1 = norm(width)
        self.conv2 = conv(width, out, 3)
        self.bn2 = norm(out)
        self._finish(out, squeeze=squeeze, downsample=downsample, activation=activation, drop_path=drop_path)

    def branch(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride], before the shortcut."""
        y = self.activation(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(y))


class Bottleneck(_Residual):
    """Three convolutions plus the shortcut: 1x1 to `reduce`, 3x3 in groups to `width`, 1x1 to `out` (figure 5 right;
    ResNeXt's figure 3c). With kernels 3, 1, 3 it is the cardinal block."""

    last_norm = "bn3"

    def __init__(
        self, channels: int, reduce: int, width: int, out: int, *, kernels: tuple[int, int, int] = (1, 3, 1),
        strides: tuple[int, int], groups: int = 1, squeeze: int | None = None,
        downsample: nn.Module | None, activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(channels, reduce, kernels[0], stride=strides[0])
        self.bn1 = norm(reduce)
        self.conv2 = conv(reduce, width, kernels[1], stride=strides[1], groups=groups)
        self.bn2 = norm(width)
        self.conv3 = conv(width, out, kernels[2])
        self.bn3 = norm(out)
        self._finish(out, squeeze=squeeze, downsample=downsample, activation=activation, drop_path=drop_path)

    def branch(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride], before the shortcut."""
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.activation(self.bn2(self.conv2(y)))
        return self.bn3(self.conv3(y))
