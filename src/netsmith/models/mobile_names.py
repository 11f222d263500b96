"""Names that timm and torchvision give the layers of the mobile families, in the order of the layout's graph.

timm builds MobileNet, MobileNetV2, MobileNetV3, MnasNet and all EfficientNets from the same blocks, so one list of
names per block kind does for all of them. torchvision names its MnasNet by place in one long sequence.
"""

from netsmith.arch.blocks.inverted import FusedMBConvBlock, InvertedResidualBlock, MBConvBlock
from netsmith.arch.blocks.kinds import Block
from netsmith.arch.blocks.separable import SeparableBlock
from netsmith.arch.heads import PooledHead
from netsmith.arch.layout import Layout


def timm_layers(layout: Layout) -> list[str]:
    """timm's names: its `EfficientNet` and `MobileNetV3` classes."""
    names = ["conv_stem", "bn1"]
    for number, stage in enumerate(layout.stages):
        for index, block in enumerate(stage.blocks):
            names += [f"blocks.{number}.{index}.{layer}" for layer in _timm_block(block)]
    match layout.head:
        case PooledHead(conv=None):
            last: tuple[str, ...] = ()
        case PooledHead(hidden=()):
            last = ("conv_head", "bn2")
        case _:  # MobileNetV3: the last convolution counts as a stage, the hidden layer is a 1x1 convolution
            last = (f"blocks.{len(layout.stages)}.0.conv", f"blocks.{len(layout.stages)}.0.bn1", "conv_head")
    return [*names, *last, "classifier"]


def _timm_block(block: Block) -> tuple[str, ...]:
    match block:
        case SeparableBlock():
            return ("conv_dw", "bn1", "conv_pw", "bn2")
        case FusedMBConvBlock(expand=None):
            return ("conv", "bn1")
        case FusedMBConvBlock():
            return ("conv_exp", "bn1", "conv_pwl", "bn2")
        case InvertedResidualBlock() | MBConvBlock():
            squeeze = isinstance(block, MBConvBlock) and block.squeeze is not None
            gate = ("se.conv_reduce", "se.conv_expand") if squeeze else ()
            if block.expand is None:
                return ("conv_dw", "bn1", *gate, "conv_pw", "bn2")
            return ("conv_pw", "bn1", "conv_dw", "bn2", *gate, "conv_pwl", "bn3")
        case _:
            raise AssertionError(f"timm's EfficientNet has no {block.kind} block")


def torchvision_mnasnet_layers(layout: Layout) -> list[str]:
    """torchvision's names of MnasNet: stem, first block, stages and last convolution in one sequence, `layers`."""
    names = [f"layers.{place}" for place in (0, 1, 3, 4, 6, 7)]
    for number, stage in enumerate(layout.stages[1:], start=8):
        for index in range(len(stage.blocks)):
            names += [f"layers.{number}.{index}.layers.{place}" for place in (0, 1, 3, 4, 6, 7)]
    last = 7 + len(layout.stages)
    return [*names, f"layers.{last}", f"layers.{last + 1}", "classifier.1"]
