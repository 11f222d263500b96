"""Pre-activation blocks: norm and activation before each convolution (He et al. 2016, arXiv 1603.05027, figure 4e).

Deliberate choices: parameter names are those of the post-activation blocks; `shared` lets the shortcut read what the
first activation puts out.
"""

from torch import Tensor, nn

from netsmith.arch.graph import Activation
from netsmith.nn.layers import ACTIVATIONS, DropPath, Norm, conv


class PreBasicBlock(nn.Module):
    """3x3 (stride), 3x3, plus the shortcut. `downsample` is the shortcut's layer; None leaves the shortcut out."""

    def __init__(
        self, channels: int, width: int, out: int, *, stride: int, shared: bool, downsample: nn.Module | None,
        activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bn1 = norm(channels)
        self.conv1 = conv(channels, width, 3, stride=stride)
        self.bn2 = norm(width)
        self.conv2 = conv(width, out, 3)
        self.shared = shared
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        first = self.activation(self.bn1(x))
        y = self.conv2(self.activation(self.bn2(self.conv1(first))))
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(first if self.shared else x)
        return y

    def zero_init(self) -> None:
        """Start the residual branch at zero; its last layer is a convolution. Without a shortcut do nothing."""
        if self.downsample is not None:
            nn.init.zeros_(self.conv2.weight)


class PreBottleneck(nn.Module):
    """1x1, 3x3 (stride), 1x1, plus the shortcut."""

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
        self.shared = shared
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        first = self.activation(self.bn1(x))
        y = self.conv2(self.activation(self.bn2(self.conv1(first))))
        y = self.conv3(self.activation(self.bn3(y)))
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(first if self.shared else x)
        return y

    def zero_init(self) -> None:
        """Start the residual branch at zero; its last layer is a convolution. Without a shortcut do nothing."""
        if self.downsample is not None:
            nn.init.zeros_(self.conv3.weight)
