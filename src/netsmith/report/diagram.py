"""The picture of a network: an SVG drawn from its layout, without torch and without any library.

Deliberate choices: the data flows down a column of maps, as wide as a map's side and as thick as its channels, both on
a logarithmic scale, so that 3 channels and 2048 can be told apart; beside it every form of block is opened up
once. The picture brings its own background and follows the reader's light or dark setting; letters are
measured as those of DejaVu Sans, among the widest that a browser may take, so text fits in other fonts too. The same
layout gives the same bytes.
"""

import math
from dataclasses import dataclass

from netsmith.arch import graph as g
from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.report.canvas import Canvas, text_width
from netsmith.report.flow import draw_path, path_extent
from netsmith.report.markup import Markup, visible
from netsmith.report.outline import Form, Outline, Row, outline

_MARGIN = 24
_TOP = 92  # first row, below title and subtitle
_AXIS = 158  # where the data flows down
_BRACKET = 88
_TEXT = 234
_ASIDE, _ASIDE_TEXT = 38, 26  # how far classifiers for training stand aside
_ROW, _GAP = 34, 16
_PANEL = 640  # the forms beside the column are as wide as this, or as the widest of them
_CARD, _BETWEEN = 16, 20
_LONGEST = 64  # letters of a network's name


def network_svg(layout: Layout) -> Markup:
    """The picture of a network as a whole SVG document.

    Args:
        layout: any layout; equal neighbours are folded, so depth costs no space.

    Returns:
        SVG text; groups of class `row` carry `data-blocks` and `data-ops`, how much of the network they stand for.
    """
    shown, spent = outline(layout), cost(layout)
    name = visible(layout.name)
    name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    numbers = (
        f"{_shape((layout.input.channels, *layout.resolution))} in, {layout.num_classes:,} classes, "
        f"{spent.params:,} parameters, {spent.macs:,} MACs"
    )
    canvas = Canvas()
    canvas.text(_MARGIN, 38, name, "title", size=20, bold=True)
    canvas.text(_MARGIN, 60, numbers, "muted", size=12)
    bottom = _column(canvas, layout, shown)
    left = max(canvas.right_of("row"), _TEXT) + 36
    _forms(canvas, shown.forms, left)
    note = "maps: width is the side, thickness the channels, both logarithmic"
    canvas.text(_MARGIN, bottom + 30, note, "muted", size=11)
    return canvas.document(title=f"{name}, drawn from its graph", about=_about(layout, shown, numbers), margin=_MARGIN)


def _column(canvas: Canvas, layout: Layout, shown: Outline) -> float:
    """Maps from the input to the logits; how far down they reach."""
    y = float(_TOP)
    entry = (layout.input.channels, *layout.resolution)
    through = _map(canvas, entry, "other", _AXIS, y + (_ROW - _thickness(entry[0])) / 2)
    _label(canvas, _TEXT, y + _ROW / 2, "input", _shape(entry))
    y += _ROW
    beside = through  # where a classifier for training has come to
    spans: list[tuple[str, float, float]] = []
    for row in shown.rows:
        thickness = _thickness(row.shape[0])
        height = max(_ROW, thickness)
        top = y + _GAP
        axis = _AXIS + (_ASIDE if row.aside else 0)
        with canvas.group("row", blocks=row.blocks, ops=row.ops):
            at = top + (height - thickness) / 2
            if not row.aside:
                canvas.line([(_AXIS, through), (_AXIS, at)], "flow", arrow=True)
                through = at + thickness
            else:
                begins = not spans or spans[-1][0] != row.stage
                start = [(_AXIS, through + 7), (axis, through + 7)] if begins else [(axis, beside)]
                canvas.line([*start, (axis, at)], "flow aside", arrow=True)
                beside = at + thickness
            _map(canvas, row.shape, row.role, axis, at, aside=row.aside)
            x = _TEXT + (_ASIDE_TEXT if row.aside else 0)
            if row.form is not None:
                canvas.badge(x, top + height / 2 - 5, _letter(row.form))
                x += 22
            given = f"{row.shape[0]:,} logits" if row is shown.rows[-1] else _shape(row.shape)
            _label(canvas, x, top + height / 2, _repeated(row), given)
        y = top + height
        if spans and spans[-1][0] == row.stage:
            spans[-1] = (row.stage, spans[-1][1], y)
        else:
            spans.append((row.stage, top, y))
    for stage, top, end in spans:
        canvas.line([(_BRACKET + 4, top), (_BRACKET, top), (_BRACKET, end), (_BRACKET + 4, end)], "bracket")
        canvas.text(_BRACKET - 8, (top + end) / 2 + 4, stage, "ink", size=12, anchor="end")
    return y


