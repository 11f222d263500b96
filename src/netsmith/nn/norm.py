"""Batch norm that trains at full speed with any number of channels, on several cores of a CPU.

torch adds up a channels_last map in one row of float32 numbers per thread. Where rows do not end with a line of the
cache, which has 16 of them, the threads take that line from each other at every position: two cores then need 3 to 8
times as long with 24 or 40 channels as with 32 or 48. The memory of N*H*W positions with C channels is also that of
N*H*W/k positions with k*C channels, which do fill their lines. So such maps are folded; the statistics of the k groups
of positions are combined as those of parts of a batch are (Chan, Golub and LeVeque 1979), the sums of the gradient are
added up, and what is normalised is the same.

Networks that were scaled or pruned have such widths. Evaluation, one thread, other devices, small maps and compiled
networks are torch's.

Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1 and section 3.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

LINE = 16
"""float32 numbers in a line of the cache."""
WIDE = 64
"""Channels from which on rows are long enough for the loops over them: with 24 channels 96 and 384 are as quick."""
LARGE = 2**18
"""Numbers of a map below which it is left as it is. Forward and back on two cores: [128, 24, 16, 16] takes 0.55 ms
instead of 1.21, [128, 24, 8, 8] 0.29 instead of 0.33, [128, 40, 4, 4] 0.24 instead of 0.14."""


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, with its parameters, buffers and results; only how it computes while it trains differs."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise every channel of float maps [N,C,H,W]; the result has their dtype, statistics are float32."""
        ours = self.training and self.track_running_stats and self.affine and not torch.compiler.is_compiling()
        groups = fold(input) if ours else 1
        if groups == 1:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        output, mean, variance = _Folded.apply(input, self.weight, self.bias, self.eps, groups)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            share = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            count = input.numel() // input.shape[1]
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / (count - 1)), share)
        return output


def fold(x: Tensor) -> int:
    """How many positions of a map [N,C,H,W] to see as one with as many times its channels; 1: compute as torch does."""
    if x.device.type != "cpu" or torch.get_num_threads() == 1 or x.numel() < LARGE:
        return 1
    channels = x.shape[1]
    if channels % LINE == 0 or not x.is_contiguous(memory_format=torch.channels_last):
        return 1
    positions, groups = x.numel() // channels, LINE // math.gcd(channels, LINE)
    if positions % groups:
        return 1
    while groups * channels < WIDE and positions % (2 * groups) == 0:
        groups *= 2
    return groups


class _Folded(torch.autograd.Function):
    """Batch norm in training of x [N,C,H,W], channels_last: the result, mean and biased variance [C], float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, groups: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels = len(weight)
        unused = weight.new_zeros(2, groups * channels)  # float32 buffers make the statistics float32
        means, variances = torch.batch_norm_update_stats(_rows(x, groups), unused[0], unused[1], 0.0)
        between, mean = torch.var_mean(means.view(groups, channels), dim=0, correction=0)
        variance = between + variances.view(groups, channels).mean(dim=0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.groups = eps, groups
        ctx.mark_non_differentiable(mean, variance)
        return _affine(x, mean, variance, weight, bias, eps=eps, groups=groups), mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        scale = (variance + ctx.eps).rsqrt()
        groups = ctx.groups
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            _rows(grad, groups), _rows(x, groups), None, mean.repeat(groups), variance.repeat(groups), None, None,
            False, ctx.eps, [False, True, True],
        )  # fmt: skip
        of_weight, of_bias = (sums.view(groups, -1).sum(dim=0) for sums in (of_weight, of_bias))
        slope, count = weight * scale, x.numel() // len(weight)
        shares = (-slope * of_weight / count, -slope * of_bias / count)
        found = _affine(x, mean, variance, *shares, eps=ctx.eps, groups=groups)
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        found += _affine(grad, zero, one, slope, zero, eps=0.0, groups=groups)
        return found, of_weight, of_bias, None, None


def _affine(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, *, eps: float, groups: int
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, computed in float32: batch norm outside of training.

    A tensor of its own, which the next layer may change in place; a view of rows may not be.
    """
    result = torch.empty_like(x)
    mean, variance, weight, bias = (each.repeat(groups) for each in (mean, variance, weight, bias))
    written = _rows(result, groups), weight.new_empty(0), weight.new_empty(0)
    torch.native_batch_norm(_rows(x, groups), weight, bias, mean, variance, False, 0.0, eps, out=written)
    return result


def _rows(x: Tensor, groups: int) -> Tensor:
    """The same memory as [N*H*W/groups, groups*C]."""
    return x.permute(0, 2, 3, 1).view(-1, groups * x.shape[1])
