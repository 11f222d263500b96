"""How large gradients are: of the whole network every few updates, of every layer at a few marks of a training.

Layers are what vanishing and exploding gradients are about: how far what the loss says comes down. They are looked at
where it is known beforehand (a function of step and plan), so a run that is resumed or replayed records the same, and
all other updates pay nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from netsmith.run.gradients import GradientRow, Layer, in_words
from netsmith.train.devices import has_float64
from netsmith.train.metrics import Metrics
from netsmith.train.planning import Planner
from netsmith.train.records import Records
from netsmith.train.state import State

EVERY = 16  # updates from one norm of the whole gradient to the next
MARKS = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)  # of progress, beside the first update, at which layers are looked at
WARNED_AT = 0.1  # progress at which vanishing or exploding gradients are told


class Gradients:
    """Looks at the gradients of one training.

    Args:
        state: of the training.
        metrics: told the norm of the whole gradient.
        records: where the layers' norms go.
        planner: knows the progress.
        warn: told once, early, when gradients vanish or explode with depth.
    """

    def __init__(
        self, state: State, metrics: Metrics, records: Records, *, planner: Planner, warn: Callable[[str], None]
    ) -> None:
        self._state, self._metrics, self._records = state, metrics, records
        self._planner, self._warn = planner, warn
        self._over_all = state.division.over_all
        self._rows: list[GradientRow] = []

    def at(self, step: int) -> Callable[[], None] | None:
        """What to do with the gradients of a step's update, if anything."""
        before, after = self._planner.progress(step), self._planner.progress(step + 1)
        if step == 0 or any(before < mark <= after for mark in MARKS):
            return lambda: self._look_at_layers(step, before)
        return self._look if step % EVERY == 0 else None

    def _look(self) -> None:
        gradients = [each.grad for each in self._state.parameters.values() if each.grad is not None]
        self._metrics.add_norm(self._over_all(torch.nn.utils.get_total_norm(gradients)))

    def _look_at_layers(self, step: int, progress: float) -> None:
        self._look()
        # Norms, scales and biases follow another scale than the kernels and matrices that they stand beside.
        layers = {
            name.rpartition(".")[0] or name: each
            for name, each in self._state.parameters.items()
            if each.grad is not None and each.ndim > 1
        }
        gradients = norms([each.grad for each in layers.values() if each.grad is not None], over_all=self._over_all)
        weights = norms([each.detach() for each in layers.values()], over_all=self._over_all)
        if not layers or not all(map(math.isfinite, [*gradients, *weights])):
            return
        found = zip(layers, gradients, weights, strict=True)
        row = GradientRow(
            step=step,
            progress=progress,
            layers=tuple(Layer(name=name, gradient=gradient, weight=weight) for name, gradient, weight in found),
        )
        self._records.note_gradients(step, row.model_dump())
        self._rows.append(row)
        after = self._planner.progress(step + 1)
        if progress < WARNED_AT <= after and (words := in_words(self._rows)):
            self._warn(words)


def norms(tensors: Sequence[Tensor], *, over_all: Callable[[Tensor], Tensor]) -> list[float]:
    """The norm of each tensor, all on one device, read at once; of squares that float32 would not hold too.

    Args:
        tensors: wholes, or what this process holds of them.
        over_all: gives the norms of wholes, see `Whole.over_all`.
    """
    if not tensors:
        return []
    exact = torch.float64 if has_float64(tensors[0].device) else torch.float32
    return over_all(torch.stack([torch.linalg.vector_norm(each, dtype=exact) for each in tensors])).tolist()


def norms_by_layer(tensors: Mapping[str, Tensor], *, over_all: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Norms of what a layer has in all, by layer; tensors by parameter name, `over_all` as of `norms`."""
    squares: dict[str, float] = {}
    for name, norm in zip(tensors, norms(list(tensors.values()), over_all=over_all), strict=True):
        layer = name.rpartition(".")[0] or name
        squares[layer] = squares.get(layer, 0.0) + norm * norm
    return {layer: math.sqrt(square) for layer, square in squares.items()}
