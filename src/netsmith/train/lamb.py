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

from netsmith.train.listwise import Listwise, aten

EPSILON = 1e-6


class Lamb(Listwise):
    """LAMB.

    Args:
        groups: parameter groups, each with its "weight_decay".
        lr: learning rate.
        betas: of the means of the gradient and of its square.
        over_all: gives the norms of whole tensors from those of what is moved here, where that is a part.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        over_all: Callable[[Tensor], Tensor] = lambda norms: norms,
    ) -> None:
        super().__init__(groups, lr=lr)
        self._betas, self._over_all = betas, over_all

    def update(self, parameters: list[Parameter], gradients: list[Tensor], *, rate: float, weight_decay: float) -> None:
        """LAMB's, with what each parameter remembers: "step", "exp_avg", "exp_avg_sq"."""
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
        aten._foreach_add_(steps, 1.0)
        aten._foreach_lerp_(means, gradients, 1.0 - first)
        aten._foreach_mul_(squares, second)
        aten._foreach_addcmul_(squares, gradients, gradients, 1.0 - second)
        directions: list[Tensor] = []
        for step, mean, square in zip(steps, means, squares, strict=True):
            root = (square / (1.0 - second**step)).sqrt_().add_(EPSILON)
            directions.append((mean / (1.0 - first**step)).div_(root))
        if weight_decay:
            aten._foreach_add_(directions, parameters, alpha=weight_decay)
            norms = torch.stack([*aten._foreach_norm(parameters), *aten._foreach_norm(directions)])
            lengths, moves = self._over_all(norms).chunk(2)
            for direction, length, move in zip(directions, lengths, moves, strict=True):
                # A tensor of zeros, or one that does not move, has no length to go by.
                direction.mul_(torch.where((length > 0) & (move > 0), length / move, torch.ones_like(length)))
        aten._foreach_add_(parameters, directions, alpha=-rate)
