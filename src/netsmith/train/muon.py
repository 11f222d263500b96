"""Muon: momentum whose direction is orthogonalised, so that every update of a matrix has singular values near 1.

- A weight is the matrix [outputs, inputs x kernel]; a convolution in groups is one matrix per group, so each filter of
  a depthwise one is brought to length 1. Matrices of one shape are orthogonalised together.
- The update is scaled by 0.2 sqrt(larger side), which gives it the size that AdamW's has (Liu et al. 2025, section
  2.2): rate and weight decay are those of AdamW, which trains what has no matrix, and the classifier.
- torch.optim.Muon takes two-dimensional weights only, one at a time, and always in bfloat16, for which many CPUs have
  no instructions; this one computes in bfloat16 on CUDA and in float32 elsewhere. For two-dimensional weights the two
  agree.

Sources: Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is scalable for
LLM training" (arXiv 2502.16982).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3, x^5: steep at 0, and within about [0.7, 1.2] after the iterations
ITERATIONS = 5
ADAMW_SIZE = 0.2  # root mean square of AdamW's updates


class Muon(Optimizer):
    """Muon for some weights, AdamW for all else.

    Args:
        matrices: weights of two or more dimensions, with the number of groups that each is divided into.
        rest: parameter groups for AdamW, each with its "weight_decay".
        lr: learning rate of both.
        momentum: of Muon; beta1 of AdamW.
        nesterov: whether Muon looks ahead.
        weight_decay: decoupled, of the matrices.
        fused: AdamW's implementation.
        rate_factors: of the rate, for matrices where it is not 1.
    """

    def __init__(
        self,
        matrices: Mapping[Tensor, int],
        rest: Sequence[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        fused: bool = True,
        rate_factors: Mapping[Tensor, float] | None = None,
    ) -> None:
        by_kind: dict[tuple[int, float], list[Tensor]] = defaultdict(list)
        for parameter, count in matrices.items():
            by_kind[count, (rate_factors or {}).get(parameter, 1.0)].append(parameter)
        ours = [{"params": each, "matrices": count, "rate_factor": f} for (count, f), each in by_kind.items()]
        super().__init__([*ours, *rest], {"lr": lr, "weight_decay": weight_decay})
        self._momentum, self._nesterov = momentum, nesterov
        self._ours, others = self.param_groups[: len(ours)], self.param_groups[len(ours) :]
        self._rest = AdamW(others, lr=lr, betas=(momentum, 0.999), fused=fused) if others else None
        if self._rest is not None:
            self._rest.state = self.state  # one memory: what is saved, cleared and loaded here is AdamW's too

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        assert closure is None, "gradients are there before"
        for group in self._ours:
            for weights, directions in self._by_shape(group["params"]):
                outputs, *inputs = weights[0].shape
                matrices = torch.stack(directions).reshape(
                    len(weights), group["matrices"], outputs // group["matrices"], -1
                )
                updates = orthogonal(matrices, dtype=torch.bfloat16 if matrices.is_cuda else torch.float32)
                size = ADAMW_SIZE * max(matrices.shape[-2:]) ** 0.5
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1.0 - group["lr"] * group["weight_decay"])
                    weight.add_(update.reshape(outputs, *inputs), alpha=-group["lr"] * size)
        if self._rest is not None:
            self._rest.step()

    def _by_shape(self, parameters: Sequence[Tensor]) -> list[tuple[list[Tensor], list[Tensor]]]:
        found: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            memory = self.state[parameter]
            if not memory:
                memory["momentum_buffer"] = torch.zeros_like(parameter)
            mean: Tensor = memory["momentum_buffer"]
            mean.lerp_(gradient, 1.0 - self._momentum)
            weights, directions = found.setdefault(parameter.shape, ([], []))
            weights.append(parameter)
            directions.append(gradient.lerp(mean, self._momentum) if self._nesterov else mean)
        return list(found.values())


def orthogonal(matrices: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest matrices with singular values of 1, about: Newton-Schulz iterations leave them within [0.7, 1.2].

    Args:
        matrices: [..., rows, columns]; zeros stay zeros.
        dtype: of the computation and of what is returned.
    """
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # the largest singular value is at most the norm
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
