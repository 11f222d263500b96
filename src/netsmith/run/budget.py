"""The budget a user writes, `latency=5ms,size=4MB,macs=300M,params=2M`, and the units in it.

Numbers are read as decimals, so that a budget printed and read again is the same to the last bit. Sizes: kB, MB, GB are
powers of 10^3 and KiB, MiB, GiB of 2^10.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field

from netsmith.errors import InputError, near

if TYPE_CHECKING:
    from netsmith.arch.scale_to import Target

LATENCY_UNITS = {"us": Decimal("0.001"), "ms": Decimal(1), "s": Decimal(1000)}
SIZE_UNITS = {
    "B": Decimal(1),
    "kB": Decimal(10**3),
    "MB": Decimal(10**6),
    "GB": Decimal(10**9),
    "KiB": Decimal(2**10),
    "MiB": Decimal(2**20),
    "GiB": Decimal(2**30),
}
COUNT_UNITS = {"": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
DURATION_UNITS = {"s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
LARGEST = Decimal(10**15)
"""Of a limit, in its base unit; above it nothing is limited."""
LONGEST = Decimal(365 * 86400)
"""Seconds of a duration."""
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-zµ%]*)")


class BudgetRow(BaseModel):
    """One limit and what was measured against it.

    Attributes:
        name: "latency_ms", "size_bytes", "macs" or "params".
        limit: the largest value allowed, in the unit of the name.
        measured: the value, in the same unit.
        met: measured <= limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    limit: float
    measured: float
    met: bool

    def __str__(self) -> str:
        """Such as "latency 4.1ms of 5ms"; the measured value to four digits unless that would hide a limit missed."""
        key, form = _FORMS[self.name]
        rounded = float(f"{self.measured:.4g}")
        return f"{key} {form(rounded if (rounded <= self.limit) == self.met else self.measured)} of {form(self.limit)}"


class Budget(BaseModel):
    """Limits of a deployment; None is no limit.

    Attributes:
        latency_ms: upper 95 % bound of the p90 of one prediction, batch 1, in the artifact's preferred runtime and
            threads.
        size_bytes: bytes the predictor must open.
        macs: multiply-accumulates of convolutions and linear layers for one picture.
        params: trainable numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    latency_ms: float | None = Field(default=None, gt=0.0)
    size_bytes: int | None = Field(default=None, gt=0)
    macs: int | None = Field(default=None, gt=0)
    params: int | None = Field(default=None, gt=0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a budget as a user writes it.

        Args:
            text: `key=value` pairs with commas between; keys latency, size, macs, params.

        Raises:
            InputError: says which part cannot be read and which keys and units exist.
        """
        limits: dict[str, float | int] = {}
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not key or not value:
                raise InputError(f"budget {text!r}: {part.strip()!r} is not KEY=VALUE; {_EXAMPLE}")
            if key not in _KEYS:
                raise InputError(f"budget {text!r} has the unknown key {key!r}; {near(key, _KEYS)}")
            name = _KEYS[key]
            if name in limits:
                raise InputError(f"budget {text!r} gives {key} twice; keep one")
            what = f"budget {text!r}: {key}"
            if name == "latency_ms":
                limits[name] = float(_read(value, LATENCY_UNITS, what=what))
            else:
                limits[name] = _whole(value, SIZE_UNITS if name == "size_bytes" else COUNT_UNITS, what=what)
        return cls.model_validate(limits)

    def __str__(self) -> str:
        """The text that `parse` reads back to an equal budget."""
        return ",".join(f"{_FORMS[name][0]}={_FORMS[name][1](limit)}" for name, limit in self.limits().items())

    def limits(self) -> dict[str, float]:
        """The limits that are set, by field name."""
        return {name: limit for name, limit in self.model_dump().items() if limit is not None}

    def rows(self, measured: Mapping[str, float]) -> list[BudgetRow]:
        """Hold measurements against the limits.

        Args:
            measured: a value for every field that is limited, by its name; others are ignored.

        Returns:
            One row per limit, in the order of the fields.
        """
        return [
            BudgetRow(name=name, limit=limit, measured=measured[name], met=measured[name] <= limit)
            for name, limit in self.limits().items()
        ]

    def met(self, measured: Mapping[str, float]) -> bool:
        """Whether every limit holds."""
        return all(row.met for row in self.rows(measured))


def parse_size(text: str, *, what: str = "size") -> int:
    """Bytes from "4MB", "512KiB", "100B"; `what` names the value in messages.

    Raises:
        InputError: no number, an unknown unit, not a whole number of bytes, or not above zero.
    """
    return _whole(text, SIZE_UNITS, what=what)


