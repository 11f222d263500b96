"""All state of a training run in one object, and that object is what a checkpoint holds.

There is nothing else to save: batches, augmentation and dropout are functions of the step, and the rest is in the
recipe and the plan.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from netsmith.run.recipe import Recipe
from netsmith.train.precision import Precision
from netsmith.train.step import build_optimizer


class State:
    """Network, averaged network, optimizer, step.

    Args:
        network: on its device; its parameters' memory layout is changed in place as `precision` says.
        recipe: optimizer and averaging.
        precision: how the network computes.

    Attributes:
        network: what is trained.
        averaged: exponential moving average of its weights and statistics, or None.
        optimizer: over the network's parameters.
        step: updates made.
        loss_sum, loss_steps: of the training loss since the last row of metrics.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, precision: Precision) -> None:
        precision.apply(network)
        self.network = network
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False) if recipe.ema is not None else None
        self.decay = recipe.ema
        self.optimizer = build_optimizer(network, recipe)
        self.step = 0
        self.loss_sum = 0.0
        self.loss_steps = 0

    @property
    def final(self) -> nn.Module:
        """The network to evaluate and to ship: the averaged one where there is one."""
        return self.network if self.averaged is None else self.averaged

    @torch.no_grad()
    def average(self) -> None:
        """Move the average towards the weights after an update.

        The decay rises as (1 + step) / (10 + step) to the recipe's, so that a short run does not remember its first
        weights.
        """
        if self.averaged is None or self.decay is None:
            return
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        moving: list[Tensor] = []
        current: list[Tensor] = []
        for ours, theirs in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if ours.is_floating_point():
                moving.append(ours)
                current.append(theirs)
            else:
                ours.copy_(theirs)
        get_ema_multi_avg_fn(decay)(moving, current, None)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by name: "network.KEY", "averaged.KEY", "optimizer.PARAMETER.KEY"."""
        named = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        if self.averaged is not None:
            named |= {f"averaged.{key}": value for key, value in self.averaged.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            moments: Mapping[str, Tensor] = self.optimizer.state.get(parameter, {})
            named |= {f"optimizer.{name}.{key}": moments[key] for key in sorted(moments)}
        return named

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Become the state that `tensors` describes; names and shapes are known to agree.

        Args:
            tensors: as `tensors()` gave them.
            step: updates made.
        """
        for key, value in self.network.state_dict().items():
            value.copy_(tensors[f"network.{key}"])
        if self.averaged is not None:
            for key, value in self.averaged.state_dict().items():
                value.copy_(tensors[f"averaged.{key}"])
        self.optimizer.state.clear()
        for name, parameter in self.network.named_parameters():
            prefix = f"optimizer.{name}."
            moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if moments:
                self.optimizer.state[parameter] = {key: _like(value, parameter) for key, value in moments.items()}
        self.step = step


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    # Moments lie in memory as their parameter does: fused kernels walk both side by side.
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.to(parameter.device)


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


@torch.no_grad()
def first_non_finite_layer(objective: nn.Module, images: Tensor, targets: Tensor) -> str | None:
    """Name of the first layer whose output is not finite for these pictures, in the order of the forward call, or None.

    Args:
        objective: run once more, in training mode.
        images, targets: the batch that gave a loss that is not finite.
    """
    found: list[str] = []

    def watch(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return layer.register_forward_hook(look)

    leaves = [(name, layer) for name, layer in objective.named_modules() if not any(layer.children())]
    handles = [watch(name, layer) for name, layer in leaves]
    try:
        objective(images, targets)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
