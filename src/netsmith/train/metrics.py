"""What updates give, brought from the device a few at a time: losses, right answers, norms of gradients.

They stay where they were computed until twenty updates' worth is read at once: every read waits for a GPU. On a CPU a
read costs nothing, and what is shown is the newest.
"""

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from netsmith.data.items import UNLABELLED
from netsmith.train.batch import Batch
from netsmith.train.devices import waits_for_numbers
from netsmith.train.objectives import Outcome
from netsmith.train.state import State
from netsmith.train.tally import Tally, mean

KEPT = 20  # updates whose numbers stay on the device before they are added up


class Metrics:
    """Gathers what updates give.

    Args:
        state: its tally is brought up to date.
        tags: pictures have any number of labels, so none of them is the answer.
    """

    def __init__(self, state: State, *, tags: bool = False) -> None:
        self._state, self._tags = state, tags
        self._pending: list[Tensor] = []  # [loss, right, seen] of the newest updates, not yet in the tally
        self._norms: list[Tensor] = []  # of gradients, not yet in the tally
        self._newest: deque[tuple[float, float, float]] = deque(maxlen=KEPT)

    @property
    def loss(self) -> float | None:
        """Mean of the newest losses that were read, None before the first."""
        return mean(sum(loss for loss, _, _ in self._newest), len(self._newest))

    @property
    def top1(self) -> float | None:
        """Share of the pictures of the newest updates that were answered rightly, None before the first."""
        return mean(sum(right for _, right, _ in self._newest), sum(seen for _, _, seen in self._newest))

    def add(self, outcome: Outcome, batch: Batch) -> None:
        """Enter an update: its outcome on its batch."""
        self._state.tally.side = float(batch.images.shape[-1])
        loss = outcome.loss.detach()
        none = torch.zeros_like(loss)
        right, seen = (none, none) if self._tags else (_right(outcome, batch), _labelled(batch))
        self._pending.append(torch.stack([each.to(loss.dtype) for each in (loss, right, seen)]))
        if len(self._pending) >= KEPT or not waits_for_numbers(loss.device):
            self.settle()

    def add_norm(self, norm: Tensor) -> None:
        """Enter the norm of a gradient, a scalar on any device."""
        self._norms.append(norm)

    def settle(self) -> None:
        """Bring the state's tally up to date."""
        tally = self._state.tally
        if self._pending:
            rows: list[list[float]] = torch.stack(self._pending).tolist()
            for loss, right, seen in rows:  # one by one: the sums must not depend on when they are formed
                self._newest.append((loss, right, seen))
                if math.isfinite(loss):  # else the update was left out, or the run ends soon
                    tally.loss_sum += loss
                    tally.loss_steps += 1
                tally.right += right
                tally.seen += seen
        if self._norms:
            # Gradients that overflow float16 are no numbers and their updates are left out.
            for norm in filter(math.isfinite, torch.stack(self._norms).tolist()):
                tally.grad_norm_sum += norm
                tally.grad_norms += 1
        self._pending.clear()
        self._norms.clear()

    def forget(self) -> None:
        """Drop what is not in the tally: the state is another now."""
        self._pending.clear()
        self._norms.clear()
        self._newest.clear()

    def row(self) -> dict[str, Any]:
        """The side, and the means since the last row; the next begins."""
        self.settle()
        row = self._state.tally.row()
        self._state.tally = Tally(side=self._state.tally.side)
        return row


def _right(outcome: Outcome, batch: Batch) -> Tensor:
    """Pictures of a batch answered rightly; of a mixed one the share of the label that was answered."""
    answers = outcome.logits.argmax(dim=1)
    if batch.targets.is_floating_point():
        return batch.targets.gather(1, answers[:, None]).sum()
    return (answers == batch.targets).sum()


def _labelled(batch: Batch) -> Tensor:
    """Pictures of a batch that have a label, halves of mixed ones by their shares."""
    if batch.targets.is_floating_point():
        return batch.targets.sum().round()
    return (batch.targets != UNLABELLED).sum()
