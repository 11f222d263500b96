"""What an artifact is worth, measured after reload, and whether a stage made it better: numbers in, one sentence out.

    found = verdict(before, after, max_drop=0.5, faster=True)
    found.kept, found.reason

A drop is judged by the estimate on the validation pictures, and its interval is said: the interval is that of paired
answers, because both models answer the same pictures. "Faster" is judged by the medians of calls that took turns in one
process: their gain has to be more than `ALIKE` and more than the noise of the machine, because of many candidates one
is always quicker by chance. p90 must not be worse beyond its own interval: a model that is quick on average and late
now and then is not faster where it runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from netsmith.artifact.bundle import Preferred
from netsmith.artifact.latency import ALIKE, Measurement
from netsmith.run.budget import Budget, BudgetRow
from netsmith.run.metrics import Interval
from netsmith.run.result import Latency
from netsmith.run.scores import METRIC_NAMES, Answers, Metric, change

POINTS = 100.0
"""Of a share: the unit of --max-drop."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An artifact as it was found on this machine.

    Attributes:
        artifact: SHA-256 of its folder.
        model: name of the network.
        metric: what it is judged by.
        score: it, on the validation pictures.
        latency: of one picture, in a fresh process.
        size_bytes: bytes the predictor must open.
        memory_bytes: largest resident memory of a fresh process with this model alone; None where the system does not
            tell.
        params, macs: of the network.
        precision: of its graph.
        runtime, threads: with which it was measured.
        answers: on the validation pictures; not part of the record.
    """

    artifact: str
    model: str
    metric: Metric
    score: Interval
    latency: Latency
    size_bytes: int
    memory_bytes: int | None
    params: int
    macs: int
    precision: str
    runtime: str
    threads: int
    answers: Answers = field(repr=False, compare=False)

    @property
    def runs_in(self) -> Preferred:
        """With which it was measured."""
        return Preferred(runtime=self.runtime, threads=self.threads)

    def missed(self, budget: Budget) -> list[BudgetRow]:
        """The limits that it misses."""
        measured = {
            "latency_ms": self.latency.high, "size_bytes": self.size_bytes, "macs": self.macs, "params": self.params,
        }  # fmt: skip
        return [row for row in budget.rows(measured) if not row.met]

    def record(self) -> dict[str, Any]:
        """As `before` and `after` of a ledger row hold it: the names of `results.json`, the score under its own."""
        plain = {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("answers", "metric", "score", "latency")
        }
        return {**plain, self.metric: self.score.model_dump(), "latency_ms": self.latency.model_dump()}

    def __str__(self) -> str:
        return (
            f"{self.model} {self.precision}: {METRIC_NAMES[self.metric]} {self.score.value:.2%} on validation, "
            f"p50 {self.latency.p50:.3g} ms, p90 {self.latency.p90:.3g} ms, {self.size_bytes / 1e6:.3g} MB"
        )


@dataclass(frozen=True)
class Found:
    """The verdict on a stage: whether what it made is kept, and why, in one sentence with the numbers."""

    kept: bool
    reason: str

    @property
    def word(self) -> str:
        """As the ledger has it."""
        return "kept" if self.kept else "refused"


def verdict(
    before: Judged,
    after: Judged,
    *,
    max_drop: float | None = None,
    faster: bool = False,
    share: float | None = None,
    budget: Budget | None = None,
) -> Found:
    """Whether `after` may take the place of `before`.

    Args:
        before, after: judged on the same pictures, their latencies taken in turns (`Stage.judge`).
        max_drop: points of the headline (hundredths) that it may lose on validation; None does not ask.
        faster: whether it must also be faster.
        share: of the p50 of `before` that it may take; None does not ask. What is alike, or within the noise of the
            machine, passes.
        budget: limits that it must keep; None does not ask.
    """
    differs = change(before.answers, after.answers)
    name = METRIC_NAMES[before.metric]
    lost = -POINTS * differs.value
    moved = (
        f"{name} {before.score.value:.2%} -> {after.score.value:.2%} on {differs.n:,} validation pictures "
        f"({POINTS * differs.value:+.2f} points, {POINTS * differs.low:+.2f} to {POINTS * differs.high:+.2f})"
    )
    speed = before.latency.p50 / after.latency.p50
    timed = (
        f"p50 {before.latency.p50:.3g} -> {after.latency.p50:.3g} ms ({speed:.2f}x), "
        f"p90 {before.latency.p90:.3g} -> {after.latency.p90:.3g} ms"
    )
    if before.runs_in != after.runs_in:
        timed += f", {before.runs_in} -> {after.runs_in}"
    size = f"{before.size_bytes / 1e6:.3g} -> {after.size_bytes / 1e6:.3g} MB"
    problems: list[str] = []
    # The smallest share of pictures is far above the rounding of two shares.
    if max_drop is not None and lost > max_drop + 1e-9:
        problems.append(f"it loses {lost:.2f} points, more than the {max_drop:g} allowed")
    if faster and (slow := _slow(before.latency, after.latency)):
        problems.append(slow)
    if share is not None:
        timed += f", {1 / speed:.2f} of it where {share:g} was asked for"
        if 1 / speed > share * max(ALIKE, 1 + before.latency.noise, 1 + after.latency.noise):
            problems.append(f"it takes {1 / speed:.2f} of the time, more than the {share:g} asked for")
    if budget is not None and (missed := after.missed(budget)):
        problems.append(f"it misses {', '.join(map(str, missed))}")
    numbers = f"{moved}, {timed}, {size}"
    return Found(not problems, f"{' and '.join(problems)}: {numbers}" if problems else numbers)


def as_good(before: Judged, after: Judged) -> bool:
    """Whether `after` answers at most one standard error worse: that of the paired difference, were there none."""
    differs = change(before.answers, after.answers)
    error = (differs.high - differs.value) / NormalDist().inv_cdf(0.975)
    # The smallest share of pictures is far above the rounding of two shares.
    return -differs.value - math.sqrt(error**2 + differs.value**2 / differs.n) <= 1e-9


def best(judged: Sequence[Judged]) -> Judged:
    """The most accurate of some, or a lighter one that is as good within chance.

    As good is what `as_good` says. Lighter is less time times bytes, by more than `ALIKE`; among the lightest the most
    accurate is best.

    Args:
        judged: at least one, on the same pictures, their latencies taken in turns.
    """
    top = max(judged, key=lambda each: each.score.value)
    alike = [each for each in judged if as_good(top, each)]

    def weight(each: Judged) -> float:
        return each.latency.p50 * each.size_bytes

    lightest = min(map(weight, alike))
    return max((each for each in alike if weight(each) <= ALIKE * lightest), key=lambda each: each.score.value)


def _slow(before: Latency, after: Latency) -> str | None:
    """Why `after` is not faster; None where it is."""
    gain, noise = before.p50 / after.p50 - 1, max(before.noise, after.noise)
    if gain <= 0 or after.low > before.high:
        return "it is not faster"
    if gain <= ALIKE - 1:
        return f"it is not faster by more than {ALIKE - 1:.0%}"
    if gain <= noise:
        return f"it is faster by {gain:.0%}, within the noise of the machine, {noise:.0%}; measure when it is quiet"
    return None


def as_latency(measured: Measurement) -> Latency:
    """The latency of a `Measurement`, as records hold it."""
    return Latency(
        p50=measured.p50_ms,
        p90=measured.p90_ms,
        low=measured.low,
        high=measured.high,
        noise=measured.noise,
        reference_us=measured.reference_us,
    )
