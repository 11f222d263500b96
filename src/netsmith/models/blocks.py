"""Modules of records: blocks, pieces and heads (`netsmith.arch.blocks`, `netsmith.arch.heads`).

Every builder gives modules by name, in the order of running. What has no parameters is called after the layer before
it ("features.0_activation"), so it takes no name that a `state_dict` knows.
"""

import math
from collections.abc import Sequence

from torch import nn

from netsmith.arch import graph as g
from netsmith.arch.blocks import (
    branches,
    cardinal,
    fire,
    inverted,
    pieces,
    preactivation,
    residual,
    separable,
    shortcuts,
)
from netsmith.arch.blocks.draft import Draft
from netsmith.arch.blocks.kinds import Block
from netsmith.arch.heads import ConvHead, FlattenedHead, Head, PooledHead
from netsmith.nn.branches import Branches, Join, Path
from netsmith.nn.fire import Fire
from netsmith.nn.inverted import FusedMBConv, InvertedResidual, MBConv
from netsmith.nn.layers import (
    ACTIVATIONS,
    GlobalAverage,
    Norm,
    ZeroPadShortcut,
    conv_norm_act,
    pooled_projection,
    projection,
)
from netsmith.nn.preactivation import PreBasicBlock, PreBottleneck
from netsmith.nn.residual import BasicBlock, Bottleneck
from netsmith.nn.windows import WindowPool, window_conv

Modules = dict[str, nn.Module]
AnyPiece = pieces.Piece | pieces.AdaptivePoolBlock
Residual = (
    residual.BasicBlock
    | residual.BottleneckBlock
    | preactivation.PreBasicBlock
    | preactivation.PreBottleneckBlock
    | cardinal.CardinalBlock
)
Compound = (
    Residual
    | inverted.InvertedResidualBlock
    | inverted.MBConvBlock
    | inverted.FusedMBConvBlock
    | separable.SeparableBlock
    | fire.FireBlock
    | branches.BranchesBlock
)


def build_block(block: Block, channels: int, *, drop_path: float, norm: Norm) -> Modules:
    """The modules of a block.

    Args:
        block: its record.
        channels: that come in.
        drop_path: rate of dropping its residual branch in training.
        norm: makes its norms.
    """
    match block:
        case pieces.ConvBlock() | pieces.PoolBlock() | pieces.LocalNormBlock():
            return build_piece(block, channels, norm=norm)
        case _:
            return {block.name: _build_module(block, channels, drop_path=drop_path, norm=norm)}


