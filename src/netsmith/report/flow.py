"""Flow: where the steps of an opened block stand and how lines join them.

A path runs down an axis. The branches of a fork stand side by side: equals spread around the axis and meet in a bar;
companions (a shortcut, squeeze-excitation) run to the right of the main branch and come back into a circle on the axis.
"""

from netsmith.arch import graph as g
from netsmith.report.canvas import Canvas, Point, text_width
from netsmith.report.outline import Fork, Path, Step

_GAP = 16  # between steps, so that an arrow is seen
_FAN = 18  # where branches part and meet
_LANE = 14  # between branches
_RADIUS = 9
_LINE = 14  # height of a line of text

Extent = tuple[float, float, float]
"""How far something reaches to the left and right of its axis, and its height."""


def path_extent(path: Path) -> Extent:
    """Room that a path takes."""
    extents = [_fork_extent(item) if isinstance(item, Fork) else _step_extent(item) for item in path]
    left = max((extent[0] for extent in extents), default=8.0)
    right = max((extent[1] for extent in extents), default=8.0)
    return left, right, sum(extent[2] for extent in extents) + _GAP * max(0, len(path) - 1)


def draw_path(canvas: Canvas, path: Path, axis: float, top: float, *, begin: float) -> float:
    """Draw a path down its axis.

    Args:
        canvas: to draw on.
        path: what to draw, at least one step.
        axis, top: where its first step begins.
        begin: where the line into it begins.

    Returns:
        Where the last step ends.
    """
    [(_, end)] = _draw(canvas, path, axis, top, begin)
    return end


def _draw(canvas: Canvas, path: Path, axis: float, top: float, begin: float | None) -> list[Point]:
    """Draw a path; where its ends are. `begin` None: the line into it is drawn already."""
    ends: list[Point] = [(axis, top if begin is None else begin)]
    for item in path:
        if begin is not None:
            [(_, begin)] = ends
            canvas.line([(axis, begin), (axis, top)], "flow", arrow=isinstance(item, Step))
        begin = top
        if isinstance(item, Step):
            _draw_step(canvas, item, axis, top)
            top += _step_extent(item)[2]
            ends = [(axis, top)]
        else:
            ends = _draw_fork(canvas, item, axis, top)
            top += _fork_extent(item)[2]
        top += _GAP
    return ends


def _lines(step: Step) -> list[tuple[str, float, bool]]:
    """Texts of a step's box: content, size, bold."""
    texts = ((step.title, 12.0, True), (step.detail, 11.0, False), (step.behind, 11.0, False))
    return [text for text in texts if text[0]]


def _step_extent(step: Step) -> Extent:
    if isinstance(step.op, g.Add | g.Gate):
        return _RADIUS + (text_width(step.behind, 11) + 6 if step.behind else 0.0), _RADIUS, 2 * _RADIUS
    half = max(text_width(content, size, bold=bold) for content, size, bold in _lines(step)) / 2 + 8
    return half, half, _LINE * len(_lines(step)) + 8


def _draw_step(canvas: Canvas, step: Step, axis: float, top: float, *, half: float | None = None) -> None:
    if isinstance(step.op, g.Add | g.Gate):
        canvas.circle(axis, top + _RADIUS, _RADIUS, step.role)
        canvas.text(axis, top + _RADIUS + 5, step.title, "ink", size=14, anchor="middle")
        if step.behind:
            canvas.text(axis - _RADIUS - 6, top + _RADIUS + 4, step.behind, "muted", size=11, anchor="end")
        return
    left, _, height = _step_extent(step)
    half = half or left
    canvas.box(axis - half, top, 2 * half, height, step.role)
    for i, (content, size, bold) in enumerate(_lines(step)):
        canvas.text(axis, top + 15 + _LINE * i, content, "ink", size=size, bold=bold, anchor="middle")


def _branch_extent(path: Path) -> Extent:
    return path_extent(path) if path else (_RADIUS, _RADIUS, 0.0)


def _fork_extent(fork: Fork) -> Extent:
    _, left, right = _lanes(fork)
    height = max(_branch_extent(path)[2] for path in fork.branches) + _FAN + _FAN
    if fork.join is None:
        return left, right, height - _FAN
    joined = _step_extent(fork.join)
    return max(left, joined[0]), max(right, joined[1]), height + joined[2]


def _lanes(fork: Fork) -> tuple[list[float], float, float]:
    """Axis of every branch from the fork's, and how far all reach to the left and right."""
    extents = [_branch_extent(path) for path in fork.branches]
    order = list(range(len(extents)))
    if fork.main is not None:
        order.remove(fork.main)
        order.insert(0, fork.main)
    lanes, at = [0.0] * len(extents), 0.0
    for i in order:
        lanes[i] = at + extents[i][0]
        at = lanes[i] + extents[i][1] + _LANE
    total = at - _LANE
    axis = total / 2 if fork.main is None else lanes[fork.main]
    return [lane - axis for lane in lanes], axis, total - axis


def _draw_fork(canvas: Canvas, fork: Fork, axis: float, top: float) -> list[Point]:
    lanes, left, right = _lanes(fork)
    bottom = top + max(_branch_extent(path)[2] for path in fork.branches) + _FAN + _FAN
    join_half = max(left, right)
    ends: list[Point] = []
    for i, (path, lane) in enumerate(zip(fork.branches, lanes, strict=True)):
        x, begin = axis + lane, top + _FAN
        elbow = [(axis, top), (x, top), (x, begin)]
        canvas.line(elbow, "flow", arrow=bool(path) and isinstance(path[0], Step))
        for ex, ey in _draw(canvas, path, x, begin, None):
            if fork.join is None:
                ends.append((ex, ey))
            elif fork.main is None or i == fork.main:
                canvas.line([(ex, ey), (ex, bottom)], "flow", arrow=True)
            else:
                level = bottom + _RADIUS
                canvas.line([(ex, ey), (ex, level), (axis + _RADIUS, level)], "flow", arrow=True)
    if fork.join is None:
        return ends
    _draw_step(canvas, fork.join, axis, bottom, half=join_half if fork.main is None else None)
    return [(axis, bottom + _step_extent(fork.join)[2])]
