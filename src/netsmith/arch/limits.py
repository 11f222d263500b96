"""Limits that every record keeps: a document may come from outside, and what it asks for is built and allocated."""

import math
import re

from netsmith.errors import InputError

MAX_WIDTH = 1 << 17
MAX_KERNEL = 255
MAX_STRIDE = 64
MAX_BLOCKS = 4096
MAX_NAME = 200
MAX_SIDE = 1 << 16

_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def check_widths(where: str, *widths: int | None) -> None:
    """Refuse widths that no network has; None stands for a layer that is absent."""
    for width in widths:
        if width is not None and not 1 <= width <= MAX_WIDTH:
            raise InputError(f"{where}: a width of {width} is outside 1..{MAX_WIDTH}")


def check_window(where: str, *, kernel: int, stride: int) -> None:
    """Refuse kernels that are even (half of them as padding would not keep the map's size) or that no network has."""
    if not (1 <= kernel <= MAX_KERNEL and kernel % 2):
        raise InputError(f"{where}: a kernel of {kernel} is not an odd number in 1..{MAX_KERNEL}")
    if not 1 <= stride <= MAX_STRIDE:
        raise InputError(f"{where}: a stride of {stride} is outside 1..{MAX_STRIDE}")


def check_name(name: str) -> None:
    """Refuse names that cannot prefix a parameter: words of letters, digits and underscores joined by dots."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InputError(f"{name[:MAX_NAME]!r} cannot name a layer; use words of letters, digits and _ joined by dots")


def check_rate(what: str, rate: float) -> None:
    """Refuse a dropping rate outside [0, 1)."""
    if not 0.0 <= rate < 1.0:
        raise InputError(f"{what} is {rate:g}; it must be at least 0 and below 1")


def check_norm(eps: float, momentum: float) -> None:
    """Refuse batch norm constants that divide by zero or do not average."""
    if not (eps > 0.0 and math.isfinite(eps)) or not 0.0 <= momentum <= 1.0:
        raise InputError(f"norm_eps is {eps:g} and norm_momentum {momentum:g}; they must be above 0 and within 0..1")
