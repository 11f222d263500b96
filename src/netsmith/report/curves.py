"""Learning curves: of one run, with what happened to it on the way, and of several in one picture.

What is seen in training is augmented and answered by a network that still changes, so its accuracy usually lies below
that of validation; the one point at the end is a sample of training pictures as they are, which can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from netsmith.errors import InputError
from netsmith.report.charts import Series, lines, stacked, standalone
from netsmith.report.evidence import Evidence, Mark
from netsmith.report.markup import Markup, visible
from netsmith.report.wording import brief
from netsmith.run.files import FULL_DISK, write_text
from netsmith.run.gradients import GradientRow
from netsmith.run.metrics import wilson
from netsmith.run.scores import METRIC_NAMES

MOST_RUNS = 6  # that colours can tell apart
MOST_POINTS = 600  # of a line
_SIGNATURE = "<!-- learning curves by netsmith -->"


@dataclass(frozen=True)
class Curve:
    """What a run recorded of its training.

    Attributes:
        name: of the run.
        marks: rows of metrics, at least one.
        gradients: rows of gradients, possibly none.
        pictures: validation pictures, None where no file says.
        events: (step, what happened).
        metric: what answers are judged by, in words.
    """

    name: str
    marks: tuple[Mark, ...]
    gradients: tuple[GradientRow, ...]
    pictures: int | None
    events: tuple[tuple[int, str], ...]
    metric: str

    @property
    def in_epochs(self) -> bool:
        """Whether every row says how many passes over the pictures were made."""
        return all(mark.epoch is not None for mark in self.marks)

    def at(self, mark: Mark, *, epochs: bool) -> float:
        """Where a row stands."""
        return mark.epoch if epochs and mark.epoch is not None else 100 * mark.progress

    def at_step(self, step: int, *, epochs: bool) -> float:
        """Where a step stands: by proportion from the row that follows it, or else from the last."""
        row = next((mark for mark in self.marks if mark.step >= step and mark.step), self.marks[-1])
        return self.at(row, epochs=epochs) * min(step, row.step) / row.step if row.step else 0.0


def curve_of(evidence: Evidence, *, pictures: int | None) -> Curve | None:
    """The curves of a run, or None where it recorded none.

    Args:
        evidence: of the run.
        pictures: validation pictures, where a file says.
    """
    if not evidence.marks:
        return None
    own = evidence.marks_of is None and evidence.command[:1] != ["fit"]  # a fit's plan is not that of its winner
    return Curve(
        name=visible(evidence.path.resolve().name),
        marks=evidence.marks,
        gradients=evidence.gradients,
        pictures=pictures
        if evidence.metric == "top1"
        else None,  # the interval of mAP does not follow from their number
        metric=METRIC_NAMES[evidence.metric],
        events=_events(evidence if own else None, evidence.marks),
    )


def _events(evidence: Evidence | None, marks: Sequence[Mark]) -> tuple[tuple[int, str], ...]:
    """What happened on the way: memory that ran out, a loss that was not finite, pictures of another side."""
    events: list[tuple[int, str]] = []
    for row in evidence.plan if evidence is not None else ():
        if row.kind == "grad_accum":
            events.append((row.at, f"memory: {brief(row.value, longest=20)} parts"))
        elif row.kind == "lr_factor":
            events.append((row.at, f"rewound, rate × {brief(row.value, longest=20)}"))
    for before, after in pairwise(mark for mark in marks if mark.side is not None):
        if before.side != after.side:
            events.append((before.step, f"{before.side} → {after.side} pixels"))
    return tuple(sorted(events))


def charts(curves: Sequence[Curve], *, prefix: str = "") -> list[Markup]:
    """Loss, top-1, learning rate, norm of the gradient, gradients by depth: those that were recorded.

    Args:
        curves: one or more; of one also what happened on the way is drawn.
        prefix: of the charts' names, which are unique on a page.
    """
    epochs = all(curve.in_epochs for curve in curves)
    first, alone = curves[0], len(curves) == 1
    events = [(first.at_step(step, epochs=epochs), what) for step, what in first.events] if alone else []
    who = "the training" if alone else ", ".join(curve.name for curve in curves)
    rows = [
        ("loss", "loss", _pairs(curves, epochs, lambda mark: mark.loss, _val_loss)),
        (
            "top1",
            f"{first.metric}, %",
            _pairs(curves, epochs, lambda mark: mark.top1, _val_score) + _samples(curves, epochs),
        ),
        ("rate", "learning rate", _each(curves, epochs, lambda mark: mark.lr)),
        ("norm", "norm of the gradient", _each(curves, epochs, lambda mark: mark.grad_norm or None)),
    ]
    drawn = [
        lines(
            series,
            name=f"{prefix}{name}",
            across="epoch" if epochs else "progress, %",
            label=label,
            about=f"{label} of {who}",
            share=name == "top1",
            log_y=name == "norm",
            within=_bearable(series) if name == "loss" else None,
            events=events,
        )
        for name, label, series in rows
        if series
    ]
    depth = by_depth(curves, name=f"{prefix}depth")
    return drawn if depth is None else [*drawn, depth]


Value = Callable[[Mark], float | None]


def _bearable(series: Sequence[Series]) -> tuple[float, float] | None:
    """Bounds for losses of which a few would flatten all others, such as those of early validations whose batch norm
    had not settled; their lines leave the chart."""
    usual = 1.2 * max(
        sorted(line.y)[int(0.9 * (len(line.y) - 1))] if len(line.y) > 9 else line.y[-1] for line in series
    )
    highest, lowest = max(max(line.y) for line in series), min(min(line.y) for line in series)
    return (min(0.0, lowest), usual) if highest > 3 * usual > 0 else None


def _val_loss(mark: Mark) -> float | None:
    return mark.val.loss if mark.val is not None else None


def _val_score(mark: Mark) -> float | None:
    return mark.val.score if mark.val is not None else None


def _points(curve: Curve, epochs: bool, value: Value) -> list[tuple[float, float]]:
    found = ((curve.at(mark, epochs=epochs), value(mark)) for mark in curve.marks)
    points = [(at, each) for at, each in found if each is not None]
    return points[:: -(-len(points) // MOST_POINTS) or 1]


def _pairs(curves: Sequence[Curve], epochs: bool, training: Value, validation: Value) -> list[Series]:
    """Training and validation in two colours; of several runs each has a colour, and its training is broken."""
    series: list[Series] = []
    alone = len(curves) == 1
    for number, curve in enumerate(curves):
        own, val = (_points(curve, epochs, value) for value in (training, validation))
        n = curve.pictures if alone and validation is _val_score else None
        bounds = [wilson(round(y * n), n) for _, y in val] if n else []
        if own:
            title = "training" if alone else "" if val else curve.name
            series.append(_series(title, own, colour=1 if alone else number, dashed=not alone))
        if val:
            title = "validation" if alone else curve.name
            series.append(
                replace(
                    _series(title, val, colour=0 if alone else number),
                    low=[each.low for each in bounds],
                    high=[each.high for each in bounds],
                    dots=not bounds and len(val) < 40,
                )
            )
    return series


def _each(curves: Sequence[Curve], epochs: bool, value: Value) -> list[Series]:
    found = ((number, curve, _points(curve, epochs, value)) for number, curve in enumerate(curves))
    return [
        _series("" if len(curves) == 1 else curve.name, points, colour=number)
        for number, curve, points in found
        if points
    ]


def _samples(curves: Sequence[Curve], epochs: bool) -> list[Series]:
    """Of one run: its training pictures as they are, answered at the end."""
    if len(curves) > 1:
        return []
    points = _points(curves[0], epochs, lambda mark: mark.train.top1 if mark.train is not None else None)
    return [replace(_series("training, as they are", points, colour=2), dots=True)] if points else []


def _series(title: str, points: Sequence[tuple[float, float]], *, colour: int, dashed: bool = False) -> Series:
    return Series(title=title, x=[x for x, _ in points], y=[y for _, y in points], colour=colour, dashed=dashed)


def by_depth(curves: Sequence[Curve], *, name: str) -> Markup | None:
    """Gradients against their weights from the first layer to the last: of one run at its beginning, on its way and at
    its end, of several one line each, of the moment nearest to a tenth of the training; None where none are recorded.

    Args:
        curves: one or more.
        name: of the chart.
    """
    chosen: list[tuple[str, GradientRow]] = []
    for curve in curves:
        if not (rows := curve.gradients):
            continue
        if len(curves) > 1:
            chosen.append((curve.name, min(rows, key=lambda row: abs(row.progress - 0.1))))
        else:
            some = {row.step: row for row in (rows[0], rows[len(rows) // 2], rows[-1])}
            chosen += [(f"step {step:,}", row) for step, row in some.items()]
    series: list[Series] = []
    for number, (title, row) in enumerate(chosen):
        shares = ((place, layer.share) for place, layer in enumerate(row.layers, start=1))
        if points := [(float(place), share) for place, share in shares if share is not None]:
            series.append(_series(title, points, colour=number))
    if not series:
        return None
    return lines(
        series,
        name=name,
        across="layer, from the picture to the classifier",
        label="gradient / weight",
        about="Norm of each layer's gradient against that of its weights, by depth",
        log_y=True,
    )


def write_curves(curves: Sequence[Curve], path: Path) -> None:
    """Write the curves of one run or several as one SVG; an earlier one is replaced, another file is not.

    Args:
        curves: 1 to `MOST_RUNS`.
        path: of the file.

    Raises:
        InputError: too many runs, runs judged by different numbers, or `path` is a folder, another file, or cannot
            be written.
    """
    if len(curves) > MOST_RUNS:
        raise InputError(f"{len(curves)} runs cannot be told apart in one picture; name at most {MOST_RUNS}")
    if len({curve.metric for curve in curves}) > 1:
        raise InputError("top-1 and mAP do not belong on one scale; name runs that are judged alike")
    about = f"Learning curves of {', '.join(curve.name for curve in curves)}"
    svg = standalone(stacked(charts(curves), about=about))
    try:
        if path.exists() and not _is_ours(path):
            raise InputError(f"{path} exists and holds no learning curves of netsmith; name another file with -o")
        write_text(path, f"{svg.rstrip()}\n{_SIGNATURE}\n")
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise InputError(f"{path} cannot be written ({error.strerror}); name another file with -o") from error


def _is_ours(path: Path) -> bool:
    return path.is_file() and _SIGNATURE in path.read_bytes()[-200:].decode(errors="replace")
