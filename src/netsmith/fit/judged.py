"""What an artifact is worth, measured after reload, and whether a stage made it better: numbers in, one sentence out.

    found = verdict(before, after, max_drop=0.5, faster=True)
    found.kept, found.reason

A drop is judged by the estimate on the validation pictures, and its interval is said: the interval is that of paired
answers, because both models answer the same pictures. "Faster" is judged by the medians of calls that took turns in one
process: their gain has to be more than `ALIKE` and more than the noise of the machine, because of many candidates one
is always quicker by chance. p90 must not be worse beyond its own interval: a model that is quick on average and late
now and then is not faster where it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netsmith.arch.cost import cost
from netsmith.artifact.bundle import Bundle, Precision, Preferred
from netsmith.artifact.latency import ALIKE, Measurement
from netsmith.run.budget import Budget, BudgetRow
from netsmith.run.ledger import Ledger, LedgerRow, Split, Verdict
from netsmith.run.metrics import Interval
from netsmith.run.result import Latency
from netsmith.run.scores import (
    METRIC_NAMES,
    POINTS,
    Answers,
    Metric,
    are_tags,
    change,
    told_apart,
    within_one_error,
)


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
    precision: Precision
    runtime: str
    threads: int
    answers: Answers = field(repr=False, compare=False)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        artifact: str,
        answers: Answers,
        measured: Measurement,
        memory_bytes: int | None,
        runs_in: Preferred,
    ) -> "Judged":
        """An opened artifact with what was found of it; see the attributes."""
        counted = cost(bundle.layout)
        return cls(
            artifact=artifact,
            model=bundle.layout.name,
            metric="map" if are_tags(answers.targets) else "top1",
            score=answers.headline,
            latency=as_latency(measured),
            size_bytes=bundle.size_bytes,
            memory_bytes=memory_bytes,
            params=counted.params,
            macs=counted.macs,
            precision=bundle.config.precision,
            runtime=runs_in.runtime,
            threads=runs_in.threads,
            answers=answers,
        )

    @property
    def runs_in(self) -> Preferred:
        """With which it was measured."""
        return Preferred(runtime=self.runtime, threads=self.threads)

    def held_to(self, budget: Budget) -> list[BudgetRow]:
        """The limits, and what of it each is held against."""
        measured = {
            "latency_ms": self.latency.high, "size_bytes": self.size_bytes, "macs": self.macs, "params": self.params,
        }  # fmt: skip
        return budget.rows(measured)

    def missed(self, budget: Budget) -> list[BudgetRow]:
        """The limits that it misses."""
        return [row for row in self.held_to(budget) if not row.met]

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


def enter(
    ledger: Ledger,
    stage: str,
    after: Judged,
    *,
    verdict: Verdict,
    reason: str,
    before: Judged | None = None,
    more: Mapping[str, Any] | None = None,
    splits_read: Sequence[Split] = ("train", "val"),
) -> LedgerRow:
    """Append the row of all that makes a model: what it began with and what it made, each as it was judged.

    Args:
        ledger: of the run.
        stage: of the row.
        after: what was made.
        verdict, reason: as `LedgerRow` has them.
        before: what it began with; None where nothing can stand there, which the reason says.
        more: what else `after` says.
        splits_read: whose pictures were looked at.
    """
    return ledger.add(
        stage,
        verdict=verdict,
        reason=reason,
        inputs=[] if before is None else [before.artifact],
        output=after.artifact,
        before=None if before is None else before.record(),
        after={**after.record(), **(more or {})},
        splits_read=splits_read,
    )


@dataclass(frozen=True)
class Found:
    """The verdict on a stage: whether what it made is kept, and why, in one sentence with the numbers."""

    kept: bool
    reason: str

    @property
    def word(self) -> Verdict:
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
    lost = -POINTS * differs.value
    moved, timed, size = _in_numbers(before, after, differs)
    speed = before.latency.p50 / after.latency.p50
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


@dataclass(frozen=True)
class Compared:
    """A model beside the one that it went on from, which need not be better to be kept.

    Attributes:
        change: of the headline, paired.
        reason: whether it is better, no different or worse beyond chance, in one sentence with the numbers.
    """

    change: Interval
    reason: str


def compare(before: Judged, after: Judged, *, name: str, doubtful: bool = False) -> Compared:
    """Whether one model is better than another.

    Args:
        before, after: judged as for `verdict`.
        name: of `before`.
        doubtful: whether it may have been trained on some of the pictures.
    """
    differs = change(before.answers, after.answers)
    how = {
        "better": f"better than {name}",
        "no different": f"no different from {name} beyond chance",
        "worse": f"worse than {name}" + ("" if doubtful else ", which stays the better model"),
    }[told_apart(differs)]
    doubt = "; some of these pictures may be ones it was trained on" if doubtful else ""
    return Compared(differs, f"{how}: {', '.join(_in_numbers(before, after, differs))}{doubt}")


def _in_numbers(before: Judged, after: Judged, differs: Interval) -> tuple[str, str, str]:
    """The headline, the time and the size of both."""
    moved = (
        f"{METRIC_NAMES[before.metric]} {before.score.value:.2%} -> {after.score.value:.2%} on {differs.n:,} "
        f"validation pictures ({POINTS * differs.value:+.2f} points, {POINTS * differs.low:+.2f} to "
        f"{POINTS * differs.high:+.2f})"
    )
    timed = (
        f"p50 {before.latency.p50:.3g} -> {after.latency.p50:.3g} ms "
        f"({before.latency.p50 / after.latency.p50:.2f}x), "
        f"p90 {before.latency.p90:.3g} -> {after.latency.p90:.3g} ms"
    )
    if before.runs_in != after.runs_in:
        timed += f", {before.runs_in} -> {after.runs_in}"
    return moved, timed, f"{before.size_bytes / 1e6:.3g} -> {after.size_bytes / 1e6:.3g} MB"


def as_good(before: Judged, after: Judged) -> bool:
    """Whether `after` answers at most one standard error worse, see `within_one_error`."""
    return within_one_error(before.answers, after.answers)


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
