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


def check_window(
    where: str, *, kernel: int | tuple[int, ...], stride: int,
    padding: int | tuple[tuple[int, int], ...] | str = "half",
) -> None:  # fmt: skip
    """Refuse windows that no network has, and even kernels padded by half, which would not keep the map's size."""
    for side in (kernel,) if isinstance(kernel, int) else kernel:
        if not (1 <= side <= MAX_KERNEL and (side % 2 or padding != "half")):
            odd = "an odd number in " if padding == "half" else "in "
            raise InputError(f"{where}: a kernel of {side} is not {odd}1..{MAX_KERNEL}")
    pairs = ((padding, padding),) if isinstance(padding, int) else () if isinstance(padding, str) else padding
    if not all(0 <= side <= MAX_KERNEL for pair in pairs for side in pair):
        raise InputError(f"{where}: a padding is outside 0..{MAX_KERNEL}")
    if not 1 <= stride <= MAX_STRIDE:
        raise InputError(f"{where}: a stride of {stride} is outside 1..{MAX_STRIDE}")


def check_name(name: str) -> None:
    """Refuse names that cannot prefix a parameter: words of letters, digits and underscores joined by dots."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InputError(f"{name[:MAX_NAME]!r} cannot name a layer; use words of letters, digits and _ joined by dots")


def check_template(what: str, template: str, fields: tuple[str, ...]) -> None:
    """Only the fields by name and nothing of the format language: the template may come from outside."""
    known = "|".join(fields)
    if len(template) > MAX_NAME or not re.fullmatch(rf"([A-Za-z0-9_.]|\{{({known})\}})+", template):
        shown = ", ".join(f"{{{field}}}" for field in fields)
        raise InputError(f"{what} is {template[:MAX_NAME]!r}; write letters, digits, _, dots and {shown}")


def check_rate(what: str, rate: float) -> None:
    """Refuse a dropping rate outside [0, 1)."""
    if not 0.0 <= rate < 1.0:
        raise InputError(f"{what} is {rate:g}; it must be at least 0 and below 1")


def check_share(where: str, what: str, share: float | None) -> None:
    """Refuse a share outside (0, 1]; None stands for what is absent."""
    if share is not None and not 0.0 < share <= 1.0:
        raise InputError(f"{where}: {what} is {share:g}; it must be above 0 and at most 1, or absent")


def check_norm(eps: float, momentum: float) -> None:
    """Refuse batch norm constants that divide by zero or do not average."""
    if not (eps > 0.0 and math.isfinite(eps)) or not 0.0 <= momentum <= 1.0:
        raise InputError(f"norm_eps is {eps:g} and norm_momentum {momentum:g}; they must be above 0 and within 0..1")