def _build_module(block: Compound, channels: int, *, drop_path: float, norm: Norm) -> nn.Module:
    match block:
        case residual.BasicBlock():
            return BasicBlock(
                channels, block.width, block.out, stride=block.stride, squeeze=block.squeeze,
                downsample=_build_shortcut(block, channels, norm=norm),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case residual.BottleneckBlock():
            return Bottleneck(
                channels, block.reduce, block.width, block.out, groups=block.groups, squeeze=block.squeeze,
                strides=(block.stride, 1) if block.stride_at == "1x1" else (1, block.stride),
                downsample=_build_shortcut(block, channels, norm=norm),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case preactivation.PreBasicBlock():
            return PreBasicBlock(
                channels, block.width, block.out, stride=block.stride, shared=block.shared,
                downsample=_build_shortcut(block, channels, norm=None),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case preactivation.PreBottleneckBlock():
            return PreBottleneck(
                channels, block.reduce, block.width, block.out, stride=block.stride, shared=block.shared,
                downsample=_build_shortcut(block, channels, norm=None),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case cardinal.CardinalBlock():
            return Bottleneck(
                channels, block.expand, block.compress, block.out, kernels=(3, 1, 3), strides=(block.stride, 1),
                downsample=_build_shortcut(block, channels, norm=norm),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case branches.BranchesBlock():
            return _build_branches(block, channels, drop_path=drop_path, norm=norm)
        case inverted.InvertedResidualBlock():
            return InvertedResidual(
                channels, block.expand, block.out, kernel=block.kernel, stride=block.stride, skip=block.skip,
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case inverted.MBConvBlock():
            return MBConv(
                channels, block.expand, block.squeeze, block.out, kernel=block.kernel, stride=block.stride,
                skip=block.skip, activation=block.activation,
                squeeze_activation=block.squeeze_activation or block.activation, gate=block.gate,
                padding=block.padding, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case inverted.FusedMBConvBlock():
            return FusedMBConv(
                channels, block.expand, block.out, kernel=block.kernel, stride=block.stride, skip=block.skip,
                activation=block.activation, padding=block.padding, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case separable.SeparableBlock():
            return nn.Sequential(
                conv_norm_act(
                    channels, channels, block.kernel, stride=block.stride, groups=channels,
                    norm=norm, activation=block.activation,
                ),
                conv_norm_act(channels, block.out, norm=norm, activation=block.activation),
            )  # fmt: skip
        case fire.FireBlock():
            return Fire(channels, block.squeeze, block.expand1x1, block.expand3x3, activation=block.activation)


def _build_branches(block: branches.BranchesBlock, channels: int, *, drop_path: float, norm: Norm) -> Branches:
    layers: Modules = {}
    prefix = f"{block.name}."

    def row(blocks: branches.RowOfBlocks, into: int) -> tuple[tuple[str, ...], int]:
        """Names of the row's layers below the block, and channels that come out."""
        built = {name.removeprefix(prefix): layer for name, layer in build_row(blocks, (into,), norm=norm).items()}
        layers.update(built)
        return tuple(built), next((p.out for p in reversed(blocks) if isinstance(p, pieces.ConvBlock)), into)

    paths: list[Path] = []
    total = 0
    for branch in block.branches:
        path: list[str | tuple[tuple[str, ...], ...]] = []
        into = channels
        for piece in branch:
            if isinstance(piece, branches.SplitBlock):
                rows = [row(each, into) for each in piece.branches]
                path.append(tuple(names for names, _ in rows))
                into = sum(out for _, out in rows)
            else:
                names, into = row((piece,), into)
                path += names
        paths.append(tuple(path))
        total += into
    join = None
    if block.join is not None:
        conv = block.join.conv.removeprefix(prefix)
        layers[conv] = window_conv(total, channels, 1, bias=True)
        activation = nn.Identity() if block.join.activation is None else ACTIVATIONS[block.join.activation]()
        join = Join(conv, block.join.scale, activation)
    return Branches(layers, tuple(paths), join=join, drop_path=drop_path)


def _build_shortcut(block: Residual, channels: int, *, norm: Norm | None) -> nn.Module | None:
    match block.shortcut:
        case shortcuts.Identity():
            return nn.Identity()
        case shortcuts.Projection():
            return projection(channels, block.out, stride=block.stride, norm=norm)
        case shortcuts.PooledProjection():
            return pooled_projection(channels, block.out, stride=block.stride, norm=norm)
        case shortcuts.ZeroPad(front=front, back=back):
            return ZeroPadShortcut(stride=block.stride, front=front, back=back)
        case None:
            return None


def build_piece(piece: AnyPiece, channels: int, *, norm: Norm) -> Modules:
    """The modules of one piece; `channels` come in."""
    match piece:
        case pieces.ConvBlock():
            conv = window_conv(
                channels, piece.out, piece.kernel, stride=piece.stride, padding=piece.padding, groups=piece.groups,
                bias=piece.bias,
            )  # fmt: skip
            modules: Modules = {piece.conv: conv}
            if piece.norm is not None:
                modules[piece.norm] = norm(piece.out)
            if piece.activation is not None:
                modules[f"{piece.norm or piece.conv}_activation"] = ACTIVATIONS[piece.activation]()
            return modules
        case pieces.PoolBlock():
            pool = WindowPool(
                piece.reduce, piece.kernel, stride=piece.stride, padding=piece.padding, ceil=piece.ceil,
                count_padding=piece.count_padding,
            )  # fmt: skip
            return {piece.name: pool}
        case pieces.AdaptivePoolBlock():
            return {piece.name: nn.AdaptiveAvgPool2d(piece.size)}
        case pieces.LocalNormBlock():
            return {piece.name: nn.LocalResponseNorm(piece.size, piece.alpha, piece.beta, piece.k)}


def build_row(row: Sequence[AnyPiece], shape: g.Shape, *, norm: Norm) -> Modules:
    """The modules of pieces one after another; a map of `shape` comes in."""
    modules: Modules = {}
    channels = shape[0]
    for piece in row:
        modules |= build_piece(piece, channels, norm=norm)
        channels = piece.out if isinstance(piece, pieces.ConvBlock) else channels
    return modules


def build_head(head: Head, shape: g.Shape, *, norm: Norm) -> Modules:
    """The modules of a head; a map of `shape` comes in."""
    match head:
        case PooledHead():
            conv = {} if head.conv is None else build_piece(head.conv, shape[0], norm=norm)
            features = shape[0] if head.conv is None else head.conv.out
            last: Modules = {}
            if head.norm is not None:
                last[head.norm.norm] = norm(features)
                last[f"{head.norm.norm}_activation"] = ACTIVATIONS[head.norm.activation]()
            return {**conv, **last, "avgpool": GlobalAverage(), **_classifier(head, features)}
        case FlattenedHead():
            draft = Draft(input=shape, norm_eps=1.0, norm_momentum=0.0)  # for the shape that reaches the linear layers
            source = "input"
            for piece in head.pieces:
                source = piece.add(draft, source)
            features = math.prod(draft.shapes[source])
            row = build_row(head.pieces, shape, norm=norm)
            return {**row, f"{head.linear}_flatten": nn.Flatten(), **_classifier(head, features)}
        case ConvHead():
            return {
                f"{head.conv}_dropout": nn.Dropout(head.dropout),
                head.conv: window_conv(shape[0], head.classes, 1, bias=True),
                f"{head.conv}_activation": ACTIVATIONS[head.activation](),
                "avgpool": GlobalAverage(),
            }


def _classifier(head: PooledHead | FlattenedHead, features: int) -> Modules:
    modules: Modules = {}
    for layer in head.hidden:
        modules[f"{layer.name}_dropout"] = nn.Dropout(layer.dropout)
        modules[layer.name] = nn.Linear(features, layer.width)
        modules[f"{layer.name}_activation"] = ACTIVATIONS[layer.activation]()
        features = layer.width
    modules[f"{head.linear}_dropout"] = nn.Dropout(head.dropout)
    modules[head.linear] = nn.Linear(features, head.classes)
    return modules
