"""ReLU and ReLU6 in place, whose gradients need the result alone; on a CPU large bfloat16 maps as whole numbers.

torch computes with bfloat16 by way of float32 and back, which on a CPU takes longer than to read and write the map. The
bits of a bfloat16 number, read as an int16, are in the order of the numbers: those of at least 0 are at least 0, and
below them the bits of NaN with a sign (-127 to -1) lie above those of all negative numbers (up to -128, minus
infinity). So to set to 0 what is at most -128 is ReLU, NaN included, and a gradient passes where the result is above
0. Above lie infinity (32640) and NaN without a sign. Results and gradients equal torch's, a zero perhaps with another
sign, but for the gradient at NaN: there the loss is NaN too, and no gradient is computed.

A compiler decides itself where results go, and would break its graph at an input that is changed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE = -128
INFINITY = 32640
SIX = 16576
"""int16 with the bits of bfloat16 numbers."""
LARGE = 2**18
"""Numbers of a map from which on its bits are used: with fewer, calling a function from Python takes as long."""


class ReLU(nn.ReLU):
    """max(0, x) in place."""

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """Change x of any shape."""
        return _ReLU.apply(input) if by_bits(input) else super().forward(input)


class ReLU6(nn.Module):
    """max(0, min(x, 6)) in place: torch's own in-place form keeps a copy of the input for the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Change x of any shape."""
        return F.relu6(x) if torch.compiler.is_compiling() else _ReLU6.apply(x)


def by_bits(x: Tensor) -> bool:
    """Whether x is computed by its bits."""
    return (
        not torch.compiler.is_compiling()
        and x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.numel() >= LARGE
    )


def _bits(x: Tensor) -> Tensor:
    return x.view(torch.int16)


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        torch.threshold_(_bits(x), NEGATIVE, 0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,), (result,) = grads, ctx.saved_tensors
        if torch.is_grad_enabled():  # for a gradient of this gradient, which bits have none of
            return torch.ops.aten.threshold_backward(grad, result, 0.0)
        return torch.ops.aten.threshold_backward(_bits(grad), _bits(result), 0).view(torch.bfloat16)


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if by_bits(x) and _bits(x).amax() <= INFINITY:
            torch.threshold_(_bits(x), NEGATIVE, 0).clamp_max_(SIX)
        else:
            x.clamp_(0.0, 6.0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], result, 0.0, 6.0)  # nothing where it is 0 or 6
