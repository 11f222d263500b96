"""Numbers as a person reads them: as many digits as their uncertainty bears, always with the unit."""

import math
from typing import Any

from netsmith.report.markup import visible
from netsmith.run.budget import BudgetRow
from netsmith.run.metrics import Interval

SPLIT_NAMES = {"test": "test", "val": "validation", "train": "training"}
_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
_COUNTS = (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
_BUDGET = {
    "latency_ms": ("Latency", (("ms", 1.0), ("µs", 1e-3))),
    "size_bytes": ("Size", _SIZES),
    "macs": ("MACs", _COUNTS),
    "params": ("Parameters", _COUNTS),
}


def percent(share: float, *, n: int | None = None) -> str:
    """A share such as "94.2%"; with two decimals where n >= 5000 observations bear them."""
    return f"{100 * share:.{2 if n is not None and n >= 5000 else 1}f}%"


def bounds(interval: Interval) -> str:
    """The interval of a share such as "92.1–95.8%"."""
    decimals = 2 if interval.n >= 5000 else 1
    return f"{100 * interval.low:.{decimals}f}–{100 * interval.high:.{decimals}f}%"


def figures(value: float, *, digits: int = 3) -> str:
    """A number to so many significant digits, without exponent from 0.001 to 10^15."""
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == 0:
        return "0"
    if not 1e-3 <= abs(rounded) < 1e15:
        return f"{value:.{digits}g}"
    return f"{rounded:,.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def milliseconds(value: float) -> str:
    """A time such as "4.12 ms"."""
    return f"{figures(value)} ms"


def between(low: float, high: float) -> str:
    """An interval of times such as "3.84 to 4.14 ms", with digits enough to tell its ends apart (six at most)."""
    digits = next((digits for digits in range(3, 6) if figures(low, digits=digits) != figures(high, digits=digits)), 6)
    return f"{figures(low, digits=digits)} to {figures(high, digits=digits)} ms"


def size(size_bytes: float) -> str:
    """Bytes such as "3.21 MB", MB = 10^6."""
    return _scaled(size_bytes, _SIZES)


def count(value: float) -> str:
    """A large number such as "3.50 M"."""
    return _scaled(value, _COUNTS)


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    unit, factor = next(((unit, factor) for unit, factor in units if value >= factor), units[-1])
    return f"{figures(value / factor) if factor > 1 else f'{value:.0f}'} {unit}".rstrip()


def memory(size_bytes: float) -> str:
    """Memory of a machine in GiB."""
    return f"{figures(size_bytes / 2**30)} GiB"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Such as "1 picture", "2,000 pictures"."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def budget_cells(row: BudgetRow) -> tuple[str, str, str]:
    """Name, limit and measured value of a budget's row, in the same unit; the value to four digits unless that would
    hide a limit missed."""
    title, units = _BUDGET.get(row.name, (row.name, _COUNTS))
    unit, factor = next(((unit, factor) for unit, factor in units if row.limit >= factor), units[-1])
    rounded = float(f"{row.measured:.4g}")
    measured = rounded if (rounded <= row.limit) == row.met else row.measured
    limit, shown = (f"{value / factor:.12g} {unit}".rstrip() for value in (row.limit, measured))
    return title, limit, shown


def within(title: str) -> str:
    """A title within a sentence: "Latency" as "latency", "MACs" as it is."""
    return f"{title[:1].lower()}{title[1:]}" if title[1:2].islower() else title


def p_value(p: float) -> str:
    """Such as "p = 0.021"; below 0.0001 the digits mean nothing."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def moment(iso: str) -> str:
    """A wall time such as "2026-11-22 06:10:18 UTC" from ISO 8601; as it is where it is not that."""
    head, separator, rest = iso.partition("T")
    clock, zone = rest[:8], rest[8:]
    utc = zone.endswith(("Z", "+00:00"))
    return f"{head} {clock} UTC" if separator and utc else iso


def brief(value: Any, *, longest: int = 160, deepest: int = 20) -> str:
    """Any JSON value on one line; a long one is cut, and so is what nests deeper than anything that is recorded."""
    match value:
        case float():
            text = f"{value:.6g}"
        case dict() | list() if deepest == 0:
            text = "…"
        case dict():
            parts = ((key, brief(item, longest=longest, deepest=deepest - 1)) for key, item in value.items())
            text = ", ".join(f"{key}: {part}" for key, part in parts)
        case list():
            text = ", ".join(brief(item, longest=longest, deepest=deepest - 1) for item in value)
        case _:
            text = str(value)
    text = visible(text)
    return text if len(text) <= longest else f"{text[: longest - 2]} …"
