"""select: the only way in which weights change shape.

Given which channels stay, the network without the others, and for each entry of the old `state_dict` the part that the
new one takes. Pruning, smaller networks that inherit a larger one's weights, wider ones that compute the same, other
heads and other inputs are all this. `netsmith.arch.ties` tells which channels can only leave, or be copied, together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Widths
from netsmith.arch.layout import Layout, layout_graph
from netsmith.errors import InputError

Kept = tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The part of one parameter or statistic that stays; None stands for a position that is new.

    The new entry stacks, for each group g of the new rows (equally many per group, in order),
    `old[rows of g][:, columns[g]]`; a vector (`columns` None) is `old[rows]`. A column that stands several times in a
    group reads copies of one channel, so its numbers are divided among them: the copies of a column sum to the old one.

    Attributes:
        rows: old positions of axis 0.
        columns: per group, old positions of axis 1; None for vectors.
    """

    rows: Kept
    columns: tuple[Kept, ...] | None = None


Slices = dict[str, Slice]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A network cut down, and what it takes from the old one's `state_dict` (counters stay as they are)."""

    layout: Layout
    slices: Slices


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A graph cut down, its `slices`, and the old channels that every operation's output holds."""

    graph: g.Graph
    slices: Slices
    channels: dict[str, Kept]


def select(layout: Layout, keep: Mapping[str, Sequence[int | None]]) -> Selection:
    """The network with fewer channels, or with other inputs and classes.

    Args:
        layout: the network.
        keep: "input" or operation -> the output channels that stay, in their new order. What is not named keeps all;
            operations that pass channels on (norm, sum, pool, ...) follow. `Ties.keep` makes such a choice. For
            "input" and the logits None is a new channel or class, so `{"fc": [None] * 10}` is a new head and
            `{"fc": [3, 7]}` the old one for two of the classes; auxiliary classifiers follow. A channel that stands
            several times is copied (`Ties.take`), and what reads it divides its weights among the copies.

    Returns:
        The new layout, and for every parameter and running statistic the part to take.

    Raises:
        InputError: for unknown operations or channels, when nothing stays, when parts that are summed keep different
            channels, when a grouped convolution's groups do not stay equal; the message names the operation.
    """
    if layout.head.logits in keep:
        classes = keep[layout.head.logits]
        keep = {**keep, **{each.head.logits: classes for each in layout.auxiliary}}
    cut = cut_graph(layout_graph(layout), keep)
    widths = Widths(cut.graph)
    changed = replace(
        layout,
        input=replace(layout.input, channels=cut.graph.input[0]),
        stem=tuple(piece.resized(widths) for piece in layout.stem),
        stages=tuple(
            replace(stage, blocks=tuple(block.resized(widths) for block in stage.blocks)) for stage in layout.stages
        ),
        head=layout.head.resized(widths),
        auxiliary=tuple(replace(each, head=each.head.resized(widths)) for each in layout.auxiliary),
    )
    assert layout_graph(changed) == cut.graph, "the records and the graph they stand for were cut differently"
    return Selection(layout=changed, slices=cut.slices)


