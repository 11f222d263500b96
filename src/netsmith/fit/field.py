"""The field of a race: candidates that fit the budget here, timed before any training; or why nothing fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from netsmith.errors import CheckError
from netsmith.fit.stopwatch import Stopwatch, timings_from_json, timings_to_json
from netsmith.run.budget import Budget, format_count, format_latency, format_size
from netsmith.run.plan import Plan
from netsmith.search.candidates import Candidate, Pictures, all_candidates, within
from netsmith.search.choose import Outlook, Timing, calibration, promising

HEADROOM = 0.93
"""Share of a latency limit that a candidate may take: another process and another hour must not break the budget."""

PROBES, ROUNDS, PROBES_PER_BASE = 36, 3, 3
ENTRIES_PER_BASE, ENTRIES_SPREAD, ENTRIES_MARGIN = 2, 2.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate that races, with its timing."""

    candidate: Candidate
    timing: Timing


@dataclass(frozen=True, kw_only=True)
class Field:
    """Who races, the most promising first, and how many were considered on the way."""

    entries: tuple[Entry, ...]
    considered: int
    within_arithmetic: int
    timed: int
    feasible: int


def choose_field(
    pictures: Pictures,
    *,
    budget: Budget,
    entries: int,
    probe_s: float,
    outlook: Outlook,
    pace: Callable[[Candidate], float],
    stopwatch: Stopwatch,
    plan: Plan,
) -> Field:
    """Time candidates and pick those that race.

    Args:
        pictures: what they must suit.
        budget: hard limits.
        entries: how many race at most.
        probe_s: seconds for the stopwatch.
        outlook: what the winner can expect; its speed of training is measured.
        pace: measures that speed, by some updates of a candidate.
        stopwatch: measures.
        plan: speed and timings are rows in it, so that a replay chooses the same field.

    Raises:
        CheckError: nothing fits; the message gives the nearest feasible point per limit.
    """
    considered = all_candidates(pictures)
    allowed = [candidate for candidate in considered if within(candidate, budget)]

    if allowed:
        [likely] = promising(allowed, {}, known=allowed, count=1, outlook=outlook, limit_ms=None, per_base=1)
        speed = plan.decide("fit.work_per_s", at=0, compute=lambda: pace(likely), why=f"updates of {likely.id}")
        outlook = replace(outlook, work_per_s=speed)

    def compute() -> dict[str, list[float]]:
        return timings_to_json(_probe(considered, allowed, budget, probe_s, outlook, stopwatch))

    timings = timings_from_json(
        plan.decide("fit.timings", at=0, compute=compute, why="p50, upper p90 in ms and bytes of untrained candidates")
    )
    by_id = {candidate.id: candidate for candidate in allowed}
    fitting = [by_id[id_] for id_, timing in timings.items() if id_ in by_id and fits(by_id[id_], timing, budget)]
    if not fitting:
        raise CheckError(shortfall(considered, timings, budget))

    def choose() -> list[str]:
        chosen = promising(
            fitting,
            timings,
            known=allowed,
            count=entries,
            outlook=outlook,
            limit_ms=None,
            per_base=ENTRIES_PER_BASE,
            spread=ENTRIES_SPREAD,
            margin=ENTRIES_MARGIN,
        )
        return [candidate.id for candidate in chosen]

    # A row of its own: how much time there is differs between a session and the one that goes on with it.
    chosen = plan.decide("fit.entries", at=0, compute=choose, why="the most promising of those that fit")
    return Field(
        entries=tuple(Entry(candidate=by_id[id_], timing=timings[id_]) for id_ in chosen),
        considered=len(considered),
        within_arithmetic=len(allowed),
        timed=len(timings),
        feasible=len(fitting),
    )


def fits(candidate: Candidate, timing: Timing, budget: Budget) -> bool:
    """Whether a timed candidate meets every limit, the latency with some headroom."""
    return (
        (budget.latency_ms is None or timing.high_ms <= HEADROOM * budget.latency_ms)
        and (budget.size_bytes is None or timing.size_bytes <= budget.size_bytes)
        and (budget.macs is None or candidate.cost.macs <= budget.macs)
        and (budget.params is None or candidate.cost.params <= budget.params)
    )


def _probe(
    considered: Sequence[Candidate],
    allowed: Sequence[Candidate],
    budget: Budget,
    probe_s: float,
    outlook: Outlook,
    stopwatch: Stopwatch,
) -> dict[str, Timing]:
    """First a few per family to learn its speed, then the most promising in rounds that learn from each other.

    While nothing fits, the fastest and smallest, so that a refusal can name the nearest point.
    """
    timings = stopwatch.times(calibration(allowed), seconds=0.25 * probe_s) if allowed else {}
    for _ in range(ROUNDS):
        wanted = promising(
            [candidate for candidate in allowed if candidate.id not in timings],
            timings,
            known=allowed,
            count=PROBES // ROUNDS,
            outlook=outlook,
            limit_ms=budget.latency_ms,
            per_base=PROBES_PER_BASE,
        )
        timings |= stopwatch.times(wanted, seconds=0.55 * probe_s / ROUNDS)
    by_id = {candidate.id: candidate for candidate in allowed}
    if not any(fits(by_id[id_], timing, budget) for id_, timing in timings.items()):
        pool = allowed or considered
        fastest = sorted(pool, key=lambda c: (c.cost.macs, c.id))[:8]
        smallest = sorted(pool, key=lambda c: (c.size_bytes, c.id))[:4]
        timings |= stopwatch.times([c for c in fastest + smallest if c.id not in timings], seconds=0.2 * probe_s)
    return timings


def shortfall(considered: Sequence[Candidate], timings: dict[str, Timing], budget: Budget) -> str:
    """One sentence that says what the least of every limited quantity is.

    Each is the least among candidates that meet the other limits, or among all where none does.
    """
    nearest = [_nearest(name, considered, timings, budget) for name in budget.limits()]
    return f"nothing fits the budget {budget}; the nearest is {'; '.join(nearest)}: raise the limits or drop one"


def _nearest(name: str, considered: Sequence[Candidate], timings: dict[str, Timing], budget: Budget) -> str:
    others = budget.model_copy(update={name: None})

    def value(candidate: Candidate) -> float:
        timing = timings.get(candidate.id)
        match name:
            case "latency_ms":
                return timing.high_ms / HEADROOM if timing else float("inf")
            case "size_bytes":
                return timing.size_bytes if timing else candidate.size_bytes
            case "macs":
                return candidate.cost.macs
            case _:
                return candidate.cost.params

    def meets_others(candidate: Candidate) -> bool:
        timing = timings.get(candidate.id)
        return fits(candidate, timing, others) if timing else others.latency_ms is None and within(candidate, others)

    pool = [candidate for candidate in considered if meets_others(candidate)] or list(considered)
    best = min(pool, key=value)
    forms = {"latency_ms": ("latency", format_latency), "size_bytes": ("size", format_size)}
    key, form = forms.get(name, (name, format_count))
    shown = f"{value(best):.2g}" if name == "latency_ms" else str(round(value(best)))
    if value(best) == float("inf"):
        return f"{key} unknown (nothing that meets the other limits)"
    return f"{key}={form(float(shown))} ({best.id})"
