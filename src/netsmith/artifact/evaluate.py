"""Scores of an artifact on prepared pictures: the same session that predicts, the same pixels that `prepare` gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.runtimes import Session
from netsmith.data.items import Targets
from netsmith.run.metrics import Interval, top_k_correct, wilson
from netsmith.run.progress import Progress, silent
from netsmith.run.scores import Answers, are_tags, loss_interval
from netsmith.run.tagging import bootstrap_interval, f1_replicates, probabilities_of


@dataclass(frozen=True)
class Evaluation(Answers):
    """How well a model does on N labelled pictures.

    Attributes:
        thresholds: of tags, from which probability on a picture has each; None where pictures have one class.
    """

    thresholds: tuple[float, ...] | None = None

    @cached_property
    def scores(self) -> dict[str, Interval]:
        """By name and in order what the answers are worth: top1 and top5, or map, f1_macro and f1_micro; and the loss,
        nats, before any temperature."""
        loss = {"loss": loss_interval(self.logits, self.targets)}
        n = len(self.targets)
        if not are_tags(self.targets):
            classes = cast(NDArray[np.int64], self.targets)
            top5 = wilson(int(top_k_correct(self.logits, classes, k=5).sum()), n)
            return {"top1": self.headline, "top5": top5, **loss}
        assert self.thresholds is not None, "tags have thresholds"
        macro, micro = f1_replicates(given_tags(self.logits, self.thresholds), self.targets)
        f1 = {"f1_macro": bootstrap_interval(macro, n=n), "f1_micro": bootstrap_interval(micro, n=n)}
        return {"map": self.headline, **f1, **loss}


def given_tags(logits: NDArray[np.float32], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Which tags are answered, bool [N,C]: those whose probability is at least their threshold."""
    return probabilities_of(logits) >= np.array(thresholds)


def evaluate(
    session: Session,
    pixels: NDArray[np.uint8],
    targets: Targets,
    *,
    thresholds: tuple[float, ...] | None = None,
    batch_size: int = 64,
    progress: Progress = silent,
) -> Evaluation:
    """Answer N >= 1 pictures.

    Args:
        session: an opened model.
        pixels: uint8 [N,R,R,3] as `prepare` gives them; may be memory-mapped.
        targets: int64 [N], 0 <= target < C, or bool [N,C].
        thresholds: of tags.
        batch_size: pictures per call.
        progress: is told the number of pictures that are done.
    """
    assert len(pixels) == len(targets) > 0
    logits = np.empty((len(pixels), session.classes), np.float32)
    for start in range(0, len(pixels), batch_size):
        batch = np.ascontiguousarray(pixels[start : start + batch_size])
        logits[start : start + len(batch)] = session.run(batch).logits
        progress("evaluating", start + len(batch), len(pixels))
    return Evaluation(logits, targets, thresholds)
