"""Outline of a network: what a picture of it shows, read off the graph without knowing any family or kind of block.

Operations become steps: a convolution, pool, linear layer or join together with the norm and activation behind it.
Blocks with more than one step are shown as one row, and each form of them (the same steps joined in the same way,
whatever their widths) is opened up once. Neighbouring rows that say the same are folded into one with its repeats.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, assert_never

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, Section, layout_graph, layout_sections

Role = Literal["conv", "pool", "linear", "join", "other", "block"]
_BLOCKLESS = ("stem", "head", "auxiliary")


@dataclass(frozen=True, kw_only=True)
class Step:
    """An operation and what follows it at once.

    Attributes:
        op: the operation.
        after: norm, activation, scaling and flattening behind it, nothing else reads what is between.
        role: which colour it gets.
        title, detail, behind: what it is ("conv 3×3, stride 2"), its channels ("64 → 128") and `after` in words; ""
            where there is nothing to say.
        shape: what the last of them puts out.
    """

    op: g.Op
    after: tuple[g.Op, ...]
    role: Role
    title: str
    detail: str
    behind: str
    shape: g.Shape


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Branches that read one map.

    Attributes:
        branches: each a path, an empty one hands the map on as it is.
        join: where they meet; None when they meet where the path around them does.
        main: the branch the others accompany; None for equals (those of a concatenation).
    """

    branches: tuple["Path", ...]
    join: Step | None
    main: int | None


