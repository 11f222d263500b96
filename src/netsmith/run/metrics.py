"""Numbers with their uncertainty, in plain numpy: accuracy and loss, intervals, and when two models are alike.

Sources: Wilson 1927 (score interval of a proportion); order statistics for quantiles (David and Nagaraja, Order
Statistics, 7.1); McNemar's test in its exact binomial form.
"""

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.floating]
    Targets = NDArray[np.integer]
    Flags = NDArray[np.bool_]


LARGEST = 2**63 - 1
"""Of counts in records: of more no float is sure to be made, and nothing is counted that far."""


class Interval(BaseModel):
    """A measured value, its confidence interval and the number of observations behind it.

    Attributes:
        value: the estimate.
        low, high: bounds, low <= value <= high.
        n: observations, >= 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    value: float
    low: float
    high: float
    n: int = Field(ge=1, le=LARGEST)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("an interval must have low <= value <= high")
        return self

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion; right also near 0 and 1 and for few observations.

    Args:
        successes: 0 <= successes <= n.
        n: observations, >= 1.
        confidence: two-sided coverage, 0 < confidence < 1.
    """
    assert n >= 1, "a proportion needs observations"
    assert 0 <= successes <= n, f"{successes} of {n}"
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(value=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half)), n=n)


def top_k_correct(logits: "Logits", targets: "Targets", *, k: int) -> "Flags":
    """Whether the target is among the k largest logits.

    Ties go to the lower class, so the answer does not depend on a sorting algorithm; a row with NaN is wrong.

    Args:
        logits: float [N,C].
        targets: integer [N], 0 <= target < C.
        k: >= 1; k >= C makes every finite row right.

    Returns:
        bool [N].
    """
    import numpy as np

    own = np.take_along_axis(logits, targets[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None, :] < targets[:, None]
    ahead = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return (ahead < k) & ~np.isnan(logits).any(axis=1)


def cross_entropy(logits: "Logits", targets: "Targets") -> float:
    """Mean negative log-likelihood in nats, computed in float64 without overflow.

    Args:
        logits: float [N,C], N >= 1.
        targets: integer [N], 0 <= target < C.
    """
    return float(_losses(logits, targets).mean())


def cross_entropy_interval(logits: "Logits", targets: "Targets", *, confidence: float = 0.95) -> Interval:
    """`cross_entropy` with the normal interval of a mean; a single observation has no spread and is its own bounds."""
    losses = _losses(logits, targets)
    n, value = len(losses), float(losses.mean())
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    half = z * float(losses.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Interval(value=value, low=max(0.0, value - half), high=value + half, n=n)


def _losses(logits: "Logits", targets: "Targets") -> "NDArray[np.float64]":
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    return np.log(np.exp(shifted).sum(axis=1)) - own


def samples_for_quantile(q: float, *, confidence: float = 0.95) -> int:
    """The fewest samples for which `quantile_interval` has both bounds: 36 for the 90th percentile at 95 %."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))


def quantile_interval(samples: "NDArray[np.floating]", *, q: float, confidence: float = 0.95) -> Interval:
    """A quantile with an interval that holds for any distribution of independent samples.

    The bounds are order statistics x_(l), x_(u) with P(Bin(n, q) < l) and P(Bin(n, q) >= u) each at most half of what
    confidence leaves.

    Args:
        samples: float [n], any order, n >= `samples_for_quantile(q)`.
        q: 0 < q < 1.
        confidence: two-sided coverage, 0 < confidence < 1.

    Returns:
        The interpolated quantile and its bounds, in the unit of the samples.

    Raises:
        ValueError: too few samples for both bounds.
    """
    import numpy as np

    n = len(samples)
    if n < samples_for_quantile(q, confidence=confidence):
        raise ValueError(
            f"{n} samples are too few for the {q:.0%} quantile; take {samples_for_quantile(q, confidence=confidence)}"
        )
    tail = (1 - confidence) / 2
    below = np.cumsum(_binomial(n, q))  # below[k] = P(Bin(n, q) <= k)
    lower = int(np.searchsorted(below, tail, side="right"))  # largest l with P(Bin <= l - 1) <= tail
    upper = int(np.searchsorted(below, 1 - tail, side="left")) + 1  # smallest u with P(Bin <= u - 1) >= 1 - tail
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    value = float(np.quantile(ordered, q))
    low, high = float(ordered[lower - 1]), float(ordered[min(upper, n) - 1])
    return Interval(value=value, low=min(low, value), high=max(high, value), n=n)


def mcnemar(a: "Flags", b: "Flags") -> float:
    """Exact two-sided p-value that two models are equally often right on the same items.

    Args:
        a, b: bool [N], whether each model is right on item i.
    """
    assert a.shape == b.shape, "the models must be compared on the same items"
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    if n == 0:
        return 1.0
    return min(1.0, 2 * float(_binomial(n, 0.5)[: min(only_a, only_b) + 1].sum()))


def _binomial(n: int, p: float) -> "NDArray[np.float64]":
    """Probabilities of 0..n successes, by the ratio of neighbours in logarithms (no overflow for any n)."""
    import numpy as np

    k = np.arange(1, n + 1, dtype=np.float64)
    steps = np.log((n - k + 1) / k) + math.log(p / (1 - p))
    return np.exp(n * math.log1p(-p) + np.concatenate([[0.0], np.cumsum(steps)]))