def _label(canvas: Canvas, x: float, middle: float, title: str, under: str) -> None:
    canvas.text(x, middle - 1, title, "ink", size=13, bold=True)
    canvas.text(x, middle + 14, under, "muted", size=11)


def _repeated(row: Row) -> str:
    return f"{row.repeats} × {row.title}" if row.repeats > 1 else row.title


def _map(canvas: Canvas, shape: g.Shape, role: str, axis: float, top: float, *, aside: bool = False) -> float:
    """One map; how far down it reaches."""
    side = math.prod(shape[1:]) ** (1 / max(1, len(shape) - 1))
    width, thickness = 12 + 11 * math.log2(max(1.0, side)), _thickness(shape[0])
    canvas.box(axis - width / 2, top, width, thickness, f"map {role}{' aside' if aside else ''}")
    return top + thickness


def _thickness(channels: int) -> float:
    return 8 + 2.6 * math.log2(channels)


def _forms(canvas: Canvas, forms: tuple[Form, ...], left: float) -> None:
    """Each form of block opened up, in rows from left to right."""
    cards = [_Card.of(i, form) for i, form in enumerate(forms)]
    widest = max((card.width for card in cards), default=0.0)
    x, y, tallest = left, float(_TOP), 0.0
    for card in cards:
        if x > left and x + card.width > left + max(_PANEL, widest):
            x, y, tallest = left, y + tallest + _BETWEEN, 0.0
        card.draw(canvas, x, y)
        x += card.width + _BETWEEN
        tallest = max(tallest, card.height)


@dataclass(frozen=True, kw_only=True)
class _Card:
    """A form with its place reserved."""

    form: Form
    letter: str
    title: str
    under: str
    left: float
    right: float
    height: float

    @property
    def width(self) -> float:
        """Of the whole card."""
        return self.left + self.right

    @classmethod
    def of(cls, index: int, form: Form) -> "_Card":
        under = f"as in {form.name}" + (f", {form.blocks} in all" if form.blocks > 1 else "")
        left, right, height = path_extent(form.path)
        ends = max(text_width(_shape(shape), 11) for shape in (form.source, form.shape)) / 2 + 8
        left, right = max(left, ends) + _CARD, max(right, ends) + _CARD
        head = max(text_width(form.kind, 13, bold=True) + 22, text_width(under, 11)) + 2 * _CARD
        more = max(0.0, head - left - right) / 2
        return cls(
            form=form, letter=_letter(index), title=form.kind, under=under,
            left=left + more, right=right + more, height=height + 138,
        )  # fmt: skip

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw it with its upper left corner at x, y."""
        with canvas.group("form"):
            canvas.box(x, y, self.width, self.height, "card")
            canvas.badge(x + _CARD, y + 21, self.letter)
            canvas.text(x + _CARD + 22, y + 25, self.title, "ink", size=13, bold=True)
            canvas.text(x + _CARD, y + 43, self.under, "muted", size=11)
            axis = x + self.left
            canvas.pill(axis, y + 56, _shape(self.form.source))
            end = draw_path(canvas, self.form.path, axis, y + 92, begin=y + 76)
            canvas.line([(axis, end), (axis, end + 14)], "flow", arrow=True)
            canvas.pill(axis, end + 14, _shape(self.form.shape))


def _letter(index: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    return (_letter(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def _shape(shape: g.Shape) -> str:
    """Positions and channels in words."""
    channels, *sides = shape
    if math.prod(sides) == 1:
        return f"{channels:,} numbers"
    return f"{'×'.join(map(str, sides))}, {channels:,} channel{'s' if channels > 1 else ''}"


def _about(layout: Layout, shown: Outline, numbers: str) -> str:
    """The picture in words."""
    rows = (
        f"{row.stage}: {_repeated(row)} to {_shape(row.shape)}{' (for training only)' if row.aside else ''}"
        for row in shown.rows
    )
    return f"{layout.family} network; {numbers}. From input to logits: {'; '.join(rows)}."
