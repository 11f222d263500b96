"""Optimizers by the recipe's name, with every parameter in the group where it belongs (`groups`).

- The rate is set anew for every update, in every group, times the group's factor.
- SGD and AdamW are torch's, fused where torch can.
- All that an optimizer remembers stands in its `state` by parameter, as tensors: that is what checkpoints hold.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from netsmith.run.recipe import Recipe
from netsmith.train.devices import has_fused_optimizers
from netsmith.train.division import WHOLE, Whole
from netsmith.train.groups import LAYERS, classifiers, parameter_groups, rate_factors
from netsmith.train.lamb import Lamb
from netsmith.train.listwise import Listwise, aten
from netsmith.train.muon import Muon


def build_optimizer(
    network: nn.Module,
    recipe: Recipe,
    *,
    beside: Sequence[Parameter] = (),
    fused: bool = True,
    division: Whole = WHOLE,
) -> Optimizer:
    """The optimizer of a recipe over the network's parameters.

    Args:
        network: on its device already.
        recipe: its `opt`, `momentum`, `nesterov`, `weight_decay`, `weight_decay_on` and `layer_decay` are used; the
            rate is set by every update.
        beside: what is trained with the network, at the whole rate.
        fused: whether torch's fused kernels may be used.
        division: says what it moves of each of them.

    Raises:
        InputError: the recipe needs a layout that the network does not have.
    """
    trained = [*(parameter for parameter in network.parameters() if parameter.requires_grad), *beside]
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
    for group in groups:
        group["params"] = [division.held(parameter) for parameter in group["params"]]
    if recipe.opt == "lamb":
        return Lamb(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), over_all=division.over_all)
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


class RMSProp(Listwise):
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
        super().__init__(groups, lr=lr)
        self._momentum, self._decay, self._epsilon = momentum, decay, epsilon

    def update(self, parameters: list[Parameter], gradients: list[Tensor], *, rate: float, weight_decay: float) -> None:
        """RMSProp's, with what each parameter remembers: "square_avg", "momentum_buffer"."""
        for parameter in parameters:
            memory = self.state[parameter]
            if not memory:
                memory["square_avg"] = torch.ones_like(parameter)
                memory["momentum_buffer"] = torch.zeros_like(parameter)
        squares: list[Tensor] = [self.state[p]["square_avg"] for p in parameters]
        moving: list[Tensor] = [self.state[p]["momentum_buffer"] for p in parameters]
        if weight_decay:
            gradients = aten._foreach_add(gradients, parameters, alpha=weight_decay)
        aten._foreach_lerp_(squares, aten._foreach_mul(gradients, gradients), 1.0 - self._decay)
        roots = aten._foreach_add(squares, self._epsilon)
        aten._foreach_sqrt_(roots)
        aten._foreach_mul_(moving, self._momentum)
        aten._foreach_addcdiv_(moving, gradients, roots, value=rate)
        aten._foreach_sub_(parameters, moving)
