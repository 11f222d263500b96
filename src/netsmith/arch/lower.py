"""lower: Spec -> Layout. Decisions are made on the paper's widths, then the multipliers round every width.

Repeats scale on the stage's total, rounded up, and spread over its rows.
"""

import math

from netsmith.arch.blocks.kinds import Block
from netsmith.arch.blocks.place import Place
from netsmith.arch.layout import ConvNormAct, Layout, MaxPool, PooledHead, StageLayout
from netsmith.arch.limits import MAX_BLOCKS
from netsmith.arch.spec import Row, Spec, Stage, StemConv, StemSpec
from netsmith.arch.widths import Fixed, paper_width, scaled_width
from netsmith.errors import InputError


def spread_repeats(rows: tuple[Row, ...], multiplier: float) -> list[int]:
    """Repeats of a stage's rows: the scaled total, rounded up, spread by largest remainder; at least 1 a row."""
    free = [row.repeats for row in rows if isinstance(row.repeats, int)]
    total = max(len(free), math.ceil(round(sum(free) * multiplier, 9)))
    shares = [repeats * total / sum(free) for repeats in free]
    counts = [max(1, math.floor(share)) for share in shares]
    while sum(counts) < total:
        counts[max(range(len(free)), key=lambda i: shares[i] - counts[i])] += 1
    while sum(counts) > total:  # the least a row may have took more than its share
        counts[max((i for i in range(len(free)) if counts[i] > 1), key=lambda i: counts[i] - shares[i])] -= 1
    spread = iter(counts)
    return [row.repeats.value if isinstance(row.repeats, Fixed) else next(spread) for row in rows]


def lower(spec: Spec) -> Layout:
    """Write out every width and decision of a spec.

    Raises:
        InputError: when scaling leaves no channels or blocks, or the resolution is too small for the strides.
    """
    for name, multiplier in (("width", spec.width), ("depth", spec.depth)):
        if not 0.01 <= multiplier <= 100:
            raise InputError(f"{spec.name}: a {name} multiplier of {multiplier:g} is outside 0.01..100")
    stem = tuple(_lower_stem(piece, spec) for piece in spec.stem)
    convs = [piece for piece in spec.stem if isinstance(piece, StemConv)]
    paper_in = paper_width(convs[-1].out) if convs else spec.input.channels
    channels = scaled_width(convs[-1].out, spec.width) if convs else spec.input.channels
    spread = [spread_repeats(stage.rows, spec.depth) for stage in spec.stages]
    if (blocks := sum(map(sum, spread))) > MAX_BLOCKS:
        raise InputError(
            f"{spec.name}: {blocks} blocks are more than the {MAX_BLOCKS} a network may have; scale depth less"
        )
    stages: list[StageLayout] = []
    running = 0
    for number, (stage, counts) in enumerate(zip(spec.stages, spread, strict=True), start=1):
        lowered: list[Block] = []
        for row, repeats in zip(stage.rows, counts, strict=True):
            for _ in range(repeats):
                running += 1
                name = spec.block_name.format(stage=number, index=len(lowered), running=running)
                place = Place(
                    name=name, paper_in=paper_in, channels=channels, stride=1 if lowered else stage.stride,
                    multiplier=spec.width, activation=spec.activation,
                )  # fmt: skip
                lowered.append(row.block.lower(place))
                paper_in, channels = row.block.paper_out(paper_in), lowered[-1].out_channels(channels)
        stages.append(StageLayout(name=f"stage{number}", blocks=tuple(lowered)))
    return Layout(
        family=spec.family,
        name=spec.name,
        input=spec.input,
        stem=stem,
        stages=tuple(stages),
        head=_lower_head(spec, last_block=running + 1),
        norm_eps=spec.norm_eps,
        norm_momentum=spec.norm_momentum,
        drop_path=spec.drop_path,
    )


def _lower_stem(piece: StemSpec, spec: Spec) -> ConvNormAct | MaxPool:
    if isinstance(piece, StemConv):
        out = scaled_width(piece.out, spec.width)
        return ConvNormAct(
            conv=piece.conv, norm=piece.norm, out=out,
            kernel=piece.kernel, stride=piece.stride, activation=spec.activation,
        )  # fmt: skip
    return MaxPool(name=piece.name, kernel=piece.kernel, stride=piece.stride)


def _lower_head(spec: Spec, *, last_block: int) -> PooledHead:
    conv = None
    if spec.head.conv is not None:
        assert spec.head.conv_name is not None
        name = spec.head.conv_name.format(stage=len(spec.stages) + 1, running=last_block)
        out = scaled_width(spec.head.conv, spec.width)
        conv = ConvNormAct(conv=f"{name}.0", norm=f"{name}.1", out=out, kernel=1, stride=1, activation=spec.activation)
    return PooledHead(conv=conv, linear=spec.head.linear, classes=spec.head.classes, dropout=spec.head.dropout)


def total_stride(stem: tuple[StemSpec, ...], stages: tuple[Stage, ...]) -> int:
    """Input pixels per position of the last map."""
    return math.prod(piece.stride for piece in stem) * math.prod(stage.stride for stage in stages)
