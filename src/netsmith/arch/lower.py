"""lower: Spec -> Layout. Decisions are made on the paper's widths, then the multipliers round every width.

Repeats scale on the stage's total, rounded up, and spread over its rows; blocks
that reduce the map (pools, strided inceptions) do not repeat.
"""

import math

from netsmith.arch.blocks.kinds import Block, BlockSpec
from netsmith.arch.blocks.pieces import Piece, PieceSpec, Pool
from netsmith.arch.blocks.place import Place
from netsmith.arch.heads import Auxiliary, AuxiliaryHead, Head, Pooled
from netsmith.arch.layout import Layout, StageLayout, empty_draft
from netsmith.arch.limits import MAX_BLOCKS
from netsmith.arch.spec import Row, Spec, Stage
from netsmith.arch.widths import Fixed
from netsmith.errors import InputError


def spread_repeats(rows: tuple[Row, ...], multiplier: float) -> list[int]:
    """Repeats of a stage's rows: the scaled total, rounded up, spread by largest remainder; at least 1 a row."""
    free = [row.repeats for row in rows if isinstance(row.repeats, int) and not row.block.reduction]
    total = max(len(free), math.ceil(round(sum(free) * multiplier, 9)))
    shares = [repeats * total / sum(free) for repeats in free]
    counts = [max(1, math.floor(share)) for share in shares]
    while sum(counts) < total:
        counts[max(range(len(free)), key=lambda i: shares[i] - counts[i])] += 1
    while sum(counts) > total:  # the least a row may have took more than its share
        counts[max((i for i in range(len(free)) if counts[i] > 1), key=lambda i: counts[i] - shares[i])] -= 1
    spread = iter(counts)
    return [
        row.repeats.value if isinstance(row.repeats, Fixed) else row.repeats if row.block.reduction else next(spread)
        for row in rows
    ]


def lower(spec: Spec) -> Layout:
    """Write out every width and decision of a spec.

    Raises:
        InputError: when scaling leaves no channels or blocks, or the resolution is too small for the strides.
    """
    for name, multiplier in (("width", spec.width), ("depth", spec.depth)):
        if not 0.01 <= multiplier <= 100:
            raise InputError(f"{spec.name}: a {name} multiplier of {multiplier:g} is outside 0.01..100")
    spread = [spread_repeats(stage.rows, spec.depth) for stage in spec.stages]
    if (blocks := sum(map(sum, spread))) > MAX_BLOCKS:
        raise InputError(
            f"{spec.name}: {blocks} blocks are more than the {MAX_BLOCKS} a network may have; scale depth less"
        )
    walk = _Walk(spec)
    stem = tuple(walk.piece(piece) for piece in spec.stem)
    stages = [
        StageLayout(name=f"stage{number}", blocks=blocks)
        for number, (stage, counts) in enumerate(zip(spec.stages, spread, strict=True), start=1)
        if (blocks := walk.stage(stage, counts, number=number))
    ]
    return Layout(
        family=spec.family,
        name=spec.name,
        input=spec.input,
        stem=stem,
        stages=tuple(stages),
        head=walk.head(),
        norm_eps=spec.norm_eps,
        norm_momentum=spec.norm_momentum,
        drop_path=spec.drop_path,
        auxiliary=tuple(walk.auxiliary(each) for each in spec.auxiliary),
    )


class _Walk:
    """From the input to the head: each record is lowered for the map that reaches it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.draft = empty_draft(spec)
        self.x = "input"
        self.paper_in = spec.input.channels
        self.layer = 0
        self.running = 0
        self.rows: dict[str, tuple[str, str]] = {}  # a named row -> its last block and that block's output

    def place(self, *, name: str = "", stride: int = 1, staged: bool = False, source: str | None = None) -> Place:
        """Where the next record stands."""
        channels, *sides = self.draft.shapes[source or self.x]
        return Place(
            name=name, paper_in=self.paper_in, channels=channels, sides=tuple(sides), stride=stride, staged=staged,
            multiplier=self.spec.width, activation=self.spec.activation, layer=self.layer,
        )  # fmt: skip

    def piece(self, piece: PieceSpec) -> Piece:
        """Lower a piece of the stem."""
        lowered = piece.lower(self.place())
        self._follow(lowered, piece)
        return lowered

    def stage(self, stage: Stage, counts: list[int], *, number: int) -> tuple[Block, ...]:
        """Lower a stage; `counts` are the scaled repeats of its rows."""
        lowered: list[Block] = []
        stride = stage.stride
        for row, repeats in zip(stage.rows, counts, strict=True):
            for repeat in range(repeats):
                if isinstance(row.block, Pool) and stride == 1:
                    continue
                self.running += 1
                name = self.spec.block_name.format(
                    stage=number, index=len(lowered), running=self.running, layer=self.layer
                )
                if row.name is not None:
                    name = row.name if repeat == 0 else f"{row.name}_{repeat}"
                if isinstance(row.block, PieceSpec):
                    name = ""
                lowered.append(row.block.lower(self.place(name=name, stride=stride, staged=True)))
                self._follow(lowered[-1], row.block)
                stride = 1
            if row.name is not None and lowered:
                self.rows[row.name] = (lowered[-1].name, self.x)
        return tuple(lowered)

    def _follow(self, lowered: Block | Piece, record: BlockSpec | PieceSpec) -> None:
        self.x = lowered.add(self.draft, self.x)
        self.paper_in = record.paper_out(self.paper_in)
        self.layer += record.layers

    def head(self) -> Head:
        """Lower the head."""
        head, name = self.spec.head, ""
        if isinstance(head, Pooled) and head.conv_name is not None:
            name = head.conv_name.format(stage=len(self.spec.stages) + 1, running=self.running + 1)
        return head.lower(self.place(name=name), self.draft, self.x)

    def auxiliary(self, record: Auxiliary) -> AuxiliaryHead:
        """Lower a classifier for training."""
        if record.after not in self.rows:
            raise InputError(f"{record.name}: there is no row called {record.after!r} to follow; name one of the rows")
        after, source = self.rows[record.after]
        head = record.head.lower(self.place(source=source), self.draft, source)
        return AuxiliaryHead(name=record.name, after=after, weight=record.weight, head=head)
