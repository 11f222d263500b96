"""Optimizers of this project that update all parameters of a group by a few operations on lists of tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

aten: Any = torch.ops.aten  # whose operations on lists of tensors are one kernel each on CUDA


class Listwise(Optimizer, ABC):
    """Hands each group's parameters that have a gradient to `update`.

    Args:
        groups: parameter groups, each with its "weight_decay".
        lr: learning rate, until a group's "lr" is set anew.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        assert closure is None, "gradients are there before"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                gradients = [p.grad for p in parameters]
                self.update(parameters, gradients, rate=group["lr"], weight_decay=group["weight_decay"])

    @abstractmethod
    def update(self, parameters: list[Parameter], gradients: list[Tensor], *, rate: float, weight_decay: float) -> None:
        """Update parameters in place.

        Args:
            parameters: one or more.
            gradients: of each, of its shape; not to be changed.
            rate: learning rate.
            weight_decay: of the group.
        """
