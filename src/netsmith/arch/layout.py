"""Layout: a network with every width and decision written out, one record per block; all that the other parts read.

It is JSON beside the weights, so a scaled, pruned or searched network reloads like any other. `layout_graph` gives its
operations.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from netsmith.arch import graph as g
from netsmith.arch.blocks import Block, Draft, add_block, check_widths
from netsmith.arch.codec import from_json, to_json
from netsmith.arch.spec import Activation, Input
from netsmith.errors import InputError

FORMAT = 1
MAX_BLOCKS = 4096


@dataclass(frozen=True, kw_only=True)
class ConvNormAct:
    """Convolution, norm, activation of the stem or before the pool; `conv` and `norm` are parameter names."""

    kind: ClassVar[str] = "conv"
    conv: str
    norm: str
    out: int
    kernel: int
    stride: int
    activation: Activation

    def __post_init__(self) -> None:
        check_widths(self.conv, self.out, self.kernel, self.stride)


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """Max pooling of the stem, padded by half the kernel."""

    kind: ClassVar[str] = "pool"
    name: str
    kernel: int
    stride: int

    def __post_init__(self) -> None:
        check_widths(self.name, self.kernel, self.stride)


@dataclass(frozen=True, kw_only=True)
class StageLayout:
    """Blocks at one resolution; `name` is the stage's feature tap."""

    name: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class PooledHead:
    """Optional 1x1 convolution, global average pooling, dropout, linear."""

    kind: ClassVar[str] = "pooled"
    conv: ConvNormAct | None
    linear: str
    classes: int
    dropout: float

    def __post_init__(self) -> None:
        check_widths(self.linear, self.classes)
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout is {self.dropout}; it must be at least 0 and below 1")


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
    """

    format: int = FORMAT
    family: str
    name: str
    input: Input
    stem: tuple[ConvNormAct | MaxPool, ...]
    stages: tuple[StageLayout, ...]
    head: PooledHead
    norm_eps: float
    norm_momentum: float
    drop_path: float

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"layout format {self.format} is not known; this netsmith reads format {FORMAT}")
        if sum(len(stage.blocks) for stage in self.stages) > MAX_BLOCKS:
            raise InputError(f"a layout may have at most {MAX_BLOCKS} blocks")
        layout_graph(self)  # every width fits the next, or the record does not come to be

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.head.classes

    @property
    def resolution(self) -> tuple[int, ...]:
        """Input size, one entry per dimension."""
        return self.input.size


@lru_cache(maxsize=1024)
def layout_graph(layout: Layout) -> g.Graph:
    """The operations of a layout, from "input" to the logits.

    Raises:
        InputError: where widths or sizes do not fit, naming the operation.
    """
    draft = Draft(
        channels=layout.input.channels,
        dimensions=len(layout.input.size),
        norm_eps=layout.norm_eps,
        norm_momentum=layout.norm_momentum,
    )
    x = "input"
    for piece in layout.stem:
        x = _piece(draft, piece, x)
    taps: dict[str, str] = {}
    for stage in layout.stages:
        for block in stage.blocks:
            x = add_block(draft, block, x)
        taps[stage.name] = x
    if layout.head.conv is not None:
        x = _piece(draft, layout.head.conv, x)
    channels = draft.channels[x]
    x = draft.add(g.GlobalPool(name="avgpool", source=x), channels)
    x = draft.add(g.Flatten(name="flatten", source=x), channels)
    linear = g.Linear(name=layout.head.linear, source=x, in_features=channels, out_features=layout.head.classes)
    output = draft.add(linear, layout.head.classes)
    graph = g.Graph(input=(layout.input.channels, *layout.input.size), ops=tuple(draft.ops), taps=taps, output=output)
    g.shapes(graph)
    return graph


def _piece(draft: Draft, piece: ConvNormAct | MaxPool, source: str) -> str:
    match piece:
        case ConvNormAct():
            x = draft.conv(piece.conv, source, piece.out, kernel=piece.kernel, stride=piece.stride)
            return draft.activate(f"{piece.norm}.activation", draft.norm(piece.norm, x), piece.activation)
        case MaxPool():
            return draft.max_pool(piece.name, source, kernel=piece.kernel, stride=piece.stride)


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
    """The same network and weights for square inputs of another side; strides stay."""
    return replace(layout, input=replace(layout.input, size=(size,) * len(layout.input.size)))
