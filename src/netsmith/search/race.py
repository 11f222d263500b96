"""The race's decisions as pure functions of what was recorded, so that a replay must come to the same ones.

Candidates answer the same validation pictures, so they are compared picture by picture: by McNemar's exact test of
right answers, of tags by the paired bootstrap of mAP. One is eliminated only when it is worse than the leader beyond
that noise, never for a difference that could be chance.
Among those that cannot be told from the best the one that promised most leads: the one-standard-error rule of Breiman
et al. (1984, Classification and Regression Trees, section 3.4.3) with promise in the place of simplicity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netsmith.run.metrics import mcnemar
from netsmith.run.tagging import difference_p_value, paired_error

JUDGED_EPOCHS = 2.0
"""Passes over the training pictures before which no candidate is eliminated: its answers are those of its start."""


@dataclass(frozen=True)
class RightAnswers:
    """Of a classifier.

    Attributes:
        correct: bool [N], whether each validation picture was answered right.
    """

    correct: NDArray[np.bool_]

    @property
    def score(self) -> float:
        """Top-1: the share of right answers."""
        return float(self.correct.mean())

    def p_value(self, other: "Answers") -> float:
        """That both are equally good, by McNemar's exact test."""
        assert isinstance(other, RightAnswers), "answers of one kind"
        return mcnemar(self.correct, other.correct)

    def within_one_error(self, other: "Answers") -> bool:
        """Whether the difference in right answers is at most its standard error: sqrt(b + c) for b and c unlike
        pairs."""
        assert isinstance(other, RightAnswers), "answers of one kind"
        b, c = int((self.correct & ~other.correct).sum()), int((other.correct & ~self.correct).sum())
        return (b - c) ** 2 <= b + c


@dataclass(frozen=True)
class AveragePrecision:
    """Of a model that tags.

    Attributes:
        replicates: float64 [1 + B], mAP on the validation pictures and on resamples of them, the same for every
            candidate; see `run.tagging.map_replicates`.
    """

    replicates: NDArray[np.float64]

    @property
    def score(self) -> float:
        """mAP."""
        return float(self.replicates[0])

    def p_value(self, other: "Answers") -> float:
        """That both are equally good, by the paired bootstrap."""
        assert isinstance(other, AveragePrecision), "answers of one kind"
        return difference_p_value(self.replicates, other.replicates)

    def within_one_error(self, other: "Answers") -> bool:
        """Whether the difference is at most its standard error over the same resamples."""
        assert isinstance(other, AveragePrecision), "answers of one kind"
        return abs(self.score - other.score) <= paired_error(self.replicates, other.replicates)


Answers = RightAnswers | AveragePrecision


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a candidate stands after a rung.

    Attributes:
        id: the candidate's.
        answers: what its answers on the validation pictures are worth.
        loss: mean loss on the same pictures; ranks candidates of equal scores.
        epochs: passes over the training pictures it has had.
        place: 0 for the candidate that promised most before the race, then 1, 2, ...
    """

    id: str
    answers: Answers
    loss: float
    epochs: float
    place: int

    @property
    def score(self) -> float:
        """Top-1 or mAP."""
        return self.answers.score


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
        standings: at least one, all on the same validation pictures and of one kind of answers.
        confidence: a candidate that had `JUDGED_EPOCHS` goes when the p-value against the leader is below
            1 - confidence.
    """
    ranked = ranking(standings)
    close = [standing for standing in ranked if ranked[0].answers.within_one_error(standing.answers)]
    leader = min(close, key=lambda standing: standing.place)
    ranked = [leader, *(standing for standing in ranked if standing is not leader)]
    p_values = {
        standing.id: leader.answers.p_value(standing.answers)
        for standing in ranked[1:]
        if standing.score < leader.score
    }
    judged = {standing.id for standing in ranked if standing.epochs >= JUDGED_EPOCHS}
    eliminated = {id_: p for id_, p in p_values.items() if p < 1 - confidence and id_ in judged}
    kept = tuple(standing.id for standing in ranked if standing.id not in eliminated)
    return Decision(leader=leader.id, kept=kept, eliminated=eliminated)


def ranking(standings: Sequence[Standing]) -> list[Standing]:
    """Best first: the higher score, then the lower loss, then the id."""
    return sorted(standings, key=lambda standing: (-standing.score, standing.loss, standing.id))


def rung_shares(rungs: int) -> list[float]:
    """Shares of the race's time per rung, which sum to 1: the first gets twice as much as each of the others.

    Nobody can be told from anybody after half an epoch, and all candidates share the first rung.
    """
    weights = [2.0 if rung == 0 else 1.0 for rung in range(rungs)]
    return [weight / sum(weights) for weight in weights]
