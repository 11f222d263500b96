"""Numbers as a person reads them: as many digits as their uncertainty bears, always with the unit."""

import math
from typing import Any

from netsmith.report.markup import visible
from netsmith.run.budget import BudgetRow, format_count, format_latency, format_size
from netsmith.run.metrics import Interval

_BUDGET = {
    "latency_ms": ("Latency, upper bound of p90", format_latency),
    "size_bytes": ("Size", format_size),
    "macs": ("MACs", format_count),
    "params": ("Parameters", format_count),
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
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e15:
        return f"{value:.{digits}g}"
    return f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):,.{_decimals(value, digits)}f}"


def _decimals(value: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def milliseconds(value: float) -> str:
    """A time such as "4.12 ms"."""
    return f"{figures(value)} ms"


def size(size_bytes: float) -> str:
    """Bytes such as "3.21 MB", MB = 10^6."""
    return _scaled(size_bytes, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), "B")


def count(value: float) -> str:
    """A large number such as "3.50 M"."""
    return _scaled(value, (("G", 1e9), ("M", 1e6), ("k", 1e3)), "")


def _scaled(value: float, units: tuple[tuple[str, float], ...], smallest: str) -> str:
    for unit, factor in units:
        if value >= factor:
            return f"{figures(value / factor)} {unit}"
    return f"{value:.0f} {smallest}".rstrip()


def memory(size_bytes: float) -> str:
    """Memory of a machine in GiB."""
    return f"{figures(size_bytes / 2**30)} GiB"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Such as "1 picture", "2,000 pictures"."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def budget_cells(row: BudgetRow) -> tuple[str, str, str]:
    """Name, limit and measured value of a budget's row; the value to four digits unless that would hide a miss."""
    title, form = _BUDGET.get(row.name, (row.name, format_count))
    rounded = float(f"{row.measured:.4g}")
    return title, form(row.limit), form(rounded if (rounded <= row.limit) == row.met else row.measured)


def moment(iso: str) -> str:
    """A wall time such as "2026-11-22 06:10:18 UTC" from ISO 8601; as it is where it is not that."""
    head, separator, rest = iso.partition("T")
    clock, zone = rest[:8], rest[8:]
    utc = zone.endswith(("Z", "+00:00"))
    return f"{head} {clock} UTC" if separator and utc else iso


def brief(value: Any, *, longest: int = 160) -> str:
    """Any JSON value on one line; a long one is cut."""
    match value:
        case float():
            text = f"{value:.6g}"
        case dict():
            text = ", ".join(f"{key}: {brief(item, longest=longest)}" for key, item in value.items())
        case list():
            text = ", ".join(brief(item, longest=longest) for item in value)
        case _:
            text = str(value)
    text = visible(text)
    return text if len(text) <= longest else f"{text[: longest - 2]} …"
