"""Pre-activation blocks: norm and activation before each convolution (He et al. 2016, arXiv 1603.05027, figure 4e).

Deliberate choices: parameter names are those of the post-activation blocks; `shared` lets the shortcut read what the
first activation puts out.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, cast

from torch import Tensor, nn

from netsmith.arch.graph import Activation
from netsmith.nn.layers import ACTIVATIONS, DropPath, Norm, conv


class _PreResidual(nn.Module, ABC):
    """Norm and activation, a branch, the shortcut. `downsample` is the shortcut's layer; None leaves the shortcut
    out."""

    bn1: nn.Module
    last_conv: ClassVar[str]

    def _finish(self, *, shared: bool, downsample: nn.Module | None, activation: Activation, drop_path: float) -> None:
        """Add what follows the branch's layers, behind them in the order of the parameters."""
        self.shared = shared
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    @abstractmethod
    def branch(self, first: Tensor) -> Tensor:
        """[N,channels,H,W], behind the first activation -> [N,out,H/stride,W/stride], before the shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        first = self.activation(self.bn1(x))
        y = self.branch(first)
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(first if self.shared else x)
        return y

    def zero_init(self) -> None:
        """Start the residual branch at zero; its last layer is a convolution. Without a shortcut do nothing."""
        if self.downsample is not None:
            nn.init.zeros_(cast(nn.Conv2d, self.get_submodule(self.last_conv)).weight)


class PreBasicBlock(_PreResidual):
    """3x3 (stride), 3x3, plus the shortcut."""

    last_conv = "conv2"

    def __init__(
        self, channels: int, width: int, out: int, *, stride: int, shared: bool, downsample: nn.Module | None,
        activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bn1 = norm(channels)
        self.conv1 = conv(channels, width, 3, stride=stride)
        self.bn2 = norm(width)
        self.conv2 = conv(width, out, 3)
        self._finish(shared=shared, downsample=downsample, activation=activation, drop_path=drop_path)

    def branch(self, first: Tensor) -> Tensor:
        """[N,channels,H,W], behind the first activation -> [N,out,H/stride,W/stride], before the shortcut."""
        return self.conv2(self.activation(self.bn2(self.conv1(first))))


class PreBottleneck(_PreResidual):
    """1x1, 3x3 (stride), 1x1, plus the shortcut."""

    last_conv = "conv3"

    def __init__(
        self, channels: int, reduce: int, width: int, out: int, *, stride: int, shared: bool,
        downsample: nn.Module | None, activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bn1 = norm(channels)
        self.conv1 = conv(channels, reduce)
        self.bn2 = norm(reduce)
        self.conv2 = conv(reduce, width, 3, stride=stride)
        self.bn3 = norm(width)
        self.conv3 = conv(width, out)
        self._finish(shared=shared, downsample=downsample, activation=activation, drop_path=drop_path)

    def branch(self, first: Tensor) -> Tensor:
        """[N,channels,H,W], behind the first activation -> [N,out,H/stride,W/stride], before the shortcut."""
        y = self.conv2(self.activation(self.bn2(self.conv1(first))))
        return self.conv3(self.activation(self.bn3(y)))
