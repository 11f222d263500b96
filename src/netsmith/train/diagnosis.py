"""Why training broke down: which numbers are not finite, in which layer they began, how large gradients were before.

Asked only once training has stopped, so it may cost another update's time.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from netsmith.train.feed import Batch
from netsmith.train.gradients import norms_by_layer
from netsmith.train.precision import Precision
from netsmith.train.state import State

MOST_LAYERS = 5  # named in a message


@runtime_checkable
class Stepwise(Protocol):
    """A network that computes with its layers' parameters and does not call them."""

    def outputs(self, x: Tensor, /) -> Iterator[tuple[str, Tensor]]:
        """Name and output of each operation in turn."""
        ...


def explain_loss(
    objective: nn.Module, state: State, batch: Batch, *, precision: Precision, lost: str | None = None
) -> str:
    """What is known about a loss that is not finite, as the middle of a sentence.

    Args:
        objective: run once more, in training mode, forward and backward; its gradients are cleared.
        state: as the last update left it.
        batch: that gave the loss, on the objective's device.
        precision: of the activations.
        lost: the first of the state's tensors that is not finite, where there is one.
    """
    if lost is not None:
        where = f"{lost} is the first that is not finite"
    else:
        layer = first_non_finite_layer(objective, batch, precision=precision)
        where = f"the output of {layer} is the first that is not finite" if layer else "its logits are finite"
    return f"{where}; {gradients_in_words(gradient_norms(objective, state, batch, precision=precision))}"


def gradient_norms(objective: nn.Module, state: State, batch: Batch, *, precision: Precision) -> dict[str, float]:
    """Norm of the gradient of every layer with weights, from the first to the last: of this batch.

    Where not one of them is finite, as behind an infinite loss: of what the optimizer remembers of those before.

    Args:
        objective, state, batch, precision: as `explain_loss`.
    """
    objective.zero_grad(set_to_none=True)
    with precision.autocast(batch.images.device):
        loss: Tensor = objective.forward(precision.lay_out(batch.images), batch.targets).loss  # not compiled
    (loss / state.division.summed).backward()
    state.division.take_gradients()
    gradients = {name: each.grad for name, each in state.parameters.items() if each.grad is not None}
    norms = norms_by_layer(gradients, over_all=state.division.over_all)
    state.optimizer.zero_grad(set_to_none=True)
    if any(math.isfinite(norm) for norm in norms.values()):
        return norms
    memory = state.optimizer.state
    remembered = {
        name: memory[each].get("momentum_buffer", memory[each].get("exp_avg"))
        for name, each in state.parameters.items()
        if each in memory
    }
    found = {name: tensor for name, tensor in remembered.items() if tensor is not None}
    return norms_by_layer(found, over_all=state.division.over_all) or norms


def gradients_in_words(norms: Mapping[str, float]) -> str:
    """The largest gradients by layer, and how many are not finite."""
    finite = {layer: norm for layer, norm in norms.items() if math.isfinite(norm)}
    if not finite:
        return f"the gradients of all {len(norms)} layers are not finite"
    largest = sorted(finite, key=lambda layer: -finite[layer])[:MOST_LAYERS]
    shown = ", ".join(f"{layer} {finite[layer]:.3g}" for layer in largest)
    lost = len(norms) - len(finite)
    others = f", not finite in {lost} of {len(norms)} layers" if lost else ""
    return f"largest gradient norms {shown}{others}"


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


@torch.no_grad()
def first_non_finite_layer(objective: nn.Module, batch: Batch, *, precision: Precision) -> str | None:
    """Name of the first layer whose output is not finite for these pictures, in the order of the forward call, or None.

    Args:
        objective: run once more, in training mode.
        batch: that gave a loss that is not finite.
        precision: of the activations.
    """
    found: list[str] = []

    def watch(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
            if found:
                return
            outputs: Iterable[tuple[str, object]] = [(name, output)]
            if isinstance(module, Stepwise):
                outputs = ((f"{name}.{of}", each) for of, each in module.outputs(*inputs))
            lost = (of for of, each in outputs if isinstance(each, Tensor) and not bool(torch.isfinite(each).all()))
            found.extend(islice(lost, 1))

        return layer.register_forward_hook(look)

    def tells(layer: nn.Module) -> bool:
        return isinstance(layer, Stepwise) or not any(layer.children())

    leaves = [(name, layer) for name, layer in objective.named_modules() if tells(layer)]
    handles = [watch(name, layer) for name, layer in leaves]
    try:
        with precision.autocast(batch.images.device):
            objective.forward(precision.lay_out(batch.images), batch.targets)  # compiled, it would not know the hooks
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
