"""Rows of `metrics.jsonl`: what training came to between two evaluations, and what the network answers now."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from netsmith.train.devices import waits_for_numbers
from netsmith.train.evaluate import Evaluation
from netsmith.train.records import Records
from netsmith.train.state import State

KEPT = 20  # losses that stay on the device before they are added up: reading one waits for a GPU


class Metrics:
    """Gathers losses and writes rows.

    Args:
        state: holds the sum of the losses since the last row.
        records: where rows go.
    """

    def __init__(self, state: State, records: Records) -> None:
        self._state, self._records = state, records
        self._losses: list[Tensor] = []  # of the newest updates, not yet added to the state's sum
        self._newest: deque[float] = deque(maxlen=KEPT)

    @property
    def loss(self) -> float | None:
        """Mean of the newest losses that were read, None before the first."""
        return sum(self._newest) / len(self._newest) if self._newest else None

    def add(self, loss: Tensor) -> None:
        """Enter the loss of an update, a scalar on any device."""
        self._losses.append(loss)
        if len(self._losses) >= KEPT or not waits_for_numbers(loss.device):
            self.settle()

    def settle(self) -> None:
        """Bring the state's sum up to date."""
        losses: list[float] = torch.stack(self._losses).tolist() if self._losses else []
        for loss in losses:  # one by one: the sum must not depend on when it is formed
            self._newest.append(loss)
            self._state.loss_sum += loss
        self._state.loss_steps += len(self._losses)
        self._losses.clear()

    def forget(self) -> None:
        """Drop the losses that are not in the state's sum: the state is another now."""
        self._losses.clear()
        self._newest.clear()

    def write(self, evaluation: Evaluation, *, images_per_s: float | None, **standing: Any) -> None:
        """Append a row and begin a new sum.

        Args:
            evaluation: answers on the validation pictures.
            images_per_s: pace of the newest updates.
            standing: the row's "time", "step", "progress", "epoch", "lr" and "seconds".
        """
        self.settle()
        row = {
            **standing,
            "loss": self._state.loss_sum / self._state.loss_steps if self._state.loss_steps else None,
            "val": evaluation.points,
            "images_per_s": images_per_s,
        }
        self._state.loss_sum, self._state.loss_steps = 0.0, 0
        self._records.note(self._state.step, row)
