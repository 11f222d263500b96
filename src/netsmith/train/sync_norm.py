"""Batch norm over the pictures of all processes, on any device.

torch's own SyncBatchNorm computes on CUDA only, and replaces modules. Here the modules stay what they are, with their
names and all they hold: only how they compute in training mode changes. Outside of it, and in a copy that was made
`plain`, they are batch norm as ever, so evaluation, checkpoints and export know nothing of it.

Statistics are float32 whatever the activations are. Each process sends mean, variance and count of its own positions,
and all combine them alike (Chan, Golub and LeVeque 1979), which loses nothing where a mean is large against its
deviation, as sums of squares would. Backward adds up the two sums per channel that batch norm's gradient is made of.

Source: Ioffe and Szegedy 2015, algorithm 1 and section 3; Peng et al. 2018 (MegDet) for statistics across devices.
"""

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.train.ranks import Ranks

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
FEW = 16
"""Pictures at once below which a process's own statistics are poor (Wu and He 2018, figure 1): then `auto` is on."""


def norms(network: nn.Module) -> Iterator[Norm]:
    """The batch norms of a network."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            yield module


def synchronise(network: nn.Module, ranks: Ranks) -> None:
    """Let the network's batch norms use the statistics of all processes' pictures while they train, in place."""
    for module in norms(network):
        module.forward = MethodType(_forward(ranks), module)


def plain(network: nn.Module) -> None:
    """Let the network's batch norms compute alone again, in place."""
    for module in norms(network):
        vars(module).pop("forward", None)


def _forward(ranks: Ranks) -> Callable[[Norm, Tensor], Tensor]:
    def forward(self: Norm, input: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        output, mean, variance = _OverAll.apply(input, self.weight, self.bias, self.eps, ranks)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance, share)
        return output

    return forward


class _OverAll(torch.autograd.Function):
    """Batch norm of x [N,C,...] with the statistics of all processes; gives those too, the variance unbiased."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x.float(), axes, correction=0)
        count = mean.new_tensor([x.numel() // x.shape[1]])
        means, variances, counts = ranks.stacked(torch.cat([mean, variance, count])).split([len(mean)] * 2 + [1], dim=1)
        total = counts.sum()
        shares = counts / total
        mean = (means * shares).sum(dim=0)
        variance = ((variances + (means - mean).square()) * shares).sum(dim=0)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), total)
        ctx.ranks = ranks
        unbiased = variance * (total / (total - 1).clamp(min=1))
        ctx.mark_non_differentiable(mean, unbiased)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, unbiased

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
        grad = grads[0].float()
        normal = (x.float() - mean.view(shape)).mul_(scale.view(shape))
        sums = torch.stack([grad.sum(axes), (grad * normal).sum(axes)])
        ours = sums.clone()
        ctx.ranks.add_up([sums])
        of_bias, of_weight = sums / total
        slope = scale if weight is None else scale * weight
        of_x = (grad - of_bias.view(shape)).sub_(normal.mul_(of_weight.view(shape))).mul_(slope.view(shape))
        return of_x.to(x.dtype), *((ours[1], ours[0]) if weight is not None else (None, None)), None, None
