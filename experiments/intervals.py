"""Numbers over seeds: means, differences and curves with their intervals.

Intervals are Student's, 95 %. Differences are taken seed by seed, because the same seed gives both sides the same order
and augmentation of the same pictures. Trainings that diverged have no numbers and are left out.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

from netsmith.report.charts import Series
from netsmith.run.metrics import Interval

Row = dict[str, Any]
"""What one training gave, as JSON."""

STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


def mean_of(values: Sequence[float]) -> Interval:
    """Mean over seeds and its 95 % interval; a single seed has no spread and is its own bounds.

    Args:
        values: one per seed, 1 to 31.
    """
    middle = mean(values)
    half = STUDENT[len(values) - 2] * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return Interval(value=float(middle), low=float(middle - half), high=float(middle + half), n=len(values))


def over_seeds(rows: Sequence[Row], name: str) -> Interval | None:
    """`mean_of` a field of rows that differ by their seed; diverged ones are left out, None where none is left."""
    values = [row[name] for row in rows if row[name] is not None]
    return mean_of(values) if values else None


def difference(rows: Sequence[Row], others: Sequence[Row], name: str) -> Interval | None:
    """`mean_of` the differences `rows` - `others` of a field, seed by seed; None where no seed finished on both."""
    theirs = {row["seed"]: row[name] for row in others if row[name] is not None}
    mine = {row["seed"]: row[name] for row in rows if row[name] is not None}
    gaps = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    return mean_of(gaps) if gaps else None


def percent(interval: Interval | None, *, sign: bool = False) -> str:
    """An interval of shares in percent, such as "71.2 (70.1 to 72.3)"; "diverged" for None."""
    if interval is None:
        return "diverged"
    value, low, high = (
        f"{100 * part:+.1f}" if sign else f"{100 * part:.1f}" for part in (interval.value, interval.low, interval.high)
    )
    return f"{value} ({low} to {high})" if interval.n > 1 else f"{value} (one seed)"


def by_cost(
    groups: Sequence[Sequence[Row]], cost: str, *, title: str, accuracy: str = "test_top1", **how: Any
) -> Series:
    """Accuracy of several networks, each its rows over seeds, by what it costs.

    Networks whose every seed diverged are missing.

    Args:
        groups: rows of each network.
        cost: field of the rows; "macs" and "params" are shown in millions.
        title: of the line.
        accuracy: field of the rows.
        how: passed on to `Series`.
    """
    unit = 1e6 if cost in ("macs", "params") else 1.0
    points = sorted(
        (rows[0][cost] / unit, top1.value, top1.low, top1.high)
        for rows in groups
        if (top1 := over_seeds(rows, accuracy)) is not None
    )
    x, y, low, high = ([point[place] for point in points] for place in range(4))
    return Series(title=title, x=x, y=y, low=low, high=high, dots=True, **how)


def mean_curve(rows: Sequence[Row], name: str, *, title: str, **how: Any) -> Series:
    """A field of the curves over progress: mean over seeds, with the interval as a band where there are two or more.

    Broken lines get none: they run beside a solid one, and two bands over each other hide both.
    """
    whole = [row["curve"] for row in rows if not row["diverged"]]
    points = [mean_of([at[name] for at in together]) for together in zip(*whole, strict=True)]
    several = bool(points) and points[0].n > 1 and not how.get("dashed")
    return Series(
        title=title,
        x=[at["progress"] for at in whole[0]] if whole else [],
        y=[point.value for point in points],
        low=[point.low for point in points] if several else [],
        high=[point.high for point in points] if several else [],
        **how,
    )
