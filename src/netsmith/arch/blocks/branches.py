"""Branches: rows of pieces side by side whose outputs are concatenated, with an optional residual join.

One record carries the modules of GoogLeNet and Inception (Szegedy et al. 2015, 2016), the grids that shrink their maps,
Inception-ResNet (Szegedy et al. 2017) and SqueezeNet's Fire (Iandola et al. 2016: one branch that splits in two).

Deliberate choices: every inner width is written out; a row may split once more, and no deeper, which is what the papers
need. Names of pieces are below the block's. A block whose pieces stride is there to shrink the map: the stage's stride
takes the place of theirs, and where a small picture leaves none, they keep the map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.pieces import Conv, ConvBlock, Pool, PoolBlock
from netsmith.arch.blocks.place import Place
from netsmith.arch.limits import check_name
from netsmith.errors import InputError

MAX_SCALE = 100.0

RowOfBlocks = tuple[ConvBlock | PoolBlock, ...]
RowOfPieces = tuple[Conv | Pool, ...]


@dataclass(frozen=True, kw_only=True)
class SplitBlock:
    """Rows side by side inside a branch, concatenated."""

    kind: ClassVar[str] = "split"
    branches: tuple[RowOfBlocks, ...]

    def __post_init__(self) -> None:
        _check_branches("a split", self.branches)


@dataclass(frozen=True, kw_only=True)
class ResidualJoin:
    """A 1x1 convolution with bias back to the block's input width, times `scale`, added to the input, activation."""

    conv: str
    scale: float
    activation: g.Activation | None

    def __post_init__(self) -> None:
        check_name(self.conv)
        _check_scale(self.scale)


@dataclass(frozen=True, kw_only=True)
class BranchesBlock:
    """Branches from one map, concatenated in order; added to the map where there is a `join`."""

    kind: ClassVar[str] = "branches"
    name: str
    branches: tuple[tuple[ConvBlock | PoolBlock | SplitBlock, ...], ...]
    join: ResidualJoin | None

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_branches(self.name, self.branches)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        ends: list[str] = []
        for number, branch in enumerate(self.branches):
            x = source
            for position, piece in enumerate(branch):
                if isinstance(piece, SplitBlock):
                    rows = [_row(draft, row, x) for row in piece.branches]
                    x = _concatenated(draft, f"{self.name}.concat_{number}_{position}", rows)
                else:
                    x = piece.add(draft, x)
            ends.append(x)
        x = _concatenated(draft, f"{self.name}.concat", ends)
        if self.join is None:
            return x
        x = draft.conv(self.join.conv, x, draft.channels(source), bias=True)
        x = draft.add(g.Scale(name=f"{self.name}.scale", source=x, factor=self.join.scale))
        x = draft.total(f"{self.name}.add", source, x)
        return x if self.join.activation is None else draft.activate(f"{x}.activation", x, self.join.activation)

    def resized(self, widths: Widths) -> "BranchesBlock":
        """The record of this block in a graph whose channels were cut."""
        branches = tuple(
            tuple(
                SplitBlock(branches=tuple(_resized(row, widths) for row in piece.branches))
                if isinstance(piece, SplitBlock)
                else piece.resized(widths)
                for piece in branch
            )
            for branch in self.branches
        )
        return replace(self, branches=branches)


def _row(draft: Draft, row: RowOfBlocks, source: str) -> str:
    for piece in row:
        source = piece.add(draft, source)
    return source


def _concatenated(draft: Draft, name: str, ends: list[str]) -> str:
    return ends[0] if len(ends) == 1 else draft.add(g.Concat(name=name, sources=tuple(ends)))


def _resized(row: RowOfBlocks, widths: Widths) -> RowOfBlocks:
    return tuple(piece.resized(widths) for piece in row)


def _check_branches(name: str, branches: Sequence[Sequence[object]]) -> None:
    if not branches or not all(branches):
        raise InputError(f"{name}: branches need at least one row, and every row a piece")


