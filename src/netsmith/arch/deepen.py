"""deepen: more blocks for a trained network that go on computing the same (Net2DeeperNet, Chen et al. 2016, arXiv
1511.05641).

New blocks repeat the last one of their stage that can be repeated, and start as the identity on what reaches them:
where a shortcut carries it, by a residual branch that ends in zero; without one, by convolutions that copy their input
and norms and activations that leave it as it is. Which layers of a new block start how is read off the graph.

Deliberate choices: a new block keeps the kind, kernel, groups and widths of the one that it repeats; what follows it in
a numbered sequence is renumbered, so a network made deeper has the names of one that is built so deep.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft
from netsmith.arch.blocks.kinds import Block
from netsmith.arch.blocks.shortcuts import Identity
from netsmith.arch.layout import Layout, layout_graph, layout_sections
from netsmith.arch.limits import MAX_BLOCKS
from netsmith.arch.widths import round_channels
from netsmith.errors import InputError

Range = tuple[float, float]
Rename = Callable[[str], str]
Record = TypeVar("Record")

UNBOUNDED: Range = (-math.inf, math.inf)
RANGES: Mapping[g.Activation, Range] = {
    "relu": (0.0, math.inf), "relu6": (0.0, 6.0), "sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0),
}  # fmt: skip
"""What bounded activations put out; `relu` and `relu6` also leave what is within them as it is."""


@dataclass(frozen=True, kw_only=True)
class Deepening:
    """A network with more blocks, and how its layers start.

    Attributes:
        layout: the deeper network.
        names: operation -> the old network's, for those that were there; they keep their weights.
        zero: new layers (convolutions, norms) that start at zero.
        identity: new operation that starts as the identity -> the operation that was there whose output it passes on.
            New layers in neither start like untrained ones: their output meets a zero.
    """

    layout: Layout
    names: dict[str, str]
    zero: frozenset[str]
    identity: dict[str, str]


def deepen(layout: Layout, counts: Sequence[int]) -> Deepening:
    """The network with more blocks in its stages.

    Args:
        layout: the network.
        counts: blocks of every stage, none fewer than now.

    Raises:
        InputError: counts that do not fit the stages or add nothing; a stage that cannot grow, with the reason.
    """
    now = [len(stage.blocks) for stage in layout.stages]
    shown = ",".join(map(str, now))
    if len(counts) != len(now) or any(wanted < count for wanted, count in zip(counts, now, strict=True)):
        given = ",".join(map(str, counts))
        raise InputError(
            f"{layout.name}: its {len(now)} stages have {shown} blocks and cannot become {given}; "
            "give a count for every stage, none below what it has"
        )
    if sum(counts) > MAX_BLOCKS:
        raise InputError(f"{layout.name}: {sum(counts)} blocks are more than the {MAX_BLOCKS} that a layout may have")
    if list(counts) == now:
        raise InputError(f"{layout.name}: its stages have {shown} blocks already; ask for more")
    names = {op.name: op.name for op in layout_graph(layout).ops}
    found = Deepening(layout=layout, names=names, zero=frozenset(), identity={})
    for i, wanted in enumerate(counts):
        for _ in range(wanted - now[i]):
            found = _one_more(found, i)
    return found


def deeper_counts(layout: Layout, factor: float) -> list[int]:
    """Blocks of every stage when those that can grow have `factor` times as many, rounded up.

    Raises:
        InputError: a factor that is not above 1; no stage can grow, with the reason.
    """
    if not 1.0 < factor <= 100.0:
        raise InputError(f"{layout.name}: depth is multiplied by {factor:g}; give a number above 1, at most 100")
    reasons = [growth_obstacle(layout, i) for i in range(len(layout.stages))]
    if None not in reasons:
        raise InputError(f"{layout.name} cannot be made deeper without changing what it computes: {reasons[-1]}")
    now = [len(stage.blocks) for stage in layout.stages]
    return [
        count if reason else math.ceil(round(count * factor, 9)) for count, reason in zip(now, reasons, strict=True)
    ]


def growth_obstacle(layout: Layout, stage: int) -> str | None:
    """Why a stage cannot have another block that starts as the identity; None when it can."""
    try:
        _next_block(layout, stage)
    except InputError as error:
        return str(error)
    return None


@dataclass(frozen=True, kw_only=True)
class _Next:
    """A block to insert after `position`, what becomes of the names behind it, and how its layers start."""

    block: Block
    position: int
    source: str
    rename: Rename
    zero: frozenset[str]
    carrying: frozenset[str]


def _one_more(found: Deepening, stage: int) -> Deepening:
    layout = found.layout
    new = _next_block(layout, stage)
    stages = [replace(each, blocks=_renamed(each.blocks, new.rename)) for each in layout.stages]
    at, blocks = new.position + 1, stages[stage].blocks
    stages[stage] = replace(stages[stage], blocks=(*blocks[:at], new.block, *blocks[at:]))
    rename = new.rename
    carried = rename(found.identity.get(new.source, new.source))
    return Deepening(
        layout=replace(
            layout,
            stem=_renamed(layout.stem, rename),
            stages=tuple(stages),
            head=_renamed(layout.head, rename),
            auxiliary=_renamed(layout.auxiliary, rename),
        ),
        names={rename(name): old for name, old in found.names.items()},
        zero=frozenset(map(rename, found.zero)) | new.zero,
        identity={rename(name): rename(source) for name, source in found.identity.items()}
        | dict.fromkeys(new.carrying, carried),
    )


def _next_block(layout: Layout, stage: int) -> _Next:
    """Repeat the last block of a stage that can be repeated."""
    reason: InputError | None = None
    for position in reversed(range(len(layout.stages[stage].blocks))):
        try:
            return _repeat(layout, stage, position)
        except InputError as error:
            reason = reason or error
    assert reason is not None, "a stage has a block"
    raise reason


def _repeat(layout: Layout, stage: int, position: int) -> _Next:
    block = layout.stages[stage].blocks[position]
    graph = layout_graph(layout)
    section = next(section for section in layout_sections(layout) if section.name == block.name)
    shapes, output = g.shapes(graph), section.ops[-1].name
    follower = _follower(block, into=shapes[section.source][0], out=shapes[output][0])
    alone = Draft(input=shapes[output], norm_eps=layout.norm_eps, norm_momentum=layout.norm_momentum)
    end = follower.add(alone, "input")
    zero, carrying = _starts(alone.ops, end, block.name, range_in=_ranges(graph)[output])
    numbered = re.fullmatch(r"(.*[._])(\d+)", block.name)
    if numbered is None and not all(op.name.startswith(f"{block.name}.") for op in section.ops):
        raise InputError(f"{block.name}: its name does not count, so no block can follow it under the next number")
    prefix, number = (numbered[1], int(numbered[2])) if numbered else (f"{block.name}_", 0)  # NAME, NAME_1, NAME_2
    inside = re.compile(rf"{re.escape(prefix)}(\d+)(?=\.|$)")

    def counted(names: Iterable[str]) -> list[int]:
        return [int(match[1]) for match in map(inside.match, names) if match]

    last = max((number, *counted(op.name for op in section.ops)))
    behind = [count for count in counted(op.name for op in graph.ops) if count > last]
    span = min(behind, default=last + 1) - number  # layers without weights count in some families' names

    def shifted(name: str, *, beyond: int) -> str:
        match = inside.match(name)
        if match is None or int(match[1]) <= beyond:
            return name
        return f"{prefix}{int(match[1]) + span}{name[match.end() :]}"

    def renamed(name: str) -> str:
        if numbered is None and (name == block.name or name.startswith(f"{block.name}.")):
            name = f"{prefix}0{name.removeprefix(block.name)}"
        return shifted(name, beyond=-1)

    return _Next(
        block=_renamed(follower, renamed), position=position, source=output,
        rename=lambda name: shifted(name, beyond=last),
        zero=frozenset(map(renamed, zero)), carrying=frozenset(map(renamed, carrying)),
    )  # fmt: skip


def _follower(block: Block, *, into: int, out: int) -> Block:
    """The record of the block that repeats one which reads `into` channels and puts out `out`."""
    changes: dict[str, Any] = {}
    for field in fields(block):
        match field.name, getattr(block, field.name):
            case "stride", _:
                changes["stride"] = 1
            case "skip", _:
                changes["skip"] = True
            case "shared", _:  # an identity starts before the block's norm and activation
                changes["shared"] = False
            case "shortcut", shortcut if shortcut is not None:
                changes["shortcut"] = Identity()
            case "expand", int(expand):
                changes["expand"] = expand if into == out else round_channels(expand / into * out)
            case "squeeze", int(squeeze):
                changes["squeeze"] = max(1, squeeze * out // into)
            case _:
                pass
    return replace(block, **changes)


def _renamed(record: Record, rename: Rename) -> Record:
    """A record, or a tuple of records, with every name in it changed."""

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return rename(value)
        if isinstance(value, tuple):
            return tuple(map(changed, cast(tuple[Any, ...], value)))
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: changed(getattr(value, field.name)) for field in fields(value)})
        return value

    return changed(record)


def _ranges(graph: g.Graph) -> dict[str, Range]:
    """Bounds of what every operation puts out, whatever the weights and the input are."""
    known: dict[str, Range] = {"input": UNBOUNDED}
    for op in graph.ops:
        lows, highs = zip(*(known[name] for name in g.sources(op)), strict=True)
        match op:
            case g.Activate():
                known[op.name] = RANGES.get(op.function, UNBOUNDED)
            case g.Pool() | g.AdaptivePool() | g.GlobalPool() | g.Flatten():
                known[op.name] = (min(0.0, *lows), max(0.0, *highs))  # an average may count zeros around the map
            case g.Add():
                known[op.name] = (sum(lows), sum(highs))
            case g.Concat():
                known[op.name] = (min(lows), max(highs))
            case g.Pad():
                known[op.name] = (min(0.0, *lows), max(0.0, *highs))
            case g.Conv() | g.Linear() | g.Norm() | g.Gate() | g.LocalNorm() | g.Scale():
                known[op.name] = UNBOUNDED
    return known


def _starts(ops: Sequence[g.Op], output: str, block: str, *, range_in: Range) -> tuple[frozenset[str], frozenset[str]]:
    """Layers that start at zero and operations that start as the identity, so that `output` is "input".

    Raises:
        InputError: there are no such layers, with the reason.
    """
    known = {op.name: op for op in ops}

    def refuse(reason: str) -> InputError:
        return InputError(f"a block like {block} cannot start as the identity: {reason}")

    def zeroed(name: str) -> frozenset[str]:
        """Layers which, at zero, make `name` zero."""
        if name == "input":
            raise refuse("it adds to what reaches it something that has no weights")
        match op := known[name]:
            case g.Conv() | g.Linear() | g.Norm():
                return frozenset((name,))
            case g.Activate() if op.function not in ("silu", "hard_swish"):
                raise refuse(f"its branch ends in {op.function}, which at zero lets no gradient through or is not zero")
            case g.Add() | g.Concat():
                return frozenset().union(*map(zeroed, op.sources))
            case (
                g.Activate() | g.Gate() | g.Pad() | g.Pool() | g.AdaptivePool() | g.GlobalPool() | g.Flatten()
                | g.LocalNorm() | g.Scale()
            ):  # fmt: skip
                return zeroed(op.source)

    def carried(name: str) -> tuple[frozenset[str], frozenset[str]]:
        """What makes `name` equal to "input"."""
        if name == "input":
            return frozenset(), frozenset()
        match op := known[name]:
            case g.Add():
                return added(op)
            case g.Conv() if not _can_copy(op):
                raise refuse(f"{name} does not keep the shape of what it reads")
            case g.Activate() if op.function not in ("relu", "relu6") or not _within(range_in, RANGES[op.function]):
                raise refuse(f"there is no shortcut around {op.function}, which changes what reaches it")
            case g.Pool() if any(side != 1 for side in (*op.kernel, *op.stride)):
                raise refuse(f"there is no shortcut around the pooling {name}")
            case g.Conv() | g.Norm() | g.Activate() | g.Pool():
                zero, carrying = carried(op.source)
                return zero, carrying | {name}
            case g.Concat():
                raise refuse(f"{name} joins branches, and no shortcut goes around them")
            case (
                g.Linear() | g.Gate() | g.Pad() | g.AdaptivePool() | g.GlobalPool() | g.Flatten() | g.LocalNorm()
                | g.Scale()
            ):  # fmt: skip
                raise refuse(f"there is no shortcut around {name}")

    def added(op: g.Add) -> tuple[frozenset[str], frozenset[str]]:
        """One part of a sum carries the input, the others are zero; the shortcut first."""
        reason: InputError | None = None
        for part in sorted(op.sources, key=lambda name: name != "input"):
            try:
                zero, carrying = carried(part)
                return zero.union(*(zeroed(other) for other in op.sources if other != part)), carrying | {op.name}
            except InputError as error:
                reason = reason or error
        assert reason is not None, "a sum has parts"
        raise reason

    zero, carrying = carried(output)
    if not any(isinstance(known[name], g.Conv | g.Norm | g.Linear) for name in zero | carrying):
        raise refuse("it has no weights")
    return zero, carrying


def _within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _can_copy(op: g.Conv) -> bool:
    """Whether a convolution with the right weights puts out what it reads."""
    return op.in_channels == op.out_channels and all(
        stride == 1 and kernel == sum(padding) + 1
        for kernel, stride, padding in zip(op.kernel, op.stride, op.padding, strict=True)
    )
