"""Widths: `int` (scaled by the multiplier), `Fixed` (never scaled), `AtLeast` (scaled up only); and their rounding.

Rounding is that of the MobileNet and EfficientNet papers' code: to the nearest multiple of 8, up when that would lose
more than a tenth; a multiplier of 1 changes nothing.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from netsmith.arch.limits import check_widths


@dataclass(frozen=True)
class Fixed:
    """A width or a number of repeats that scaling leaves alone."""

    kind: ClassVar[str] = "fixed"
    value: int

    def __post_init__(self) -> None:
        check_widths("fixed", self.value)


@dataclass(frozen=True)
class AtLeast:
    """A width that scaling raises but never lowers."""

    kind: ClassVar[str] = "at_least"
    value: int

    def __post_init__(self) -> None:
        check_widths("at_least", self.value)


Width = int | Fixed | AtLeast
Repeats = int | Fixed


def paper_width(width: Width) -> int:
    """The unscaled number of channels."""
    return width if isinstance(width, int) else width.value


def round_channels(width: float, *, multiple: int = 8) -> int:
    """The nearest multiple (at least one), raised when rounding down would lose more than a tenth of `width`."""
    rounded = max(multiple, int(width + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * width else rounded


def scaled_width(width: Width, multiplier: float, *, groups: int = 1) -> int:
    """A width under a multiplier; grouped widths stay multiples of the groups."""
    value = paper_width(width)
    if isinstance(width, Fixed) or multiplier == 1.0 or (isinstance(width, AtLeast) and multiplier < 1.0):
        return value
    return round_channels(value * multiplier, multiple=math.lcm(8, groups))
