"""Modules of blocks: one per record of `netsmith.arch.blocks.kinds`."""

from torch import nn

from netsmith.arch.blocks import inverted, residual
from netsmith.arch.blocks.kinds import Block
from netsmith.nn.inverted import InvertedResidual, MBConv
from netsmith.nn.layers import Norm, ZeroPadShortcut, conv_norm
from netsmith.nn.residual import BasicBlock, Bottleneck


def build_block(block: Block, channels: int, *, drop_path: float, norm: Norm) -> nn.Module:
    """The module of a block.

    Args:
        block: its record.
        channels: that come in.
        drop_path: rate of dropping its residual branch in training.
        norm: makes its norms.
    """
    match block:
        case residual.BasicBlock():
            return BasicBlock(
                channels, block.width, block.out, stride=block.stride,
                downsample=_build_shortcut(block, channels, norm=norm),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case residual.BottleneckBlock():
            return Bottleneck(
                channels, block.reduce, block.width, block.out, groups=block.groups,
                strides=(block.stride, 1) if block.stride_at == "1x1" else (1, block.stride),
                downsample=_build_shortcut(block, channels, norm=norm),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case inverted.InvertedResidualBlock():
            return InvertedResidual(
                channels, block.expand, block.out, kernel=block.kernel, stride=block.stride, skip=block.skip,
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case inverted.MBConvBlock():
            return MBConv(
                channels, block.expand, block.squeeze, block.out, kernel=block.kernel, stride=block.stride,
                skip=block.skip, activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip


def _build_shortcut(
    block: residual.BasicBlock | residual.BottleneckBlock, channels: int, *, norm: Norm
) -> nn.Module | None:
    match block.shortcut:
        case residual.Identity():
            return nn.Identity()
        case residual.Projection():
            return conv_norm(channels, block.out, stride=block.stride, norm=norm)
        case residual.ZeroPad(front=front, back=back):
            return ZeroPadShortcut(stride=block.stride, front=front, back=back)
        case None:
            return None
