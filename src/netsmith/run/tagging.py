"""Numbers of tagging, in plain numpy: average precision, F1 at thresholds, thresholds, and bootstrap intervals.

Targets are bool [N,C], whether picture i has tag c; scores are logits or probabilities [N,C], the larger the surer.

Choices made on purpose:

- Average precision is the area of the precision-recall staircase, sum over thresholds of (R_n - R_(n-1)) P_n, ties
  taken together, as scikit-learn's `average_precision_score` has it; no interpolation.
- A macro average is over the tags that have a picture: for one without any neither number means anything.
- Intervals come from the standard error over resamples of the pictures (Efron 1979), on the logit scale so that they
  end between 0 and 1; not from percentiles: copies of a picture in a resample raise the precision at its own rank, so
  resamples of rare tags lie above the number they are taken around.
- Resamples are a function of N and C alone, so two models on the same pictures meet the same ones, and the error of
  their difference is that of pairs.
- The interval of a perfect score is that score: no resample of right answers holds a wrong one.
"""

import math
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

from netsmith.run.metrics import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.floating]
    Tags = NDArray[np.bool_]
    Numbers = NDArray[np.float64]

MOST_RESAMPLES, LEAST_RESAMPLES = 400, 100
WORK = 4e7
"""Numbers that an interval may look at before it makes do with fewer resamples."""
FALLBACK_THRESHOLD = 0.5
"""Of a tag for which nothing is known."""


def resample_count(pictures: int, tags: int) -> int:
    """How many resamples a standard error takes: fewer where the set is large, whose errors are small anyway."""
    return min(MOST_RESAMPLES, max(LEAST_RESAMPLES, int(WORK / (pictures * tags))))


@lru_cache(maxsize=2)
def _resamples(pictures: int, count: int) -> "NDArray[np.uint16]":
    """How often each picture is in each resample, uint16 [B,N]; the first "resample" is the set itself."""
    import numpy as np

    rng = np.random.default_rng([0x7A65, pictures])
    weights = np.empty((count + 1, pictures), np.uint16)
    weights[0] = 1
    for row in weights[1:]:
        row[:] = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
    return weights


def average_precision(scores: "Scores", targets: "Tags") -> "Numbers":
    """Average precision of each tag, float64 [C]; NaN for a tag that no picture has."""
    import numpy as np

    ones = np.ones((1, len(targets)), np.uint16)
    columns = range(targets.shape[1])
    return np.array([_average_precision(scores[:, column], targets[:, column], ones)[0] for column in columns])


def mean_average_precision(scores: "Scores", targets: "Tags") -> float:
    """mAP: the mean of `average_precision` over the tags that a picture has; 0 where no picture has any."""
    return _mean_of_known(average_precision(scores, targets)[None])[0].item()


def map_replicates(scores: "Scores", targets: "Tags") -> "Numbers":
    """mAP on the set and on each resample of it that has tags, float64 [1 + B]; the same resamples for every model."""
    import numpy as np

    weights = _resamples(len(targets), resample_count(*targets.shape))
    total, known = np.zeros(len(weights)), np.zeros(len(weights))
    for column in range(targets.shape[1]):
        each = _average_precision(scores[:, column], targets[:, column], weights)
        there = ~np.isnan(each)
        total[there] += each[there]
        known += there
    return _of_known(total, known)


def mean_average_precision_interval(scores: "Scores", targets: "Tags", *, confidence: float = 0.95) -> Interval:
    """`mean_average_precision` with its bootstrap interval; n is the number of pictures."""
    return bootstrap_interval(map_replicates(scores, targets), n=len(targets), confidence=confidence)


def bootstrap_interval(replicates: "Numbers", *, n: int, confidence: float = 0.95) -> Interval:
    """The interval of a share from its resamples.

    Args:
        replicates: float64 [1 + B]: the number itself, 0 to 1, then that of every resample.
        n: observations behind it.
        confidence: two-sided coverage, 0 < confidence < 1.
    """
    value, error = float(replicates[0]), _spread(replicates[1:])
    if not 0.0 < value < 1.0:
        return Interval(value=value, low=value, high=value, n=n)
    odds = math.log(value / (1 - value))
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * error / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, odds + side * half)))) for side in (-1, 1))
    return Interval(value=value, low=min(low, value), high=max(high, value), n=n)


def paired_error(a: "Numbers", b: "Numbers") -> float:
    """Standard error of the difference of two models' numbers on the same resamples, see `map_replicates`.

    Args:
        a, b: float64 [1 + B].
    """
    return _spread(a[1:] - b[1:])


def difference_p_value(a: "Numbers", b: "Numbers") -> float:
    """Two-sided p-value that two models are equally good: the normal test of their difference over `paired_error`."""
    found, error = abs(float(a[0] - b[0])), paired_error(a, b)
    if error == 0.0:
        return 1.0 if found == 0.0 else 0.0
    return 2 * NormalDist().cdf(-found / error)


