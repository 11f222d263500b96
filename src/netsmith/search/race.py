"""The race's decisions as pure functions of what was recorded, so that a replay must come to the same ones.

Candidates answer the same validation pictures, so they are compared picture by picture (McNemar's exact test): one is
eliminated only when it is worse than the leader beyond that test's noise, never for a difference that could be chance.
Among those that cannot be told from the best the one that promised most leads: the one-standard-error rule of Breiman
et al. (1984, Classification and Regression Trees, section 3.4.3) with promise in the place of simplicity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netsmith.run.metrics import mcnemar

JUDGED_EPOCHS = 2.0
"""Passes over the training pictures before which no candidate is eliminated: its answers are those of its start."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a candidate stands after a rung.

    Attributes:
        id: the candidate's.
        correct: bool [N], whether each validation picture was answered right.
        loss: mean cross entropy on the same pictures; ranks candidates that are equally often right.
        epochs: passes over the training pictures it has had.
        place: 0 for the candidate that promised most before the race, then 1, 2, ...
    """

    id: str
    correct: NDArray[np.bool_]
    loss: float
    epochs: float
    place: int

    @property
    def top1(self) -> float:
        """Share of validation pictures answered right."""
        return float(self.correct.mean())


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a rung decides.

    Attributes:
        leader: id of the candidate in front.
        kept: ids that go on, best first, the leader among them.
        eliminated: id -> p-value of the comparison with the leader.
    """

    leader: str
    kept: tuple[str, ...]
    eliminated: dict[str, float]


def decide(standings: Sequence[Standing], *, confidence: float = 0.95) -> Decision:
    """Who goes on after a rung.

    Args:
        standings: at least one, all on the same validation pictures.
        confidence: a candidate that had `JUDGED_EPOCHS` goes when McNemar's p-value against the leader is below
            1 - confidence.
    """
    ranked = ranking(standings)
    close = [standing for standing in ranked if _within_one_error(ranked[0], standing)]
    leader = min(close, key=lambda standing: standing.place)
    ranked = [leader, *(standing for standing in ranked if standing is not leader)]
    p_values = {
        standing.id: mcnemar(leader.correct, standing.correct) for standing in ranked[1:] if standing.top1 < leader.top1
    }
    judged = {standing.id for standing in ranked if standing.epochs >= JUDGED_EPOCHS}
    eliminated = {id_: p for id_, p in p_values.items() if p < 1 - confidence and id_ in judged}
    kept = tuple(standing.id for standing in ranked if standing.id not in eliminated)
    return Decision(leader=leader.id, kept=kept, eliminated=eliminated)


def _within_one_error(best: Standing, other: Standing) -> bool:
    """Whether the difference in right answers is at most its standard error: sqrt(b + c) for b and c unlike pairs."""
    b, c = int((best.correct & ~other.correct).sum()), int((other.correct & ~best.correct).sum())
    return (b - c) ** 2 <= b + c


def ranking(standings: Sequence[Standing]) -> list[Standing]:
    """Best first: more right answers, then lower loss, then the id."""
    return sorted(standings, key=lambda standing: (-int(standing.correct.sum()), standing.loss, standing.id))


def rung_shares(rungs: int) -> list[float]:
    """Shares of the race's time per rung, which sum to 1: the first gets twice as much as each of the others.

    Nobody can be told from anybody after half an epoch, and all candidates share the first rung.
    """
    weights = [2.0 if rung == 0 else 1.0 for rung in range(rungs)]
    return [weight / sum(weights) for weight in weights]
