"""Layout: a network with every width and decision written out, one record per block; all that the other parts read.

It is JSON beside the weights, so a scaled, pruned or searched network reloads like any other. `layout_graph` gives its
operations.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft
from netsmith.arch.blocks.kinds import Block
from netsmith.arch.codec import from_json, to_json
from netsmith.arch.graph import Activation
from netsmith.arch.limits import MAX_BLOCKS, check_name, check_norm, check_rate, check_widths, check_window
from netsmith.arch.spec import Input
from netsmith.errors import InputError

FORMAT = 1


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
        check_name(self.conv)
        check_name(self.norm)
        check_widths(self.conv, self.out)
        check_window(self.conv, kernel=self.kernel, stride=self.stride)


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """Max pooling of the stem, padded by half the kernel."""

    kind: ClassVar[str] = "pool"
    name: str
    kernel: int
    stride: int

    def __post_init__(self) -> None:
        check_name(self.name)
        check_window(self.name, kernel=self.kernel, stride=self.stride)


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
class PooledHead:
    """Optional 1x1 convolution, global average pooling, dropout, linear."""

    kind: ClassVar[str] = "pooled"
    conv: ConvNormAct | None
    linear: str
    classes: int
    dropout: float

    def __post_init__(self) -> None:
        check_name(self.linear)
        check_widths(self.linear, self.classes)
        check_rate("dropout", self.dropout)


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
        if (blocks := sum(len(stage.blocks) for stage in self.stages)) > MAX_BLOCKS:
            raise InputError(f"{blocks} blocks are more than the {MAX_BLOCKS} a layout may have")
        names = [stage.name for stage in self.stages]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise InputError(f"two stages are called {twice!r}; give each its own name")
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
            x = block.add(draft, x)
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
