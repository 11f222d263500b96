"""Canvas: the few shapes of a network's picture, collected as SVG with how far they reach."""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Literal

from netsmith.report.markup import Markup, raw, tag, visible

Point = tuple[float, float]

_CSS = """
.net { --page: #fff; --card: #f6f7f9; --ink: #1b1f24; --muted: #5b6470; --line: #c9ced6; --flow: #7b8592;
  --conv: #9cc4f2; --pool: #a9dcb8; --linear: #f0c191; --join: #d3c3f1; --other: #dfe3e8; --block: #5f9fe6; --on: #fff;
  font-family: "Segoe UI", Roboto, Helvetica, Arial, "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  .net { --page: #14171b; --card: #1c2127; --ink: #e7eaee; --muted: #9ba5b1; --line: #3b434d; --flow: #8792a0;
    --conv: #24527f; --pool: #24573a; --linear: #70491d; --join: #4d3f77; --other: #3a424c; --block: #3f7cc0; }
}
.net .page { fill: var(--page); } .net .card { fill: var(--card); stroke: var(--line); }
.net .ink { fill: var(--ink); } .net .muted { fill: var(--muted); } .net .title { fill: var(--ink); }
.net .conv { fill: var(--conv); } .net .pool { fill: var(--pool); } .net .linear { fill: var(--linear); }
.net .join { fill: var(--join); } .net .other { fill: var(--other); } .net .block { fill: var(--block); }
.net .aside { stroke-dasharray: 3 3; } .net .map.aside { stroke: var(--muted); }
.net .badge { fill: var(--ink); } .net .letter { fill: var(--page); }
.net .pill { fill: var(--page); stroke: var(--line); }
.net .flow { fill: none; stroke: var(--flow); stroke-width: 1.5; } .net .head { fill: var(--flow); }
.net .bracket { fill: none; stroke: var(--line); stroke-width: 1.5; }
"""
_CORNER = 8.0
_HEAD = 6.0  # length of an arrow's head

# Widths of DejaVu Sans in ems, rounded up; letters that are not listed are as wide as any.
_EMS = {
    **dict.fromkeys("ijlI|'", 0.3), **dict.fromkeys(" ,.:;/\\!", 0.34), **dict.fromkeys("frt()[]-", 0.42),
    **dict.fromkeys("cksvxyzJ?_", 0.6), **dict.fromkeys("abdeghnopqu0123456789TLFS", 0.64),
    **dict.fromkeys("ABCEGKPRVXYZ", 0.73), **dict.fromkeys("DHNOQU→×+=<>~", 0.84), **dict.fromkeys("mwM@%W", 1.0),
}  # fmt: skip


def text_width(content: str, size: float, *, bold: bool = False) -> float:
    """How wide a text may get, pixels."""
    return size * (1.14 if bold else 1.0) * sum(_EMS.get(letter, 1.05) for letter in visible(content))


