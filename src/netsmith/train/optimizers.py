"""Optimizers by the recipe's name, with every parameter in the group where it belongs (`groups`).

- The rate is set anew for every update, in every group, times the group's factor.
- SGD and AdamW are torch's, fused where torch can.
- All that an optimizer remembers stands in its `state` by parameter, as tensors: that is what checkpoints hold.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from netsmith.run.recipe import Recipe
from netsmith.train.devices import has_fused_optimizers
from netsmith.train.groups import LAYERS, classifiers, parameter_groups, rate_factors
from netsmith.train.lamb import Lamb
from netsmith.train.muon import Muon

_aten: Any = torch.ops.aten  # whose operations on lists of tensors are one kernel each on CUDA


def build_optimizer(network: nn.Module, recipe: Recipe, *, fused: bool = True) -> Optimizer:
    """The optimizer of a recipe over the network's parameters.

    Args:
        network: on its device already.
        recipe: its `opt`, `momentum`, `nesterov`, `weight_decay`, `weight_decay_on` and `layer_decay` are used; the
            rate is set by every update.
        fused: whether torch's fused kernels may be used.

    Raises:
        InputError: the recipe needs a layout that the network does not have.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    fused = fused and all(has_fused_optimizers(p.device) for p in trained)
    factors = rate_factors(network, recipe)
    if recipe.opt == "muon":
        matrices = _matrices(network)
        return Muon(
            matrices,
            parameter_groups(network, recipe, [p for p in trained if p not in matrices], factors),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=fused,
            rate_factors=factors,
        )
    groups = parameter_groups(network, recipe, trained, factors)
    if recipe.opt == "lamb":
        return Lamb(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    if recipe.opt == "rmsprop":
        return RMSProp(groups, lr=recipe.lr, momentum=recipe.momentum)
    if recipe.opt == "adamw":
        return AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


def _matrices(network: nn.Module) -> dict[Tensor, int]:
    """Weights of convolutions and linear layers but for classifiers, each with its number of groups."""
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, LAYERS) and layer.weight.requires_grad
    }
    left_out = classifiers(network)
    return {
        layer.weight: 1 if isinstance(layer, nn.Linear) else layer.groups
        for name, layer in layers.items()
        if name not in left_out
    }


class RMSProp(Optimizer):
    """RMSProp as TensorFlow has it and EfficientNet was trained with: not torch's, which trains those networks worse.

    Epsilon stands inside the square root, the mean of squares begins at 1, the rate is part of what the momentum
    gathers, and the weight decay is part of the gradient. Source: Tan and Le 2019, section 5.2 (decay 0.9, momentum
    0.9); epsilon 1e-3 from its code.

    Args:
        groups: parameter groups, each with its "weight_decay".
        lr: learning rate.
        momentum: of the scaled gradient; 0 for none.
        decay: of the mean of squares.
        epsilon: added to it.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        decay: float = 0.9,
        epsilon: float = 1e-3,
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._momentum, self._decay, self._epsilon = momentum, decay, epsilon

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
                memory["square_avg"] = torch.ones_like(parameter)
                memory["momentum_buffer"] = torch.zeros_like(parameter)
        squares: list[Tensor] = [self.state[p]["square_avg"] for p in parameters]
        moving: list[Tensor] = [self.state[p]["momentum_buffer"] for p in parameters]
        if weight_decay:
            gradients = _aten._foreach_add(gradients, parameters, alpha=weight_decay)
        _aten._foreach_lerp_(squares, _aten._foreach_mul(gradients, gradients), 1.0 - self._decay)
        roots = _aten._foreach_add(squares, self._epsilon)
        _aten._foreach_sqrt_(roots)
        _aten._foreach_mul_(moving, self._momentum)
        _aten._foreach_addcdiv_(moving, gradients, roots, value=rate)
        _aten._foreach_sub_(parameters, moving)