Path = tuple[Step | Fork, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the picture: a step of the stem or a head, or equal blocks in a row.

    Attributes:
        stage: name of the stage; "stem", "head" or the name of an auxiliary head.
        title: what it is.
        role: which colour it gets.
        shape: what it puts out.
        repeats: how many equal ones stand in a row.
        blocks: how many of the layout's blocks it stands for.
        ops: how many of the graph's operations it stands for.
        form: index of the form that shows its inside.
        aside: whether it is part of a classifier for training only.
    """

    stage: str
    title: str
    role: Role
    shape: g.Shape
    repeats: int
    blocks: int
    ops: int
    form: int | None
    aside: bool


@dataclass(frozen=True, kw_only=True)
class Form:
    """The inside of one block that stands for all of its form.

    Attributes:
        kind: of the block.
        name: of the block that is shown.
        path: its steps.
        source, shape: what comes in and out.
        blocks: how many blocks have this form.
    """

    kind: str
    name: str
    path: Path
    source: g.Shape
    shape: g.Shape
    blocks: int


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Rows from the input to the logits; auxiliary heads stand behind the block they read."""

    rows: tuple[Row, ...]
    forms: tuple[Form, ...]


def outline(layout: Layout) -> Outline:
    """What a picture of the network shows; every operation of the graph is in exactly one row."""
    graph = layout_graph(layout)
    shapes = g.shapes(graph)
    sections = _in_order(layout_sections(layout))
    shown = [_Shown(section, shapes) for section in sections if section.ops]
    known: dict[Any, list[_Shown]] = {}
    for each in shown:
        if each.opened:
            known.setdefault(each.form, []).append(each)
    forms = list(known)
    rows: list[Row] = []
    keys: list[Any] = []
    for each in shown:
        for row, key in each.rows(forms.index(each.form) if each.opened else None):
            if keys and keys[-1] == key:
                last = rows[-1]
                rows[-1] = replace(
                    last, repeats=last.repeats + 1, blocks=last.blocks + row.blocks, ops=last.ops + row.ops
                )
            else:
                rows.append(row)
                keys.append(key)
    return Outline(rows=tuple(rows), forms=tuple(_form(known[form]) for form in forms))


def section_form(section: Section, shapes: dict[str, g.Shape]) -> Form:
    """The inside of a section; `shapes` of its operations and of what it reads."""
    return _form([_Shown(section, shapes)])


def _in_order(sections: tuple[Section, ...]) -> list[Section]:
    """Sections from input to logits, each auxiliary head behind the section it reads."""
    aside = [section for section in sections if section.kind == "auxiliary"]
    ordered: list[Section] = []
    for section in sections:
        if section not in aside:
            ordered.append(section)
            made = {op.name for op in section.ops}
            ordered += [each for each in aside if each.source in made]
    assert len(ordered) == len(sections), "an auxiliary head reads the output of a block"
    return ordered


def _form(shown: "list[_Shown]") -> Form:
    """The first block that strides shows most; else the first."""
    chosen = next((each for each in shown if each.stride > 1), shown[0])
    return Form(
        kind=chosen.kind, name=chosen.section.name, path=chosen.path, source=chosen.source, shape=chosen.shape,
        blocks=len(shown),
    )  # fmt: skip


class _Shown:
    """A section of the graph as it is shown."""

    def __init__(self, section: Section, shapes: dict[str, g.Shape]) -> None:
        self.section = section
        self.kind = section.kind.replace("_", " ")
        self.is_block = section.kind not in _BLOCKLESS
        self.steps = _steps(section.ops, shapes)
        self.path = _path(self.steps)
        self.source, self.shape = shapes[section.source], shapes[section.ops[-1].name]
        forked = any(isinstance(item, Fork) for item in self.path)
        self.opened = forked or (self.is_block and len(self.path) > 1)
        self.form = (self.kind, *_signature(section.ops, widths=False))

    @property
    def stride(self) -> int:
        """Positions that come in for each that goes out."""
        return self.source[1] // self.shape[1] if len(self.shape) > 1 else 1

    def rows(self, form: int | None) -> list[tuple[Row, Any]]:
        """Its rows, each with what makes neighbours equal."""
        stage, blocks, aside = self.section.stage, int(self.is_block), self.section.kind == "auxiliary"
        if self.opened:
            row = Row(
                stage=stage, title=self.title(), role="block", shape=self.shape, repeats=1, blocks=blocks,
                ops=len(self.section.ops), form=form, aside=aside,
            )  # fmt: skip
            return [(row, (stage, self.kind, self.shape, *_signature(self.section.ops, widths=True)))]
        found: list[tuple[Row, Any]] = []
        for step in self.steps:
            title = ", ".join(filter(None, (step.title, _grouped(step.op), step.behind)))
            row = Row(
                stage=stage, title=title, role=step.role, shape=step.shape, repeats=1, blocks=blocks,
                ops=1 + len(step.after), form=None, aside=aside,
            )  # fmt: skip
            found.append((row, (stage, title, step.shape)))
        return found

    def title(self) -> str:
        """Its kind, the one kernel that looks around, groups and stride."""
        convs = [op for op in self.section.ops if isinstance(op, g.Conv)]
        kernels = {op.kernel for op in convs if max(op.kernel) > 1}
        groups = {_grouped(op) for op in convs}
        kernel = f" {_times(*kernels.pop())}" if len(kernels) == 1 else ""
        stride = f"stride {self.stride}" if self.stride > 1 else ""
        return ", ".join(filter(None, (self.kind + kernel, *sorted(groups), stride)))


def _signature(ops: tuple[g.Op, ...], *, widths: bool) -> tuple[Any, ...]:
    """Operations and how they are joined, without names; without sizes and functions too where `widths` is False."""
    places = {op.name: i for i, op in enumerate(ops)}
    named = {"name", "source", "sources", "gate", "in_channels", "in_features"}

    def of(op: g.Op) -> tuple[Any, ...]:
        if widths:
            return tuple(getattr(op, field.name) for field in fields(op) if field.name not in named)
        if isinstance(op, g.Conv):
            return (op.groups > 1, _depthwise(op), max(op.kernel) > 1)
        return ()

    return tuple((type(op), *(places.get(name, -1) for name in g.sources(op)), *of(op)) for op in ops)


def _steps(ops: tuple[g.Op, ...], shapes: dict[str, g.Shape]) -> list[Step]:
    """The operations in groups, in order."""
    readers: dict[str, int] = {}
    for op in ops:
        for name in g.sources(op):
            readers[name] = readers.get(name, 0) + 1
    groups: list[list[g.Op]] = []
    last: dict[str, list[g.Op]] = {}
    for op in ops:
        source = g.sources(op)[0]
        follows = isinstance(op, g.Norm | g.Activate | g.Flatten | g.Scale)
        if follows and source in last and readers[source] == 1:
            group = last[source]
        else:
            groups.append(group := [])
        group.append(op)
        last[op.name] = group
    return [_step(group[0], tuple(group[1:]), shapes) for group in groups]


def _step(op: g.Op, after: tuple[g.Op, ...], shapes: dict[str, g.Shape]) -> Step:
    role, title, detail = _words(op, shapes[op.name])
    behind = ", ".join(_words(each, shapes[each.name])[1] for each in after if not isinstance(each, g.Flatten))
    return Step(
        op=op, after=after, role=role, title=title, detail=detail, behind=behind,
        shape=shapes[after[-1].name if after else op.name],
    )  # fmt: skip


def _words(op: g.Op, shape: g.Shape) -> tuple[Role, str, str]:
    """Role, name and channels of an operation."""
    match op:
        case g.Conv():
            name = "depthwise" if _depthwise(op) else "conv"
            detail = f"{op.in_channels} → {op.out_channels}"
            return "conv", _window(name, op), ", ".join(filter(None, (detail, _grouped(op))))
        case g.Pool() if max(op.kernel) == 1:
            return "pool", _window("subsample", op).replace(f" {_times(*op.kernel)}", ""), ""
        case g.Pool():
            return "pool", _window({"max": "max pool", "avg": "average"}[op.reduce], op), ""
        case g.GlobalPool():
            return "pool", "global average", ""
        case g.AdaptivePool():
            return "pool", f"average to {_times(*op.size)}", ""
        case g.LocalNorm():
            return "other", "local norm", f"over {op.size} channels"
        case g.Scale():
            return "other", f"× {op.factor:g}", ""
        case g.Linear():
            return "linear", "linear", f"{op.in_features} → {op.out_features}"
        case g.Add():
            return "join", "+", ""
        case g.Gate():
            return "join", "×", ""
        case g.Concat():
            return "join", "concat", f"{shape[0]}"
        case g.Pad():
            return "other", "zero channels", f"{op.front} before, {op.back} behind"
        case g.Norm():
            return "other", "norm", ""
        case g.Activate():
            return "other", op.function.replace("_", " "), ""
        case g.Flatten():
            return "other", "flatten", ""
        case _:
            assert_never(op)


def _window(name: str, op: g.Conv | g.Pool) -> str:
    stride = "" if max(op.stride) == 1 else f", stride {op.stride[0] if len({*op.stride}) == 1 else _times(*op.stride)}"
    return f"{name} {_times(*op.kernel)}{stride}"


def _times(*numbers: int) -> str:
    return "×".join(map(str, numbers))


def _depthwise(op: g.Conv) -> bool:
    return op.groups == op.in_channels > 1


def _grouped(op: g.Op) -> str:
    return f"{op.groups} groups" if isinstance(op, g.Conv) and op.groups > 1 and not _depthwise(op) else ""


def _path(steps: list[Step]) -> Path:
    """Steps in series and forks where they part and meet again.

    A fork ends where all ways from it meet: at its nearest post-dominator. Branches of one fork do not cross in any
    block there is.
    """
    places = {op.name: i for i, step in enumerate(steps) for op in (step.op, *step.after)}
    readers: dict[int, list[int]] = {i: [] for i in range(-1, len(steps))}  # -1 is what comes in
    for i, step in enumerate(steps):
        for name in g.sources(step.op):
            readers[places.get(name, -1)].append(i)
    end = len(steps) - 1
    beyond: dict[int, set[int]] = {end: {end}}
    for i in range(end - 1, -2, -1):
        assert readers[i], "every operation of a block leads to its output"
        beyond[i] = {i} | set.intersection(*(beyond[reader] for reader in readers[i]))

    def walk(at: int, stop: int) -> Path:
        """All from `at`, itself not among it, to `stop` or the end."""
        items: list[Step | Fork] = []
        while at not in (stop, end):
            item, at = onward(readers[at], stop)
            items += [] if item is None else [item]
        return tuple(items)

    def onward(entries: list[int], stop: int) -> tuple[Step | Fork | None, int]:
        """What comes next where a map has these readers, and which step ends it."""
        meet = min(set.intersection(*(beyond[entry] for entry in entries)))
        if len(entries) == 1:
            return (None if meet == stop else steps[meet]), meet
        branches: list[Path] = []
        for group in _together({entry: reach(entry, meet) for entry in entries}, entries):
            if group == [meet]:
                branches.append(())
                continue
            item, at = onward(group, meet)
            assert len(group) == 1 or at != meet, "branches of a block cross"
            branches.append(((item,) if item is not None else ()) + walk(at, meet))
        join = None if meet == stop else steps[meet]
        return Fork(branches=tuple(branches), join=join, main=_main(join, branches)), meet

    def reach(at: int, stop: int) -> frozenset[int]:
        """Steps from `at` on before `stop`."""
        found: set[int] = set()
        waiting = [at]
        while waiting:
            step = waiting.pop()
            if step != stop and step not in found:
                found.add(step)
                waiting += readers[step]
        return frozenset(found)

    path = walk(-1, len(steps))
    assert count_ops(path) == sum(1 + len(step.after) for step in steps), "branches of a block cross"
    return path


def _together(reached: dict[int, frozenset[int]], entries: list[int]) -> list[list[int]]:
    """Entries by what they share: those whose ways meet early belong together."""
    groups: list[tuple[list[int], frozenset[int]]] = []
    for entry in entries:
        own, steps = [entry], reached[entry]
        for other in [group for group in groups if group[1] & steps]:
            groups.remove(other)
            own, steps = other[0] + own, steps | other[1]
        groups.append((own, steps))
    return [own for own, _ in groups]


def _main(join: Step | None, branches: list[Path]) -> int | None:
    match join and join.op:
        case None | g.Concat():
            return None
        case g.Gate(source=source):
            return next((i for i, path in enumerate(branches) if source in _names(path)), branches.index(()))
        case _:
            return max(range(len(branches)), key=lambda i: count_ops(branches[i]))


def _names(path: Path) -> set[str]:
    names: set[str] = set()
    for item in path:
        for step in _own(item):
            names.update(op.name for op in (step.op, *step.after))
        if isinstance(item, Fork):
            names.update(*map(_names, item.branches))
    return names


def _own(item: Step | Fork) -> list[Step]:
    return [item] if isinstance(item, Step) else [item.join] if item.join is not None else []


def count_ops(path: Path) -> int:
    """How many of the graph's operations a path shows."""
    return len(_names(path))