def parse_count(text: str, *, what: str = "count") -> int:
    """A whole number from "300M", "1.5k", "42"; `what` names the value in messages.

    Raises:
        InputError: no number, an unknown unit, not a whole number, or not above zero.
    """
    return _whole(text, COUNT_UNITS, what=what)


def parse_target(text: str, *, what: str = "target") -> "Target":
    """What to scale a cost to: a number as `parse_count` reads it, or a multiple of the present cost such as "2x".

    Raises:
        InputError: as `parse_count`.
    """
    from netsmith.arch.scale_to import Times  # it brings all of arch, which a prediction does not need

    if text.rstrip().endswith("x"):
        return Times(float(_read(text, {"x": Decimal(1)}, what=what)))
    match = _NUMBER.fullmatch(text.strip())
    if not match or match.group(2) not in COUNT_UNITS:
        raise InputError(f"{what} {text!r} is neither a number (600M, 1.5G) nor a multiple (2x, 0.5x)")
    return parse_count(text, what=what)


def parse_duration(text: str, *, what: str = "time") -> float:
    """Seconds from "90s", "10m", "1.5h", "1h30m", "2d"; `what` names the value in messages.

    Raises:
        InputError: no number, an unknown unit, units not in falling order, or not above zero.
    """
    parts = list(_NUMBER.finditer(text))
    if not parts or _NUMBER.sub("", text).strip():
        raise InputError(f"{what} {text!r} is not a duration; write it like 90s, 10m or 1h30m")
    units = [part.group(2) for part in parts]
    seconds = sum((_read(part.group(), DURATION_UNITS, what=what) for part in parts), Decimal(0))
    factors = [DURATION_UNITS[unit] for unit in units]
    if any(later >= earlier for earlier, later in pairwise(factors)):
        raise InputError(f"{what} {text!r} must go from days to seconds; write it like 1h30m")
    if seconds > LONGEST:
        raise InputError(f"{what} {text!r} is more than a year; give 365d at most")
    return float(seconds)


def format_latency(milliseconds: float) -> str:
    """Milliseconds as text that reads back exactly: "5ms", "250us"."""
    return _format(milliseconds, {"us": LATENCY_UNITS["us"]} if milliseconds < 1 else {"ms": LATENCY_UNITS["ms"]})


def format_size(size_bytes: float) -> str:
    """Bytes as text that reads back exactly, in the largest unit that keeps it short: "4MB", "4MiB", "4194305B"."""
    return _format(size_bytes, SIZE_UNITS)


def format_count(count: float) -> str:
    """A number as text that reads back exactly: "300M", "1.5k", "1234567"."""
    return _format(count, COUNT_UNITS)


def format_duration(seconds: float) -> str:
    """Seconds for people, rounded to a whole second above ten: "4.2s", "1m30s", "2h", "1d3h"."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    rest, parts = round(seconds), ""
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, factor)
        parts += f"{count}{unit}" if count else ""
    return parts


_KEYS = {"latency": "latency_ms", "size": "size_bytes", "macs": "macs", "params": "params"}
_FORMS = {
    "latency_ms": ("latency", format_latency),
    "size_bytes": ("size", format_size),
    "macs": ("macs", format_count),
    "params": ("params", format_count),
}
_EXAMPLE = "write it like latency=5ms,size=4MB,macs=300M,params=2M"


def _read(text: str, units: Mapping[str, Decimal], *, what: str) -> Decimal:
    """A number and its unit, in the units' base; above zero."""
    named = [unit for unit in units if unit]
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        raise InputError(f"{what} {text!r} is not a number with a unit ({_or(named)})")
    number, unit = match.groups()
    if unit not in units:
        problem = f"has the unknown unit {unit!r}; {near(unit, named)}" if unit else f"has no unit; add {_or(named)}"
        raise InputError(f"{what} {text!r} {problem}")
    value = Decimal(number) * units[unit]
    if value <= 0:
        raise InputError(f"{what} {text!r} must be above zero")
    if value > LARGEST:
        raise InputError(f"{what} {text!r} is beyond anything that can be measured; give a smaller one or leave it out")
    return value


def _or(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _whole(text: str, units: Mapping[str, Decimal], *, what: str) -> int:
    value = _read(text, units, what=what)
    if value != int(value):
        raise InputError(f"{what} {text!r} is {value.normalize():f}, which is not a whole number; round it")
    return int(value)


def _format(value: float, units: Mapping[str, Decimal]) -> str:
    """The shortest exact text whose number is at least 1, or in the smallest unit below that."""
    exact = Decimal(repr(value))
    fitting = {unit: exact / factor for unit, factor in units.items() if exact >= factor}
    texts = [f"{scaled.normalize():f}{unit}" for unit, scaled in fitting.items() if scaled * units[unit] == exact]
    smallest = next(iter(units))
    return min(texts, key=len, default=f"{exact / units[smallest]:f}{smallest}")
