"""ResNet and its relatives.

He et al. 2016 (arXiv 1512.03385), tables 1 and 6; ResNeXt, Xie et al. 2017 (1611.05431), table 1; Wide ResNet,
Zagoruyko and Komodakis 2016 (1605.07146); ResNet-D, He et al. 2019 (1812.01187), figure 2; squeeze-excitation, Hu
et al. 2018 (1709.01507), table 1.

Deliberate choices:
- The stride is on the 3x3 (v1.5, torchvision's); `_v1` names have it on the first 1x1, as the paper.
- Parameter names are torchvision's, where it has none timm's.
- `resnet34_shortcut_a`, `_b`, `_c` are table 3's options on ResNet-34; B is what every other network here has, so
  `resnet34_shortcut_b` is `resnet34`. `plain` networks are the twins without shortcuts of table 2.
- `resnet50_cardinal` has ResNet-50's stages and three-convolution blocks, but those are cardinal (3x3 that expands, 1x1
  that compresses, 3x3 that restores). With the basic block's 64 to 512 channels between blocks, expansion by 2 and
  compression to a quarter make its MACs ResNet-50's: an identity block takes 20.75 out^2 MACs at each position.
- CIFAR ResNets are section 4.2: three stages of 2n layers, zero-padded identity shortcuts (option A), 6n+2 layers.
"""

from collections.abc import Callable

from netsmith.arch.blocks.cardinal import Cardinal
from netsmith.arch.blocks.kinds import BlockSpec
from netsmith.arch.blocks.pieces import Conv, Pool
from netsmith.arch.blocks.residual import Basic, Bottleneck
from netsmith.arch.blocks.shortcuts import ShortcutOption
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "resnet"
BLOCK_NAME = "layer{stage}.{index}"
STRIDES = (1, 2, 2, 2)
SQUEEZE = 1 / 16

POOL = Pool(kernel=3, stride=2)
STEM = (Conv(out=64, kernel=7, stride=2, conv="conv1", norm="bn1"), POOL)
SMALL_STEM = (Conv(out=64, kernel=3, stride=2, conv="conv1", norm="bn1"),)
DEEP_SMALL_STEM = (
    Conv(out=32, kernel=3, stride=2, conv="conv1.0", norm="conv1.1"),
    Conv(out=32, kernel=3, stride=1, conv="conv1.3", norm="conv1.4"),
    Conv(out=64, kernel=3, stride=1, conv="conv1.6", norm="bn1"),
)
DEEP_STEM = (*DEEP_SMALL_STEM, POOL)

R18, R34, R50, R101, R152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)
PLAIN_CIFAR_DEPTHS = (20, 32, 44, 56, 110)


def _resnet(name: str, repeats: tuple[int, ...], block: Callable[[int], BlockSpec], *, deep_stem: bool = False) -> Spec:
    """`block` gives the block of stage 0, 1, 2, 3."""
    stages = (
        Stage(rows=(Row(block=block(i), repeats=n),), stride=stride)
        for i, (n, stride) in enumerate(zip(repeats, STRIDES, strict=True))
    )
    return Spec(
        family=FAMILY, name=name, input=Input(),
        stem=DEEP_STEM if deep_stem else STEM, small_stem=DEEP_SMALL_STEM if deep_stem else SMALL_STEM,
        stages=tuple(stages), head=Pooled(linear="fc"), block_name=BLOCK_NAME,
    )  # fmt: skip


def _basic(name: str, repeats: tuple[int, ...], *, shortcut: ShortcutOption = "B") -> Spec:
    return _resnet(name, repeats, lambda i: Basic(out=64 << i, shortcut=shortcut), deep_stem=shortcut == "D")


def _bottleneck(
    name: str, repeats: tuple[int, ...], *, width: int = 64, groups: int = 1, shortcut: ShortcutOption = "B",
    squeeze: float | None = None, v1: bool = False,
) -> Spec:  # fmt: skip
    def block(i: int) -> BlockSpec:
        return Bottleneck(
            width=width << i, out=256 << i, groups=groups, shortcut=shortcut, squeeze=squeeze,
            stride_at="1x1" if v1 else "3x3",
        )  # fmt: skip

    return _resnet(name, repeats, block, deep_stem=shortcut == "D")


def _cardinal(name: str, repeats: tuple[int, ...]) -> Spec:
    return _resnet(name, repeats, lambda i: Cardinal(expand=128 << i, compress=16 << i, out=64 << i))


def _cifar(name: str, depth: int, *, shortcut: ShortcutOption = "A") -> Spec:
    stem = (Conv(out=16, kernel=3, stride=1, conv="conv1", norm="bn1"),)
    stages = (
        Stage(rows=(Row(block=Basic(out=16 << i, shortcut=shortcut), repeats=(depth - 2) // 6),), stride=stride)
        for i, stride in enumerate((1, 2, 2))
    )
    return Spec(
        family=FAMILY, name=name, input=Input(size=(32, 32)), stem=stem, small_stem=stem,
        stages=tuple(stages), head=Pooled(linear="fc", classes=10), block_name=BLOCK_NAME,
    )  # fmt: skip


TABLE = {
    spec.name: spec
    for spec in (
        _basic("resnet18", R18),
        _basic("resnet34", R34),
        _bottleneck("resnet50", R50),
        _bottleneck("resnet101", R101),
        _bottleneck("resnet152", R152),
        _bottleneck("resnext50_32x4d", R50, width=128, groups=32),
        _bottleneck("resnext101_32x8d", R101, width=256, groups=32),
        _bottleneck("resnext101_64x4d", R101, width=256, groups=64),
        _bottleneck("wide_resnet50_2", R50, width=128),
        _bottleneck("wide_resnet101_2", R101, width=128),
        _bottleneck("resnet50_v1", R50, v1=True),
        _bottleneck("resnet101_v1", R101, v1=True),
        _bottleneck("resnet152_v1", R152, v1=True),
        _basic("resnet18d", R18, shortcut="D"),
        _basic("resnet34d", R34, shortcut="D"),
        _bottleneck("resnet50d", R50, shortcut="D"),
        _bottleneck("resnet101d", R101, shortcut="D"),
        _bottleneck("seresnet50", R50, squeeze=SQUEEZE),
        _bottleneck("seresnext50_32x4d", R50, width=128, groups=32, squeeze=SQUEEZE),
        _cardinal("resnet50_cardinal", R50),
        _basic("resnet34_shortcut_a", R34, shortcut="A"),
        _basic("resnet34_shortcut_b", R34, shortcut="B"),
        _basic("resnet34_shortcut_c", R34, shortcut="C"),
        _basic("plain18", R18, shortcut="none"),
        _basic("plain34", R34, shortcut="none"),
        *(_cifar(f"resnet{depth}_cifar", depth) for depth in CIFAR_DEPTHS),
        *(_cifar(f"plain{depth}_cifar", depth, shortcut="none") for depth in PLAIN_CIFAR_DEPTHS),
    )
}
