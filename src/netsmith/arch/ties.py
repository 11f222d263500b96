"""Ties: which channels of a network can only leave together.

A walk over the graph with a union-find over single channels, which is what concatenation, flattening, zero padding and
sums over parts of a map need. Normalisation, activations, pools and depthwise convolutions pass channels on; sums and
gates unite them; a convolution or linear layer starts new ones. The input's channels and all logits are frozen, and so
are channels that local response normalisation reads: without one of them its neighbours would have others.

Deliberate choice: a grouped convolution must lose equally many channels in every group, or whole groups. Its ties state
one of the two, so that every choice of classes can be cut (`netsmith.arch.select`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from netsmith.arch import graph as g
from netsmith.errors import InputError


class Slot(NamedTuple):
    """Where a channel meets a trained parameter: `position` on `axis`, in the rows `first` <= row < `last`.

    Axis 0 is the channel as an output, for all of its rows; axis 1 as an input, which in a grouped convolution only the
    rows of its group read. (A named tuple, because networks have hundreds of thousands.)
    """

    parameter: str
    axis: Literal[0, 1]
    position: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Ties:
    """Classes of channels, numbered from 0 in the order in which the graph computes them.

    Attributes:
        graph: the network.
        channels: operation or "input" -> the class of each of its output channels (features, behind a flatten).
        frozen: classes that always stay: the input's channels, all logits, what local response normalisation reads.
        count: number of classes.
    """

    graph: g.Graph
    channels: dict[str, tuple[int, ...]]
    frozen: frozenset[int]
    count: int

    def keep(self, drop: Collection[int]) -> dict[str, tuple[int, ...]]:
        """What `netsmith.arch.select.select` keeps when the classes `drop` go.

        Raises:
            InputError: for classes that are frozen or not there.
        """
        return self.take(dict.fromkeys(drop, 0))

    def take(self, times: Mapping[int, int]) -> dict[str, tuple[int, ...]]:
        """What `netsmith.arch.select.select` keeps when every channel of a class is taken so many times.

        Args:
            times: class -> 0 to drop it, 2 or more to copy it; the others are taken once. Copies stand behind their
                original, so that the parts of a concatenation, zero padding and groups keep their order.

        Raises:
            InputError: for classes that are frozen or not there.
        """
        if unknown := sorted(number for number in times if not 0 <= number < self.count):
            raise InputError(f"there is no class {unknown[0]}; classes are 0..{self.count - 1}")
        if held := sorted(number for number in self.frozen if times.get(number, 1) != 1):
            done = "dropped" if times[held[0]] == 0 else "copied"
            raise InputError(
                f"class {held[0]} holds a channel of the input, a local norm or a logit, which cannot be {done}"
            )
        starting = ["input", *(op.name for op in self.graph.ops if isinstance(op, g.Conv | g.Linear | g.Pad))]
        return {  # the other operations follow these
            name: tuple(i for i, number in enumerate(self.channels[name]) for _ in range(times.get(number, 1)))
            for name in starting
        }

    def slots(self) -> list[tuple[Slot, ...]]:
        """For each class, where its channels meet trained parameters, in execution order."""
        found: list[list[Slot]] = [[] for _ in range(self.count)]
        for op in self.graph.ops:
            match op:
                case g.Norm():
                    for i, number in enumerate(self.channels[op.name]):
                        for name in ("weight", "bias"):
                            found[number].append(_output_slot(f"{op.name}.{name}", i))
                case g.Conv() | g.Linear():
                    out = self.channels[op.name]
                    into, groups = self.channels[op.source], op.groups if isinstance(op, g.Conv) else 1
                    for i, number in enumerate(out):
                        found[number].append(_output_slot(f"{op.name}.weight", i))
                        if isinstance(op, g.Linear) or op.bias:
                            found[number].append(_output_slot(f"{op.name}.bias", i))
                    rows, columns = len(out) // groups, len(into) // groups
                    if columns == rows == 1 < groups:
                        continue  # depthwise: the one column of a row is the row itself
                    for i, number in enumerate(into):
                        group = i // columns
                        slot = Slot(
                            parameter=f"{op.name}.weight", axis=1, position=i % columns,
                            first=group * rows, last=(group + 1) * rows,
                        )  # fmt: skip
                        found[number].append(slot)
                case _:
                    continue
        return [tuple(slots) for slots in found]


def _output_slot(parameter: str, row: int) -> Slot:
    return Slot(parameter=parameter, axis=0, position=row, first=row, last=row + 1)


class _Union:
    """Disjoint sets of integers, joined by the smaller root."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def fresh(self, count: int) -> tuple[int, ...]:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return tuple(range(first, first + count))

    def find(self, member: int) -> int:
        while self.parent[member] != member:
            self.parent[member] = member = self.parent[self.parent[member]]
        return member

    def join(self, *members: int) -> None:
        roots = {self.find(member) for member in members}
        smallest = min(roots)
        for root in roots:
            self.parent[root] = smallest