def _check_scale(scale: float) -> None:
    if not abs(scale) <= MAX_SCALE:
        raise InputError(f"a residual branch times {scale:g} is outside -{MAX_SCALE:g}..{MAX_SCALE:g}")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows side by side inside a branch, concatenated."""

    kind: ClassVar[str] = "split"
    branches: tuple[RowOfPieces, ...]

    def __post_init__(self) -> None:
        _check_branches("a split", self.branches)

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return sum(_paper_out(row, paper_in) for row in self.branches)


@dataclass(frozen=True, kw_only=True)
class Join:
    """How a residual block's branches meet its input: `conv` names the 1x1 convolution below the block."""

    conv: str = "conv2d"
    scale: float = 1.0
    activation: Literal["network", "none"] = "network"

    def __post_init__(self) -> None:
        check_name(self.conv)
        _check_scale(self.scale)


@dataclass(frozen=True, kw_only=True)
class Branches:
    """Rows of pieces from one map, concatenated in order, with an optional residual join."""

    kind: ClassVar[str] = "branches"
    branches: tuple[tuple[Conv | Pool | Split, ...], ...]
    join: Join | None = None

    layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_branches("branches", self.branches)

    @property
    def reduction(self) -> bool:
        """Whether any piece strides, so that the block is there to shrink the map and depth does not repeat it."""
        rows = [row for branch in self.branches for piece in branch for row in _rows(piece)]
        return any(piece.stride > 1 for row in rows for piece in row)

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_in if self.join is not None else sum(_paper_out(branch, paper_in) for branch in self.branches)

    def lower(self, place: Place) -> BranchesBlock:
        """Every width and decision written out.

        Raises:
            InputError: the stage strides here and no piece does.
        """
        if place.stride > 1 and not self.reduction:
            raise InputError(f"{place.name}: its stage strides by {place.stride} and none of its pieces does")
        branches = tuple(_lower_branch(branch, place) for branch in self.branches)
        join = None
        if self.join is not None:
            activation = place.activation if self.join.activation == "network" else None
            join = ResidualJoin(conv=place.named(self.join.conv), scale=self.join.scale, activation=activation)
        return BranchesBlock(name=place.name, branches=branches, join=join)


def _rows(piece: Conv | Pool | Split) -> tuple[RowOfPieces, ...]:
    return piece.branches if isinstance(piece, Split) else ((piece,),)


def _paper_out(row: Sequence[Conv | Pool | Split], paper_in: int) -> int:
    for piece in row:
        paper_in = piece.paper_out(paper_in)
    return paper_in


def _lower_branch(
    branch: Sequence[Conv | Pool | Split], place: Place
) -> tuple[ConvBlock | PoolBlock | SplitBlock, ...]:
    lowered: list[ConvBlock | PoolBlock | SplitBlock] = []
    for piece in branch:
        if isinstance(piece, Split):
            rows = [_lower_row(row, place) for row in piece.branches]
            lowered.append(SplitBlock(branches=tuple(row for row, _ in rows)))
            place = replace(place, channels=sum(after.channels for _, after in rows), sides=rows[0][1].sides)
        else:
            row, place = _lower_row((piece,), place)
            lowered += row
    return tuple(lowered)


def _lower_row(row: RowOfPieces, place: Place) -> tuple[RowOfBlocks, Place]:
    """The row's records, and the place behind it."""
    lowered: list[ConvBlock | PoolBlock] = []
    for piece in row:
        strides = piece.stride > 1
        here = replace(place, stride=place.stride if strides else 1)
        if strides and place.stride == 1:
            piece = replace(piece, padding="half")
        lowered.append(piece.lower(here))
        draft = Draft(input=(place.channels, *place.sides), norm_eps=1.0, norm_momentum=0.0)
        channels, *sides = draft.shapes[lowered[-1].add(draft, "input")]
        place = replace(place, channels=channels, sides=tuple(sides))
    return tuple(lowered), place
