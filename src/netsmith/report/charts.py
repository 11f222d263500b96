"""The report's charts: matplotlib figures as inline SVG that takes its colours and its font from the page.

Figures are drawn without pyplot, in stand-in colours that are then replaced by the page's CSS variables, so one chart
serves light, dark and print; `standalone` makes it a file of its own. Text stays text. The same numbers give the same
bytes: no dates, a fixed salt for ids.
matplotlib takes most of a second to import, hence inside the functions.
"""

import io
import logging
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsmith.report.markup import Markup, escape, raw, tag
from netsmith.report.style import COLOURS
from netsmith.report.wording import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _ROW, _LEGEND, _DPI = 460, 270, 26, 36, 72  # CSS pixels; an SVG from matplotlib has 72 points an inch
_INK, _MUTED, _LINE, _ACCENT, _SECOND, _LIMIT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_GOOD = "#070707"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _ACCENT: "var(--accent)",
    _SECOND: "var(--second)",
    _LIMIT: "var(--bad)",
    _GOOD: "var(--good)",
}
_COLOURS = (_ACCENT, _SECOND, _GOOD, _LIMIT, _INK, _MUTED)
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate in the chart of accuracy against latency.

    Attributes:
        label: its number in the table.
        x: latency, ms, > 0.
        y, low, high: accuracy and its interval, shares of 1.
        chosen: whether it won.
        kept: whether it stayed in the race to the end.
    """

    label: str
    x: float
    y: float
    low: float
    high: float
    chosen: bool
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart.

    Attributes:
        title: what it is; "" is left out of the legend.
        x, y: place and value.
        low, high: bounds of each value, or empty.
        dots: mark every value.
        colour: number of its colour in `lines`; by default its place among the others.
        dashed: whether the line is broken, in `lines`.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dots: bool = False
    colour: int | None = None
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A row of a `forest`.

    Attributes:
        title: what it is.
        value, low, high: the number and its interval.
    """

    title: str
    value: float
    low: float
    high: float


def race_chart(points: Sequence[Point], *, limit_ms: float | None, metric: str = "top-1") -> Markup:
    """Accuracy (`metric`) against latency of every candidate, with the budget's limit; at least one point."""
    with _axes("race") as (figure, axes):
        if limit_ms is not None:
            axes.axvline(limit_ms, color=_LIMIT, linewidth=1.2, linestyle=(0, (5, 3)))
            axes.annotate(
                "limit", (limit_ms, 1), xycoords=("data", "axes fraction"), xytext=(-4, -10),
                textcoords="offset points", color=_LIMIT, ha="right",
            )  # fmt: skip
        for turn, point in enumerate(points):
            side = -1 if turn % 2 else 1  # labels of neighbours in accuracy go to different sides
            colour = _ACCENT if point.chosen else _INK if point.kept else _MUTED
            spread = [[100 * (point.y - point.low)], [100 * (point.high - point.y)]]
            axes.errorbar([point.x], [100 * point.y], yerr=spread, color=colour, linewidth=1, alpha=0.55)
            axes.plot(
                [point.x], [100 * point.y], "o", color=colour, markersize=8 if point.chosen else 5,
                markerfacecolor=colour if point.chosen or point.kept else "none",
            )  # fmt: skip
            axes.annotate(
                point.label, (point.x, 100 * point.y), xytext=(side * 6, 4), textcoords="offset points", color=colour,
                weight="bold" if point.chosen else "normal", ha="left" if side > 0 else "right", parse_math=False,
            )  # fmt: skip
        shown = [point.x for point in points] + ([limit_ms] if limit_ms is not None else [])
        if max(shown) > 8 * min(shown):
            axes.set_xscale("log")
        else:
            margin = 0.08 * max(shown)
            axes.set_xlim(max(0.0, min(shown) - margin), max(shown) + margin)
        _plain_ticks(axes.xaxis)
        axes.set_xlabel("latency, ms")
        axes.set_ylabel(f"validation {metric}, %")
        return _svg(figure, "Accuracy against latency of the candidates")


