"""What a model's recorded answers say: right and wrong by class, which classes are taken for which, and the mistakes
it was surest of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netsmith.run.metrics import Interval, top_k_correct, wilson

_CHUNK = 4096  # pictures at once, which bounds the memory that many classes take


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: position of the picture in the split, its class, the class it was taken for, and the
    probability the model gave to that."""

    index: int
    target: int
    answer: int
    confidence: float


@dataclass(frozen=True)
class Confusion:
    """`count` of the `total` pictures of one class were taken for another."""

    target: int
    answer: int
    count: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Answers on N pictures of C classes.

    Attributes:
        top1, top5: shares of right answers.
        per_class: share of right answers among the pictures of each class, None for a class without pictures, [C].
        taken_for: for each class the class it is most often mistaken for, None where it never is, [C].
        confusions: pairs of classes, the most frequent first.
        mistakes: the surest first.
        targets, answers: int64 [N].
    """

    top1: Interval
    top5: Interval
    per_class: list[Interval | None]
    taken_for: list[int | None]
    confusions: list[Confusion]
    mistakes: list[Mistake]
    targets: NDArray[np.int64]
    answers: NDArray[np.int64]

    @property
    def headline(self) -> Interval:
        """Top-1."""
        return self.top1

    def matrix(self) -> NDArray[np.int64]:
        """Pictures by (class, answer), int64 [C,C]."""
        classes = len(self.per_class)
        flat = np.bincount(self.targets * classes + self.answers, minlength=classes * classes)
        return flat.reshape(classes, classes)


def score(
    logits: NDArray[np.float32], targets: NDArray[np.int64], *, temperature: float = 1.0, mistakes: int = 20
) -> Scores:
    """Score recorded answers.

    Args:
        logits: float32 [N,C], N >= 1, finite.
        targets: int64 [N], 0 <= target < C.
        temperature: the logits are divided by it before the softmax that gives the confidence.
        mistakes: how many to keep at most.
    """
    classes = logits.shape[1]
    answers, confidence = _answers(logits, temperature=temperature)
    right = np.concatenate([top_k_correct(*part, k=1) for part in _chunks(logits, targets)])
    right5 = np.concatenate([top_k_correct(*part, k=5) for part in _chunks(logits, targets)])
    totals = np.bincount(targets, minlength=classes)
    hits = np.bincount(targets[right], minlength=classes)
    wrong = np.flatnonzero(~right)
    pairs, counts = np.unique(targets[wrong] * classes + answers[wrong], return_counts=True)
    order = np.lexsort((pairs, -counts))
    confusions = [
        Confusion(int(pair // classes), int(pair % classes), int(number), int(totals[pair // classes]))
        for pair, number in zip(pairs[order], counts[order], strict=True)
    ]
    taken_for: list[int | None] = [None] * classes
    for confusion in reversed(confusions):
        taken_for[confusion.target] = confusion.answer
    surest = wrong[np.lexsort((wrong, -confidence[wrong]))][:mistakes]
    return Scores(
        top1=wilson(int(right.sum()), len(targets)),
        top5=wilson(int(right5.sum()), len(targets)),
        per_class=[wilson(int(hit), int(total)) if total else None for hit, total in zip(hits, totals, strict=True)],
        taken_for=taken_for,
        confusions=confusions,
        mistakes=[Mistake(int(i), int(targets[i]), int(answers[i]), float(confidence[i])) for i in surest],
        targets=targets,
        answers=answers,
    )


def _chunks(
    logits: NDArray[np.float32], targets: NDArray[np.int64]
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    return [(logits[i : i + _CHUNK], targets[i : i + _CHUNK]) for i in range(0, len(targets), _CHUNK)]


def _answers(logits: NDArray[np.float32], *, temperature: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The class of each picture (the lower one of ties) and its probability."""
    answers = np.empty(len(logits), np.int64)
    confidence = np.empty(len(logits), np.float64)
    for start in range(0, len(logits), _CHUNK):
        part = logits[start : start + _CHUNK].astype(np.float64)
        answers[start : start + len(part)] = part.argmax(axis=1)
        with np.errstate(over="ignore"):  # a temperature near 0 makes of every other class an honest minus infinity
            below_best = (part - part.max(axis=1, keepdims=True)) / temperature
        confidence[start : start + len(part)] = 1 / np.exp(below_best).sum(axis=1)
    return answers, confidence
