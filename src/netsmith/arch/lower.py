"""lower: Spec -> Layout. Decisions are made on the paper's widths, then the multipliers round every width.

Rounding is that of the MobileNet and EfficientNet papers' code: to the nearest multiple of 8, up when that would lose
more than a tenth; a multiplier of 1 changes nothing. Repeats scale on the stage's total, rounded up, and spread over
its rows.
"""

import math

from netsmith.arch import blocks as b
from netsmith.arch.layout import ConvNormAct, Layout, MaxPool, PooledHead, StageLayout
from netsmith.arch.limits import MAX_BLOCKS
from netsmith.arch.spec import (
    AtLeast,
    Basic,
    BlockSpec,
    Bottleneck,
    Fixed,
    InvertedResidual,
    MBConv,
    Row,
    Shortcut,
    Spec,
    Stage,
    StemConv,
    StemSpec,
    Width,
    paper_width,
)
from netsmith.errors import InputError


def round_channels(width: float, *, multiple: int = 8) -> int:
    """The nearest multiple (at least one), raised when rounding down would lose more than a tenth of `width`."""
    rounded = max(multiple, int(width + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * width else rounded


def scaled_width(width: Width, multiplier: float, *, groups: int = 1) -> int:
    """A width under a multiplier; grouped widths stay multiples of the groups."""
    value = paper_width(width)
    if isinstance(width, Fixed) or multiplier == 1.0 or (isinstance(width, AtLeast) and multiplier < 1.0):
        return value
    return round_channels(value * multiplier, multiple=math.lcm(8, groups))


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
        lowered: list[b.Block] = []
        for row, repeats in zip(stage.rows, counts, strict=True):
            for _ in range(repeats):
                running += 1
                name = spec.block_name.format(stage=number, index=len(lowered), running=running)
                stride = 1 if lowered else stage.stride
                block = _lower_block(row.block, spec, name=name, paper_in=paper_in, channels=channels, stride=stride)
                lowered.append(block)
                paper_in, channels = paper_width(row.block.out), block.out
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


def _lower_block(block: BlockSpec, spec: Spec, *, name: str, paper_in: int, channels: int, stride: int) -> b.Block:
    out = scaled_width(block.out, spec.width)
    same = stride == 1 and paper_in == paper_width(block.out)
    match block:
        case Basic():
            shortcut = _lower_shortcut(block.shortcut, same=same, channels=channels, out=out)
            return b.BasicBlock(
                name=name, width=out, out=out, stride=stride, shortcut=shortcut, activation=spec.activation
            )
        case Bottleneck():
            width = scaled_width(block.width, spec.width, groups=block.groups)
            shortcut = _lower_shortcut(block.shortcut, same=same, channels=channels, out=out)
            return b.BottleneckBlock(
                name=name, reduce=width, width=width, out=out, groups=block.groups, stride=stride,
                stride_at=block.stride_at, shortcut=shortcut, activation=spec.activation,
            )  # fmt: skip
        case InvertedResidual():
            return b.InvertedResidualBlock(
                name=name, expand=_expanded(channels, block.expand), kernel=block.kernel, out=out,
                stride=stride, skip=same, activation=spec.activation,
            )  # fmt: skip
        case MBConv():
            squeeze = None if block.squeeze is None else max(1, int(channels * block.squeeze))
            return b.MBConvBlock(
                name=name, expand=_expanded(channels, block.expand), kernel=block.kernel, squeeze=squeeze, out=out,
                stride=stride, skip=same, activation=spec.activation,
            )  # fmt: skip


def _expanded(channels: int, ratio: float) -> int | None:
    return None if ratio == 1.0 else round_channels(channels * ratio)


def _lower_shortcut(option: Shortcut, *, same: bool, channels: int, out: int) -> b.Shortcut:
    match option:
        case "none":
            return None
        case "C":
            return b.Projection()
        case "B":
            return b.Identity() if same else b.Projection()
        case "A":
            added = out - channels
            return b.Identity() if same else b.ZeroPad(front=added // 2, back=added - added // 2)


def total_stride(stem: tuple[StemSpec, ...], stages: tuple[Stage, ...]) -> int:
    """Input pixels per position of the last map."""
    return math.prod(piece.stride for piece in stem) * math.prod(stage.stride for stage in stages)