def lines(
    series: Sequence[Series],
    *,
    name: str,
    across: str,
    label: str,
    about: str,
    share: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    within: tuple[float, float] | None = None,
    events: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Values over anything.

    Args:
        series: at least one; those with `low` and `high` get a band, or bars where they have dots.
        name: of the chart, unique on the page.
        across, label: of the places and of the values, with their units.
        about: the chart in words, for those who cannot see it.
        share: the values are shares of 1, shown in percent.
        log_x, log_y: whether an axis is logarithmic; its numbers must then be above 0.
        within: bounds of the axis of the values, for charts to be compared; by default as far as they reach.
        events: places at which something happened, and what; drawn as lines across.
    """
    factor = 100.0 if share else 1.0
    with _axes(name, height=_HEIGHT + _LEGEND) as (figure, axes):
        from matplotlib.ticker import MaxNLocator

        for place, line in enumerate(series):
            number = place if line.colour is None else line.colour
            colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
            y, low, high = ([factor * value for value in values] for values in (line.y, line.low, line.high))
            if low and line.dots:
                reach = [[a - b for a, b in zip(y, low, strict=True)], [a - b for a, b in zip(high, y, strict=True)]]
                axes.errorbar(line.x, y, yerr=reach, color=colour, linewidth=0, elinewidth=1, alpha=0.55)
            elif low:
                axes.fill_between(line.x, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(
                line.x, y, color=colour, linewidth=1.6, linestyle=(0, (4, 2)) if line.dashed else "solid",
                marker=marker if line.dots or len(line.x) == 1 else "", markersize=4.5,
                label=_label(line.title),
                markerfacecolor="none" if line.dashed else colour,
            )  # fmt: skip
        if log_x:
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis)
        elif all(float(at).is_integer() for line in series for at in line.x):
            axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
        if log_y:
            axes.set_yscale("log")
            values = [value for line in series for value in line.y]
            if max(values) < 30 * min(values):  # powers of ten alone would be one tick or two
                _plain_ticks(axes.yaxis)
        for at, what in events:
            axes.axvline(at, color=_MUTED, linewidth=1, linestyle=(0, (1, 2)))
            axes.annotate(
                what, (at, 1), xycoords=("data", "axes fraction"), xytext=(3, -3), textcoords="offset points",
                color=_MUTED, fontsize=8, rotation=90, ha="left", va="top", parse_math=False,
            )  # fmt: skip
        if within:
            axes.set_ylim(factor * within[0], factor * within[1])
        axes.set_xlabel(across)
        axes.set_ylabel(label)
        if named := sum(bool(line.title) for line in series):
            # Above the lines, where it hides none; filled by columns, so that pairs stand one above the other.
            legend = figure.legend(
                loc="outside upper left", ncols=-(-named // 2) if named > 3 else named, frameon=False,
                labelcolor=_INK, fontsize=9, handlelength=2.6, columnspacing=1.4,
            )  # fmt: skip
            for text in legend.get_texts():  # names come from outside
                text.set_parse_math(False)
        return _svg(figure, about)


def _label(title: str) -> str:
    """A title for the legend; "_" is what has none, and matplotlib would leave out whatever begins so."""
    return f" {title}" if title.startswith("_") else title or "_"


def forest(rows: Sequence[Estimate], *, name: str, label: str, about: str, share: bool = False) -> Markup:
    """Numbers and their intervals in rows, against a line at 0: what an interval across it leaves open is seen at once.

    Args:
        rows: at least one, from the top.
        name: of the chart, unique on the page.
        label: of the numbers, with their unit.
        about: the chart in words, for those who cannot see it.
        share: the numbers are shares of 1, shown in percent.
    """
    factor = 100.0 if share else 1.0
    with _axes(name, height=_ROW * len(rows) + 66) as (figure, axes):
        axes.axvline(0, color=_MUTED, linewidth=1)
        for place, row in enumerate(rows):
            colour = _INK if row.low <= 0 <= row.high else _ACCENT
            axes.plot([factor * row.low, factor * row.high], [place, place], color=colour, linewidth=2, alpha=0.6)
            axes.plot([factor * row.value], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [row.title for row in rows], parse_math=False)
        axes.tick_params(axis="y", labelcolor=_INK, labelsize=10)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        return _svg(figure, about)


def stacked(charts: Sequence[Markup], *, about: str) -> Markup:
    """Charts one below the other as one; each needs a name of its own."""
    parts: list[str] = []
    top = 0
    for chart in charts:
        height = int(chart.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()[1])
        parts.append(chart.replace("<svg ", f'<svg y="{top}" width="{_WIDTH}" height="{height}" ', 1))
        top += height
    head = f'<svg class="chart" role="img" aria-label="{escape(about)}" viewBox="0 0 {_WIDTH} {top}">'
    return raw(f"{head}{''.join(parts)}</svg>")


def standalone(chart: Markup) -> str:
    """A chart as an SVG file that brings the report's colours, light and dark."""
    own = "svg { background: var(--page); font-family: system-ui, sans-serif; max-width: 60rem; }"
    head, rest = chart.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">' + (
        f"<style>{COLOURS}{own}</style>{rest}\n"
    )


def swatches(items: Iterable[tuple[str, str]]) -> Markup:
    """A legend in words: (CSS class, meaning) of each mark."""
    return tag(
        "p", *(tag("span", tag("i", class_=f"mark {kind}"), meaning) for kind, meaning in items), class_="legend"
    )


@contextmanager
def _axes(name: str, *, height: int = _HEIGHT) -> "Generator[tuple[Figure, Axes]]":
    """An empty chart in the page's stand-in colours, under matplotlib's own defaults whatever the user's settings."""
    # The one-time building of the font list is announced as a warning; text takes the page's font anyway.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"netsmith {name}",
        "font.size": 11,
        "font.family": "DejaVu Sans",  # ships with matplotlib; only its metrics are used
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _LINE,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "text.color": _INK,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI, layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.tick_params(length=0)
        yield figure, axes


def _plain_ticks(axis: "Axis") -> None:
    """Ticks as plain numbers, also where the axis is logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axis.get_scale() == "log":
        low, high = axis.get_data_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 7)))
        axis.set_minor_formatter(NullFormatter())

    def plain(value: float, position: int | None) -> str:
        return figures(value).rstrip("0").rstrip(".") if "." in figures(value) else figures(value)

    axis.set_major_formatter(FuncFormatter(plain))


def _svg(figure: "Figure", about: str) -> Markup:
    content = io.StringIO()
    height = round(figure.get_figheight() * _DPI)
    figure.savefig(content, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to them, and other charts of the page have the same
    svg = re.sub(r"font: (?:(\w+) )?([\d.]+)px [^;\"]*", _font, svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    attributes = f'<svg class="chart" role="img" aria-label="{escape(about)}" viewBox="0 0 {_WIDTH} {height}">'
    return raw(re.sub(r"^<svg.*?>", lambda _: attributes, svg, count=1, flags=re.DOTALL))


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"