def cut_graph(graph: g.Graph, keep: Mapping[str, Sequence[int | None]]) -> Cut:
    """`select` for any graph."""
    shapes = g.shapes(graph)
    if unknown := [name for name in keep if name not in shapes]:
        raise InputError(f"{unknown[0]!r} is no operation of the network, so its channels cannot be chosen")
    channels: dict[str, Kept] = {"input": _chosen("input", keep, shapes["input"][0], new=True)}
    ops: list[g.Op] = []
    slices: Slices = {}
    logits = set(g.classifiers(graph).values())
    for op in graph.ops:
        inputs = [channels[name] for name in g.sources(op)]
        into, size = inputs[0], shapes[op.name][0]
        match op:
            case g.Conv() if op.groups == op.in_channels == op.out_channels:
                out = into
                slices |= _layer(op, out, tuple((0,) for _ in out))
                ops.append(replace(op, in_channels=len(into), out_channels=len(out), groups=len(out)))
            case g.Conv():
                out = _chosen(op.name, keep, size, new=op.name in logits)
                columns = (into,) if op.groups == 1 else _grouped(op, into, out)
                slices |= _layer(op, out, columns)
                ops.append(replace(op, in_channels=len(into), out_channels=len(out), groups=len(columns)))
            case g.Linear():
                out = _chosen(op.name, keep, size, new=op.name in logits)
                slices |= _layer(op, out, (into,))
                ops.append(replace(op, in_features=len(into), out_features=len(out)))
            case g.Norm():
                out = into
                entries = ("weight", "bias", "running_mean", "running_var")
                slices |= {f"{op.name}.{entry}": Slice(rows=out) for entry in entries}
                ops.append(replace(op, channels=len(out)))
            case g.Pad():
                out = _padded(op, keep, into, size)
                front = sum(i is not None and i < op.front for i in out)
                ops.append(replace(op, front=front, back=len(out) - front - len(into)))
            case g.Concat():
                out = _concatenated(inputs, [shapes[name][0] for name in op.sources])
                ops.append(op)
            case g.Flatten():
                positions = size // shapes[op.source][0]
                out = tuple(None if i is None else i * positions + j for i in into for j in range(positions))
                ops.append(op)
            case g.Add() | g.Gate():
                out = into
                if any(other != into for other in inputs):
                    raise InputError(
                        f"{op.name}: its {len(inputs)} parts keep different channels; keep the same in all"
                    )
                ops.append(op)
            case g.LocalNorm():
                out = into
                if into != tuple(range(size)):
                    raise InputError(f"{op.name}: a local norm needs all the channels around each; keep every channel")
                ops.append(op)
            case g.Activate() | g.Pool() | g.AdaptivePool() | g.GlobalPool() | g.Scale():
                out = into
                ops.append(op)
        if op.name in keep and tuple(keep[op.name]) != out:
            raise InputError(f"{op.name}: its channels follow from the operations before it, and those keep others")
        channels[op.name] = out
    changed = replace(graph, input=(len(channels["input"]), *graph.input[1:]), ops=tuple(ops))
    return Cut(graph=changed, slices=slices, channels=channels)


def _chosen(name: str, keep: Mapping[str, Sequence[int | None]], size: int, *, new: bool = False) -> Kept:
    kept: Kept = tuple(keep.get(name, range(size)))
    known = [i for i in kept if i is not None]
    if not kept:
        raise InputError(f"{name}: no channel stays; keep at least one")
    if len(known) != len(kept) and not new:
        raise InputError(f"{name}: only the input and the logits can get new channels")
    if wrong := [i for i in known if not 0 <= i < size]:
        raise InputError(f"{name}: there is no channel {wrong[0]}; they are 0..{size - 1}")
    return kept


def _layer(op: g.Conv | g.Linear, out: Kept, columns: tuple[Kept, ...]) -> Slices:
    slices = {f"{op.name}.weight": Slice(rows=out, columns=columns)}
    if isinstance(op, g.Linear) or op.bias:
        slices[f"{op.name}.bias"] = Slice(rows=out)
    return slices


def _grouped(op: g.Conv, into: Kept, out: Kept) -> tuple[Kept, ...]:
    """Columns per remaining group; every group keeps as many inputs and as many outputs as the others, or goes."""
    ins, outs = _by_group(op, into, op.in_channels), _by_group(op, out, op.out_channels)
    counts = {(len(ins.get(group, ())), len(outs.get(group, ()))) for group in {*ins, *outs}}
    if len(counts) != 1 or list(ins) != list(outs):
        raise InputError(f"{op.name}: its groups keep unequal channels; keep as many in each, or drop whole groups")
    return tuple(ins.values())


def _by_group(op: g.Conv, kept: Kept, size: int) -> dict[int, Kept]:
    each = size // op.groups
    groups: dict[int, list[int]] = {}
    last = None
    for i in kept:
        if i is None or (i // each in groups and i // each != last):
            raise InputError(f"{op.name}: new channels, or channels out of their group's order, reach a grouped layer")
        last = i // each
        groups.setdefault(last, []).append(i % each)
    return {group: tuple(positions) for group, positions in groups.items()}


def _padded(op: g.Pad, keep: Mapping[str, Sequence[int | None]], into: Kept, size: int) -> Kept:
    """Kept channels of a zero padding: some of those in front, all that come in, some of those behind."""
    inner = tuple(None if i is None else op.front + i for i in into)
    behind = range(size - op.back, size)
    if op.name not in keep:
        return (*range(op.front), *inner, *behind)
    kept = _chosen(op.name, keep, size, new=None in into)
    front = tuple(i for i in kept if i is not None and i < op.front)
    back = tuple(i for i in kept if i is not None and i in behind)
    if kept != (*front, *inner, *back):
        raise InputError(f"{op.name}: what it keeps is not what comes in, between the zeros in front and behind")
    return kept


def _concatenated(inputs: list[Kept], sizes: list[int]) -> Kept:
    out: list[int | None] = []
    start = 0
    for part, size in zip(inputs, sizes, strict=True):
        out += [None if i is None else start + i for i in part]
        start += size
    return tuple(out)
