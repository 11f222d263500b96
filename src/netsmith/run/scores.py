"""What a model is judged by: right answers where a picture has one class, average precision where it has tags.

One word for both kinds of task, so that training, evaluation, results and report need not ask which it is: the
*headline* is top-1 accuracy or mAP, with its interval. The shape of the targets says the task: int64 [N], the class of
each picture, or bool [N,C], whether it has each tag.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, TypeGuard, cast

from netsmith.run.metrics import Interval, cross_entropy, cross_entropy_interval, top_k_correct, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Targets = NDArray[np.int64] | NDArray[np.bool_]
    Logits = NDArray[np.float32]

Task = Literal["classify", "tag"]
"""One class per picture, or any number of tags."""
Metric = Literal["top1", "map"]
"""Key of the headline in records."""
METRICS: dict[Task, Metric] = {"classify": "top1", "tag": "map"}
METRIC_NAMES: dict[Metric, str] = {"top1": "top-1", "map": "mAP"}
SCORE_NAMES = {**METRIC_NAMES, "top5": "top-5", "f1_macro": "F1 macro", "f1_micro": "F1 micro", "loss": "loss"}
"""As people read them."""
POINTS = 100.0
"""Of a share: the unit of --max-drop."""


def are_tags(targets: "Targets") -> "TypeGuard[NDArray[np.bool_]]":
    """Whether the targets are of tags, by their shape."""
    return targets.ndim == 2


def headline(logits: "Logits", targets: "Targets") -> Interval:
    """Top-1 accuracy or mAP with its 95 % interval.

    Args:
        logits: float32 [N,C], N >= 1.
        targets: int64 [N], or bool [N,C].
    """
    if are_tags(targets):
        from netsmith.run.tagging import mean_average_precision_interval

        return mean_average_precision_interval(logits, targets)
    return wilson(_right(logits, targets, k=1), len(targets))


@dataclass(frozen=True)
class Answers:
    """What a model answered on N labelled pictures.

    Attributes:
        logits: float32 [N,C], in the order of the pictures.
        targets: int64 [N], or bool [N,C] of tags.
    """

    logits: "Logits"
    targets: "Targets"

    @cached_property
    def headline(self) -> Interval:
        """Top-1 accuracy, or mAP of tags, with its interval."""
        return headline(self.logits, self.targets)

    @property
    def top1(self) -> Interval:
        """Share of pictures whose class has the largest logit."""
        assert not are_tags(self.targets), "tags have mAP"
        return self.headline


def change(before: Answers, after: Answers, *, confidence: float = 0.95) -> Interval:
    """By how much the headline of a model differs from another's on the same pictures, below 0 where it is worse.

    The interval is that of paired answers, much narrower than those of the two headlines: of classes that of Bonett and
    Price (2012), from the pictures that only one of the two has right, to either side of which one more is added, so
    that a few that differ are no proof; of tags normal, from the same resamples of both.

    Args:
        before, after: answers on the same pictures in the same order.
        confidence: two-sided coverage, 0 < confidence < 1.
    """
    value, n = after.headline.value - before.headline.value, len(before.targets)
    score = NormalDist().inv_cdf(0.5 + confidence / 2)
    if are_tags(before.targets):
        half = score * _resampled(before, after)
        return Interval(value=value, low=value - half, high=value + half, n=n)
    won, lost = (each + 1 for each in _won_and_lost(before, after))
    middle = (won - lost) / (n + 2)
    half = score * math.sqrt(((won + lost) / (n + 2) - middle**2) / (n + 2))
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Interval(value=value, low=min(value, low), high=max(value, high), n=n)


def within_one_error(before: Answers, after: Answers) -> bool:
    """Whether a model answers at most one standard error worse than another: that of the paired difference, were there
    none; as `change`."""
    value, n = after.headline.value - before.headline.value, len(before.targets)
    if are_tags(before.targets):
        error = math.sqrt(_resampled(before, after) ** 2 + value**2 / n)
    else:
        error = math.sqrt(sum(_won_and_lost(before, after))) / n
    # The smallest share of pictures is far above the rounding of two shares.
    return -value - error <= 1e-9


def _won_and_lost(before: Answers, after: Answers) -> tuple[int, int]:
    """How many pictures `after` alone has right, and how many `before` alone."""
    assert before.targets.shape == after.targets.shape, "both answer the same pictures"
    classes = cast("NDArray[np.int64]", before.targets)
    first, second = (top_k_correct(each.logits, classes, k=1) for each in (before, after))
    return int((second & ~first).sum()), int((first & ~second).sum())


def _resampled(before: Answers, after: Answers) -> float:
    """Standard error of the difference of two mAPs."""
    from netsmith.run.tagging import map_replicates, paired_error

    tags = before.targets
    assert tags.shape == after.targets.shape, "both answer the same pictures"
    assert are_tags(tags), "classes are counted"
    return paired_error(*(map_replicates(each.logits, tags) for each in (before, after)))


def told_apart(found: Interval) -> Literal["better", "no different", "worse"]:
    """What a `change` says: better or worse only where its whole interval is above or below 0."""
    return "better" if found.low > 0 else "worse" if found.high < 0 else "no different"


def points(logits: "Logits", targets: "Targets") -> dict[str, float]:
    """What a row of `metrics.jsonl` says, without intervals: top1, top5 and loss, or map and loss; as `headline`."""
    if are_tags(targets):
        from netsmith.run.tagging import binary_cross_entropy, mean_average_precision

        return {"map": mean_average_precision(logits, targets), "loss": binary_cross_entropy(logits, targets)}
    right = {f"top{k}": _right(logits, targets, k=k) / len(targets) for k in (1, 5)}
    return {**right, "loss": cross_entropy(logits, cast("NDArray[np.int64]", targets))}


def thresholds_for(logits: "Logits", targets: "Targets") -> tuple[float, ...] | None:
    """For each tag the threshold of the largest F1 on these pictures; None where pictures have one class; as
    `headline`."""
    if not are_tags(targets):
        return None
    from netsmith.run.tagging import best_thresholds, probabilities_of

    return tuple(best_thresholds(probabilities_of(logits), targets))


def loss_interval(logits: "Logits", targets: "Targets") -> Interval:
    """Mean loss per picture, nats, with the normal interval of a mean; as `headline`."""
    if are_tags(targets):
        from netsmith.run.tagging import binary_cross_entropy_interval

        return binary_cross_entropy_interval(logits, targets)
    return cross_entropy_interval(logits, cast("NDArray[np.int64]", targets))


def _right(logits: "Logits", targets: "Targets", *, k: int) -> int:
    return int(top_k_correct(logits, cast("NDArray[np.int64]", targets), k=k).sum())