class Canvas:
    """Shapes in the order they are drawn; later ones cover earlier ones."""

    def __init__(self) -> None:
        self._shapes: list[Markup] = []
        self._right = self._bottom = 0.0
        self._reach: dict[str, float] = {}
        self._groups: list[str] = []

    @contextmanager
    def group(self, kind: str, **data: int) -> Generator[None]:
        """Shapes that belong together; `data` becomes data attributes."""
        outside, self._shapes = self._shapes, []
        self._groups.append(kind)
        yield
        self._groups.pop()
        attributes = {f"data_{key}": value for key, value in data.items()}
        self._shapes, inside = outside, self._shapes
        self._shapes.append(tag("g", *inside, class_=kind, **attributes))

    def text(
        self, x: float, y: float, content: str, kind: str, *, size: float, bold: bool = False,
        anchor: Literal["start", "middle", "end"] = "start",
    ) -> None:  # fmt: skip
        """A line of text whose baseline is at y."""
        width = text_width(content, size, bold=bold)
        self._reached(x + width * {"start": 1.0, "middle": 0.5, "end": 0.0}[anchor], y + 0.3 * size)
        self._shapes.append(
            tag(
                "text",
                content,
                x=_number(x),
                y=_number(y),
                class_=kind,
                font_size=_number(size),
                font_weight="600" if bold else None,
                text_anchor=None if anchor == "start" else anchor,
            )
        )

    def box(self, x: float, y: float, width: float, height: float, kind: str, *, corner: float = 4) -> None:
        """A rectangle with its upper left corner at x, y."""
        self._reached(x + width, y + height)
        self._shapes.append(
            tag(
                "rect",
                x=_number(x),
                y=_number(y),
                width=_number(width),
                height=_number(height),
                rx=_number(corner),
                class_=kind,
            )
        )

    def circle(self, x: float, y: float, radius: float, kind: str) -> None:
        """A circle around x, y."""
        self._reached(x + radius, y + radius)
        self._shapes.append(tag("circle", cx=_number(x), cy=_number(y), r=_number(radius), class_=kind))

    def badge(self, x: float, y: float, letter: str) -> None:
        """A letter on a disc whose left end is at x, its middle at y."""
        self.circle(x + 8, y, 8, "badge")
        self.text(x + 8, y + 4, letter, "letter", size=11 if len(letter) == 1 else 8, bold=True, anchor="middle")

    def pill(self, x: float, y: float, content: str) -> None:
        """A text in a rounded frame, its middle at x, its upper side at y; 20 high."""
        width = text_width(content, 11) + 16
        self.box(x - width / 2, y, width, 20, "pill", corner=10)
        self.text(x, y + 14, content, "muted", size=11, anchor="middle")

    def line(self, points: Sequence[Point], kind: str, *, arrow: bool = False) -> None:
        """A line over points, with round corners; with a head at its end when `arrow`."""
        points = [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
        for x, y in points:
            self._reached(x, y)
        (fx, fy), (ex, ey) = points[-2:]
        length = math.dist((fx, fy), (ex, ey))
        ux, uy = (ex - fx) / length, (ey - fy) / length
        tip = (ex, ey)
        if arrow:
            points[-1] = (ex - ux * _HEAD, ey - uy * _HEAD)
        path = f"M{_at(points[0])}"
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            path += f"L{_at(_towards(corner, before))}Q{_at(corner)} {_at(_towards(corner, after))}"
        self._shapes.append(tag("path", d=f"{path}L{_at(points[-1])}", class_=kind))
        if arrow:
            bx, by = points[-1]
            wings = (tip, (bx - uy * 3.5, by + ux * 3.5), (bx + uy * 3.5, by - ux * 3.5))
            self._shapes.append(tag("path", d="M" + "L".join(map(_at, wings)) + "Z", class_="head"))

    def right_of(self, kind: str) -> float:
        """How far to the right groups of a kind reach."""
        return self._reach.get(kind, 0.0)

    def document(self, *, title: str, about: str, margin: float) -> Markup:
        """The whole picture.

        Args:
            title, about: for those who cannot see it.
            margin: right of and below what is drawn.
        """
        width, height = _number(self._right + margin), _number(self._bottom + margin)
        page = tag("rect", width=width, height=height, rx="8", class_="page")
        lines = (tag("title", title, id="net-title"), tag("desc", about, id="net-about"), tag("style", raw(_CSS)), page)
        content = "".join(f"\n{line}" for line in (*lines, *self._shapes))
        return tag(
            "svg", raw(f"{content}\n"), xmlns="http://www.w3.org/2000/svg", width=width, height=height,
            viewBox=f"0 0 {width} {height}", class_="net", role="img", aria_labelledby="net-title net-about",
        )  # fmt: skip

    def _reached(self, x: float, y: float) -> None:
        self._right, self._bottom = max(self._right, x), max(self._bottom, y)
        for kind in self._groups:
            self._reach[kind] = max(self._reach.get(kind, 0.0), x)


def _towards(corner: Point, other: Point) -> Point:
    """The point where a line to `other` leaves the round corner."""
    distance = math.dist(corner, other)
    share = min(_CORNER, distance / 2) / distance
    return corner[0] + (other[0] - corner[0]) * share, corner[1] + (other[1] - corner[1]) * share


def _at(point: Point) -> str:
    return f"{_number(point[0])},{_number(point[1])}"


def _number(value: float) -> str:
    return f"{round(value, 1):g}"
