"""Convolutions and pools with every kind of padding.

Deliberate choices: what torch's own layers can do is left to them; paddings that differ before and behind, and
TensorFlow's "same", which depends on the map's size, are applied before the layer, so that a network also runs at other
sizes as its reference does.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.arch.blocks.draft import Padding, Size
from netsmith.nn.positions import every


def pair(size: Size) -> tuple[int, int]:
    """A kernel's height and width."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def pads(side: int, kernel: int, stride: int, padding: Padding, axis: int) -> tuple[int, int]:
    """Positions before and behind a map of `side` along `axis`."""
    match padding:
        case int():
            return padding, padding
        case "half":
            return kernel // 2, kernel // 2
        case "same":
            lacking = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            return lacking // 2, lacking - lacking // 2
        case _:
            return padding[axis]


def equal_pads(kernel: tuple[int, int], padding: Padding) -> tuple[int, int] | None:
    """The padding of each axis where it is the same before and behind at every size, else None."""
    if padding == "same":
        return None
    (top, bottom), (left, right) = (pads(0, kernel[axis], 1, padding, axis) for axis in (0, 1))
    return (top, left) if top == bottom and left == right else None


def pad(x: Tensor, kernel: tuple[int, int], stride: int, padding: Padding, value: float = 0.0) -> Tensor:
    """x [N,C,H,W] with its padding."""
    top, bottom = pads(x.shape[2], kernel[0], stride, padding, 0)
    left, right = pads(x.shape[3], kernel[1], stride, padding, 1)
    return F.pad(x, (left, right, top, bottom), value=value)


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, as a 1x1 convolution of every stride-th position: the same function and weights.

    torch 2.13's CPU library crashes the process in the backward of the strided form with channels_last float32 and 8
    input channels (`Conv2d(8, 16, 1, stride=2)` on maps of 56 x 56).
    """

    def forward(self, input: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,out,ceil(H/stride),ceil(W/stride)]."""
        return F.conv2d(every(input, self.stride[0]), self.weight, self.bias, groups=self.groups)


class PaddedConv2d(nn.Conv2d):
    """A convolution that pads unequally, or as TensorFlow's "same" does at the size that comes."""

    def __init__(
        self, channels: int, out: int, kernel: tuple[int, int], *, stride: int, pads: Padding, groups: int, bias: bool
    ) -> None:
        super().__init__(channels, out, kernel, stride=stride, groups=groups, bias=bias)
        self.pads: Padding = pads

    def forward(self, input: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,out,H',W']."""
        kernel = (self.kernel_size[0], self.kernel_size[1])
        x = pad(input, kernel, self.stride[0], self.pads)
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)

    def extra_repr(self) -> str:
        """torch's attributes and the padding, for `print(network)`."""
        return f"{super().extra_repr()}, pads={self.pads}"


def window_conv(
    channels: int, out: int, kernel: Size, *, stride: int = 1, padding: Padding = "half", groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:  # fmt: skip
    """A convolution with any padding."""
    sides = pair(kernel)
    equal = equal_pads(sides, padding)
    if equal is None:
        return PaddedConv2d(channels, out, sides, stride=stride, pads=padding, groups=groups, bias=bias)
    if sides == (1, 1) and stride > 1 and equal == (0, 0):
        return StridedPointwise(channels, out, 1, stride=stride, groups=groups, bias=bias)
    return nn.Conv2d(channels, out, sides, stride=stride, padding=equal, groups=groups, bias=bias)


class WindowPool(nn.Module):
    """Max or average pooling with any padding.

    Args:
        kernel, stride, padding: of the window.
        ceil: whether the last window may hang over the end.
        count_padding: whether an average divides by padded positions too.
    """

    def __init__(
        self, reduce: Literal["max", "avg"], kernel: Size, *, stride: int, padding: Padding = "half",
        ceil: bool = False, count_padding: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reduce: Literal["max", "avg"] = reduce
        self.kernel, self.stride = pair(kernel), stride
        self.padding: Padding = padding
        self.ceil, self.count_padding = ceil, count_padding

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C,H',W']."""
        equal = equal_pads(self.kernel, self.padding)
        if self.reduce == "max":
            if equal is None:
                x, equal = pad(x, self.kernel, self.stride, self.padding, value=float("-inf")), (0, 0)
            return F.max_pool2d(x, self.kernel, self.stride, equal, ceil_mode=self.ceil)
        if equal is not None:
            return F.avg_pool2d(
                x, self.kernel, self.stride, equal, ceil_mode=self.ceil, count_include_pad=self.count_padding
            )
        mean = F.avg_pool2d(
            pad(x, self.kernel, self.stride, self.padding), self.kernel, self.stride, ceil_mode=self.ceil
        )
        if self.count_padding:
            return mean
        inside = pad(torch.ones_like(x[:1, :1]), self.kernel, self.stride, self.padding)
        return mean / F.avg_pool2d(inside, self.kernel, self.stride, ceil_mode=self.ceil)

    def extra_repr(self) -> str:
        """The attributes, for `print(network)`."""
        shown = f"{self.reduce}, {self.kernel}, stride={self.stride}, padding={self.padding}"
        return f"{shown}, ceil={self.ceil}, count_padding={self.count_padding}"