def f1_replicates(chosen: "Tags", targets: "Tags") -> "tuple[Numbers, Numbers]":
    """Macro and micro F1 on the set and on each resample of it, each float64 [1 + B].

    Macro: the mean over the tags that a picture has; micro: of all decisions together.

    Args:
        chosen: bool [N,C], what was answered.
        targets: bool [N,C].
    """
    import numpy as np

    weights = _resamples(len(targets), resample_count(*targets.shape)).astype(np.float32)
    hits = weights @ (chosen & targets).astype(np.float32)  # counts below 2^24, so exact
    sizes = weights @ chosen.astype(np.float32) + weights @ targets.astype(np.float32)
    has = weights @ targets.astype(np.float32) > 0
    each = np.where(has, np.divide(2 * hits, sizes, out=np.zeros_like(hits), where=sizes > 0), np.nan)
    whole = sizes.sum(axis=1, dtype=np.float64)
    twice = 2 * hits.sum(axis=1, dtype=np.float64)
    micro = np.divide(twice, whole, out=np.zeros(len(whole)), where=whole > 0)
    return _mean_of_known(each.astype(np.float64)), micro


def best_thresholds(probabilities: "Scores", targets: "Tags") -> "list[float]":
    """For each tag the threshold of the largest F1 on these pictures; a tag is given where probability >= threshold.

    It lies half way between the two probabilities that it parts; of equally good ones the highest counts. A tag that
    no picture has, or every one, keeps `FALLBACK_THRESHOLD`: nothing says where its boundary is.

    Args:
        probabilities: [N,C], 0 to 1.
        targets: bool [N,C].

    Returns:
        C thresholds, 0 to 1.
    """
    import numpy as np

    found: list[float] = []
    for column in range(targets.shape[1]):
        wanted = targets[:, column]
        if wanted.all() or not wanted.any():
            found.append(FALLBACK_THRESHOLD)
            continue
        order = np.argsort(-probabilities[:, column], kind="stable")
        ranked, right = probabilities[order, column].astype(np.float64), wanted[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        f1 = 2 * np.cumsum(right)[ends] / (ends + 1 + right.sum())
        last = int(ends[f1.argmax()])
        beneath = ranked[last + 1] if last + 1 < len(ranked) else 0.0
        found.append(float((ranked[last] + beneath) / 2))
    return found


def probabilities_of(logits: "Scores") -> "Numbers":
    """1 / (1 + exp(-logit)), float64, without overflow."""
    import numpy as np

    small = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def binary_cross_entropy(logits: "Scores", targets: "Tags") -> float:
    """Negative log-likelihood of all tags of a picture, nats, mean over the pictures; in float64 without overflow."""
    return float(_losses(logits, targets).mean())


def binary_cross_entropy_interval(logits: "Scores", targets: "Tags", *, confidence: float = 0.95) -> Interval:
    """`binary_cross_entropy` with the normal interval of a mean; a single picture has no spread."""
    losses = _losses(logits, targets)
    n, value = len(losses), float(losses.mean())
    spread = float(losses.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
    return Interval(value=value, low=max(0.0, value - half), high=value + half, n=n)


def _losses(logits: "Scores", targets: "Tags") -> "Numbers":
    import numpy as np

    exact = logits.astype(np.float64)
    return (np.maximum(exact, 0) - exact * targets + np.log1p(np.exp(-np.abs(exact)))).sum(axis=1)


def _average_precision(scores: "Scores", targets: "Tags", weights: "NDArray[np.uint16]") -> "Numbers":
    """Average precision of one tag where picture i counts weights[b,i] times, float64 [B]; NaN where none has it."""
    import numpy as np

    if not targets.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], targets[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of what has the same score
    found = np.empty(len(weights))
    block = max(1, int(4e6 / len(targets)))
    for start in range(0, len(weights), block):
        counted = weights[start : start + block, order].astype(np.float32)  # sums below 2^24 are exact
        taken = np.cumsum(counted, axis=1)[:, ends]
        hits = np.cumsum(counted * right, axis=1)[:, ends]
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        gained = (np.diff(hits, axis=1, prepend=np.float32(0)) * precision).sum(axis=1, dtype=np.float64)
        total = hits[:, -1]
        found[start : start + block] = np.divide(gained, total, out=np.full(len(gained), np.nan), where=total > 0)
    return found


def _mean_of_known(each: "Numbers") -> "Numbers":
    """Mean of each row [B,C] without its NaNs; see `_of_known` for rows of nothing else."""
    import numpy as np

    there = ~np.isnan(each)
    return _of_known(np.where(there, each, 0.0).sum(axis=1), there.sum(axis=1))


def _of_known(total: "Numbers", count: "Numbers") -> "Numbers":
    """Means of rows from their sums and counts; 0 for the first row, the set's, where its count is 0.

    Resamples in which no picture has a tag say nothing and are left out: as zeros they would be most of the spread of
    rare tags. Models that are compared have the same targets, so the same resamples stay.
    """
    import numpy as np

    kept = count > 0
    kept[0] = True
    return np.divide(total, count, out=np.zeros(len(total)), where=count > 0)[kept]


def _spread(replicates: "Numbers") -> float:
    """Standard deviation over resamples, 0 where there are too few to tell."""
    return float(replicates.std(ddof=1)) if len(replicates) > 1 else 0.0
