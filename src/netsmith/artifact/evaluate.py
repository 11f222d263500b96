"""Accuracy of an artifact on prepared pictures: the same session that predicts, the same pixels that `prepare`
gives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.runtimes import Session
from netsmith.run.metrics import Interval, cross_entropy, top_k_correct, wilson
from netsmith.run.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model does on N labelled pictures.

    Attributes:
        top1, top5: shares of pictures whose class has the largest logit, or one of the five largest (all are, with
            five classes or fewer).
        loss: mean cross-entropy of the logits, nats, before any temperature.
        logits: float32 [N,C], in the order of the pictures.
    """

    top1: Interval
    top5: Interval
    loss: float
    logits: NDArray[np.float32]


def evaluate(
    session: Session,
    pixels: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    batch_size: int = 64,
    progress: Progress = silent,
) -> Evaluation:
    """Classify N >= 1 pictures and score the answers.

    Args:
        session: an opened model.
        pixels: uint8 [N,R,R,3] as `prepare` gives them; may be memory-mapped.
        targets: int64 [N], 0 <= target < C.
        batch_size: pictures per call.
        progress: is told the number of pictures that are done.
    """
    assert len(pixels) == len(targets) > 0
    logits = np.empty((len(pixels), session.classes), np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = np.ascontiguousarray(pixels[start : start + batch_size])
        logits[start : start + len(batch)] = session.run(batch).logits
        progress("evaluating", start + len(batch), len(pixels))
    return score(logits, targets)


def score(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Evaluation:
    """Score logits float32 [N,C] against targets int64 [N], N >= 1."""
    right = [int(top_k_correct(logits, targets, k=k).sum()) for k in (1, 5)]
    top1, top5 = (wilson(count, len(targets)) for count in right)
    return Evaluation(top1=top1, top5=top5, loss=cross_entropy(logits, targets), logits=logits)
