"""Sums over the updates since the last row of `metrics.jsonl`: the one part of the records that is state, because a
resumed run's rows must be those of one that never stopped."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self


@dataclass
class Tally:
    """Numbers to take means of.

    Attributes:
        loss_sum, loss_steps: of the training loss.
        right, seen: pictures answered rightly, of how many; of a mixed picture the share of the label it was given.
        grad_norm_sum, grad_norms: norms of the whole gradient, of the updates at which it was taken.
        side: of the newest update's pictures, pixels; 0 before the first.
    """

    loss_sum: float = 0.0
    loss_steps: float = 0.0
    right: float = 0.0
    seen: float = 0.0
    grad_norm_sum: float = 0.0
    grad_norms: float = 0.0
    side: float = 0.0

    def numbers(self) -> dict[str, float]:
        """As a checkpoint holds them."""
        return asdict(self)

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> Self:
        """From a checkpoint's numbers, others may be among them; older checkpoints lack some, which are 0 then."""
        return cls(**{field.name: numbers.get(field.name, 0.0) for field in fields(cls)})

    def row(self) -> dict[str, float | None]:
        """Side and means; None of nothing, and of what is not finite, which on a GPU shows a few updates late."""
        return {
            "side": int(self.side) or None,
            "loss": mean(self.loss_sum, self.loss_steps),
            "top1": mean(self.right, self.seen),
            "grad_norm": mean(self.grad_norm_sum, self.grad_norms),
        }


def mean(total: float, count: float) -> float | None:
    """The mean of `count` numbers, None where there is none or it is not finite."""
    return total / count if count and math.isfinite(total) else None