def ties(graph: g.Graph, *, grouped: Literal["index", "group"] = "index") -> Ties:
    """Find the classes of channels that can only leave together.

    Args:
        graph: the network.
        grouped: how grouped convolutions shrink: "index" ties the channels at one position of every group, so that
            groups stay and get narrower; "group" ties all inputs and outputs of a group, so that groups go as a whole.
            Groups that read one channel each (depthwise) always go as a whole.

    Raises:
        InputError: when the shapes do not fit each other.
    """
    shapes = g.shapes(graph)
    union = _Union()
    channels: dict[str, tuple[int, ...]] = {"input": union.fresh(graph.input[0])}
    for op in graph.ops:
        inputs = [channels[name] for name in g.sources(op)]
        match op:
            case g.Conv() if op.groups == op.in_channels == op.out_channels:
                out = inputs[0]
            case g.Conv():
                out = union.fresh(op.out_channels)
                _tie_groups(union, op, inputs[0], out, whole=grouped == "group" or op.groups == op.in_channels)
            case g.Linear():
                out = union.fresh(op.out_features)
            case g.Add() | g.Gate():
                for same in zip(*inputs, strict=True):
                    union.join(*same)
                out = inputs[0]
            case g.Concat():
                out = tuple(channel for part in inputs for channel in part)
            case g.Pad():
                out = (*union.fresh(op.front), *inputs[0], *union.fresh(op.back))
            case g.Flatten():
                positions = shapes[op.name][0] // len(inputs[0])
                out = tuple(channel for channel in inputs[0] for _ in range(positions))
            case (
                g.Norm() | g.Activate() | g.Pool() | g.AdaptivePool() | g.GlobalPool() | g.LocalNorm() | g.Scale()
            ):  # fmt: skip
                out = inputs[0]
        channels[op.name] = out
    numbers: dict[int, int] = {}
    classes = {
        name: tuple(numbers.setdefault(union.find(member), len(numbers)) for member in members)
        for name, members in channels.items()
    }
    local = (op.name for op in graph.ops if isinstance(op, g.LocalNorm))
    held = ("input", graph.output, *graph.auxiliary.values(), *local)
    frozen = frozenset(number for name in held for number in classes[name])
    return Ties(graph=graph, channels=classes, frozen=frozen, count=len(numbers))


def _tie_groups(union: _Union, op: g.Conv, into: tuple[int, ...], out: tuple[int, ...], *, whole: bool) -> None:
    if op.groups == 1:
        return
    columns, rows = op.in_channels // op.groups, op.out_channels // op.groups
    if whole:
        for group in range(op.groups):
            union.join(
                *into[group * columns : (group + 1) * columns],
                *out[group * rows : (group + 1) * rows],
            )
        return
    for j in range(columns):
        union.join(*into[j::columns])
    for j in range(rows):
        union.join(*out[j::rows])
