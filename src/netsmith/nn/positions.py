"""Maps at some of their positions, and over all of them, with gradients in the memory layout of the map.

Autograd writes the gradient of a slice and of a mean as rows of one channel after another, also where the map is
channels_last. What comes next on the way back then reads two layouts at once, ten times as slowly: a twentieth of a
training step of ResNet-18 in bfloat16 on two cores. The numbers are autograd's own, bit for bit.
"""

from typing import Any

import torch
from torch import Tensor


def every(x: Tensor, stride: int) -> Tensor:
    """Every stride-th position, the first included: [N,C,H,W] -> [N,C,ceil(H/stride),ceil(W/stride)]."""
    return x if stride == 1 else _Every.apply(x, stride)


def mean_over_positions(x: Tensor) -> Tensor:
    """The mean over all positions: [N,C,H,W] -> [N,C]."""
    return _Mean.apply(x)


class _Every(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int) -> Tensor:
        ctx.stride, ctx.shape, ctx.layout = stride, x.shape, _layout(x)
        return x[:, :, ::stride, ::stride].contiguous(memory_format=ctx.layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        whole = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=ctx.layout).zero_()
        whole[:, :, :: ctx.stride, :: ctx.stride] = grad
        return whole, None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape, ctx.layout = x.shape, _layout(x)
        return x.mean(dim=(2, 3))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        share = grad / (ctx.shape[2] * ctx.shape[3])
        return share[:, :, None, None].expand(ctx.shape).contiguous(memory_format=ctx.layout)


def _layout(x: Tensor) -> torch.memory_format:
    last = torch.channels_last
    return last if x.is_contiguous(memory_format=last) and not x.is_contiguous() else torch.contiguous_format
