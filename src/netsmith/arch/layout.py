"""Layout: a network with every width and decision written out, one record per block; all that the other parts read.

It is JSON beside the weights, so a scaled, pruned or searched network reloads like any other. `layout_graph` gives its
operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft
from netsmith.arch.blocks.kinds import Block
from netsmith.arch.blocks.pieces import Piece
from netsmith.arch.codec import added, from_json, to_json
from netsmith.arch.heads import AuxiliaryHead, Head
from netsmith.arch.limits import MAX_BLOCKS, check_name, check_norm, check_rate
from netsmith.arch.spec import Input, Spec
from netsmith.errors import InputError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StageLayout:
    """Blocks at one resolution; `name` is the stage's feature tap."""

    name: str
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.blocks:
            raise InputError(f"{self.name}: a stage needs at least one block")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A network, ready to build, count, export and cut.

    Attributes:
        format: 1.
        family: which network class builds it.
        name: what it is called, such as "resnet50" or "resnet50@width=0.5".
        input: channels and resolution it is meant for.
        stem, stages, head: the records.
        norm_eps, norm_momentum: of every batch norm.
        drop_path: stochastic depth rate of the last block in training.
        auxiliary: classifiers for training only.
    """

    format: int = FORMAT
    family: str
    name: str
    input: Input
    stem: tuple[Piece, ...]
    stages: tuple[StageLayout, ...]
    head: Head
    norm_eps: float
    norm_momentum: float
    drop_path: float
    auxiliary: tuple[AuxiliaryHead, ...] = added(())

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"layout format {self.format} is not known; this netsmith reads format {FORMAT}")
        if (blocks := sum(len(stage.blocks) for stage in self.stages)) > MAX_BLOCKS:
            raise InputError(f"{blocks} blocks are more than the {MAX_BLOCKS} a layout may have")
        names = [stage.name for stage in self.stages]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise InputError(f"two stages are called {twice!r}; give each its own name")
        if odd := next((each for each in self.auxiliary if each.head.classes != self.num_classes), None):
            raise InputError(f"{odd.name}: {odd.head.classes} classes beside {self.num_classes}; give both the same")
        check_norm(self.norm_eps, self.norm_momentum)
        check_rate("drop_path", self.drop_path)
        layout_graph(self)  # every width fits the next, or the record does not come to be

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.head.classes

    @property
    def resolution(self) -> tuple[int, ...]:
        """Input size, one entry per dimension."""
        return self.input.size


@dataclass(frozen=True, kw_only=True)
class Section:
    """Operations of one record: the stem, a block, an auxiliary head, the head.

    Attributes:
        stage: the stage's name, or that of the section itself.
        name, kind: the record's.
        source: operation that the section reads.
        ops: its operations, in order.
    """

    stage: str
    name: str
    kind: str
    source: str
    ops: tuple[g.Op, ...]

    @property
    def output(self) -> str:
        """The operation that gives the section's output."""
        return self.ops[-1].name if self.ops else self.source


def layout_graph(layout: Layout) -> g.Graph:
    """The operations of a layout, from "input" to the logits.

    Raises:
        InputError: where widths or sizes do not fit, naming the operation.
    """
    return _declare(layout)[0]


def layout_sections(layout: Layout) -> tuple[Section, ...]:
    """The graph's operations by the record they come from, in order."""
    return _declare(layout)[1]


@lru_cache(maxsize=1024)
def _declare(layout: Layout) -> tuple[g.Graph, tuple[Section, ...]]:
    draft = empty_draft(layout)
    sections: list[Section] = []

    def section(stage: str, name: str, kind: str, source: str, records: Sequence[Block | Piece | Head]) -> str:
        first, x = len(draft.ops), source
        for record in records:
            x = record.add(draft, x)
        ops = tuple(draft.ops[first:])
        sections.append(Section(stage=stage, name=name, kind=kind, source=source, ops=ops))
        return x

    x = section("stem", "stem", "stem", "input", layout.stem)
    taps: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for stage in layout.stages:
        for block in stage.blocks:
            x = outputs[block.name] = section(stage.name, block.name, block.kind, x, (block,))
        taps[stage.name] = x
    auxiliary: dict[str, str] = {}
    for each in layout.auxiliary:
        if each.after not in outputs:
            raise InputError(f"{each.name}: there is no block {each.after!r} to follow; name one of the blocks")
        auxiliary[each.name] = section(each.name, each.name, "auxiliary", outputs[each.after], (each.head,))
    output = section("head", "head", "head", x, (layout.head,))
    shape = (layout.input.channels, *layout.input.size)
    graph = g.Graph(input=shape, ops=tuple(draft.ops), taps=taps, output=output, auxiliary=auxiliary)
    return graph, tuple(sections)


def empty_draft(network: Layout | Spec) -> Draft:
    """A draft that holds the network's input only."""
    shape = (network.input.channels, *network.input.size)
    return Draft(input=shape, norm_eps=network.norm_eps, norm_momentum=network.norm_momentum)


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """Plain JSON values of a layout; `layout_from_json` reads them back to an equal layout."""
    return to_json(layout)


def layout_from_json(document: Any, *, where: str = "layout") -> Layout:
    """Read a layout strictly.

    Args:
        document: plain JSON values.
        where: how an error names the document, such as "config.json: layout".

    Raises:
        InputError: unknown, missing or ill-typed fields, widths that do not fit each other.
    """
    return from_json(Layout, document, where=where)


def at_size(layout: Layout, size: int) -> Layout:
    """The same network and weights for square inputs of another side; strides stay.

    Classifiers for training that the smaller maps no longer feed are left out (Inception-v3's below 299 pixels).

    Raises:
        InputError: the maps become too small for the network itself.
    """
    sized = replace(layout, input=replace(layout.input, size=(size,) * len(layout.input.size)), auxiliary=())
    for each in layout.auxiliary:
        try:
            sized = replace(sized, auxiliary=(*sized.auxiliary, each))
        except InputError:
            continue
    return sized
