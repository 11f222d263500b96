"""LAMB: Adam's direction, with each tensor's step as long as its weights are, for large batches.

- A tensor with weight decay moves by rate x |weights| x direction / |direction|, the decay being part of the direction;
  one without (norms, biases) moves as Adam moves it, as in NVIDIA's and timm's versions.
- The gradient is not clipped here: `grad_clip: 1.0` of the recipe is what those versions do by themselves.
- Every tensor counts its own updates, so one that begins to learn later has its own bias correction.

Source: You et al. 2020, "Large batch optimization for deep learning" (arXiv 1904.00962), algorithm 2; epsilon of timm.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

EPSILON = 1e-6
_aten: Any = torch.ops.aten  # whose operations on lists of tensors are one kernel each on CUDA


class Lamb(Optimizer):
    """LAMB.

    Args:
        groups: parameter groups, each with its "weight_decay".
        lr: learning rate.
        betas: of the means of the gradient and of its square.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._betas = betas

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        assert closure is None, "gradients are there before"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(parameters, rate=group["lr"], weight_decay=group["weight_decay"])

    def _step(self, parameters: list[Parameter], *, rate: float, weight_decay: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            memory = self.state[parameter]
            if not memory:
                memory["step"] = torch.zeros((), device=parameter.device)
                memory["exp_avg"] = torch.zeros_like(parameter)
                memory["exp_avg_sq"] = torch.zeros_like(parameter)
        steps, means, squares = (
            [self.state[p][name] for p in parameters] for name in ("step", "exp_avg", "exp_avg_sq")
        )
        first, second = self._betas
        _aten._foreach_add_(steps, 1.0)
        _aten._foreach_lerp_(means, gradients, 1.0 - first)
        _aten._foreach_mul_(squares, second)
        _aten._foreach_addcmul_(squares, gradients, gradients, 1.0 - second)
        directions: list[Tensor] = []
        for step, mean, square in zip(steps, means, squares, strict=True):
            root = (square / (1.0 - second**step)).sqrt_().add_(EPSILON)
            directions.append((mean / (1.0 - first**step)).div_(root))
        if weight_decay:
            _aten._foreach_add_(directions, parameters, alpha=weight_decay)
            lengths, moves = _aten._foreach_norm(parameters), _aten._foreach_norm(directions)
            for direction, length, move in zip(directions, lengths, moves, strict=True):
                # A tensor of zeros, or one that does not move, has no length to go by.
                direction.mul_(torch.where((length > 0) & (move > 0), length / move, torch.ones_like(length)))
        _aten._foreach_add_(parameters, directions, alpha=-rate)
