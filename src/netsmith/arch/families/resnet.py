"""ResNet and its relatives.

He et al. 2016 (arXiv 1512.03385), tables 1 and 6; ResNeXt, Xie et al. 2017 (1611.05431), table 1; Wide ResNet,
Zagoruyko and Komodakis 2016 (1605.07146).

Deliberate choices: the stride is on the 3x3 (v1.5, torchvision's); parameter names are torchvision's. CIFAR ResNets are
the paper's section 4.2: three stages of 2n layers, zero-padded identity shortcuts (option A), 6n+2 layers.
"""

from netsmith.arch.blocks.pieces import Conv, Pool
from netsmith.arch.blocks.residual import Basic, Bottleneck, ShortcutOption
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "resnet"
BLOCK_NAME = "layer{stage}.{index}"

STEM = (Conv(out=64, kernel=7, stride=2, conv="conv1", norm="bn1"), Pool(kernel=3, stride=2))
SMALL_STEM = (Conv(out=64, kernel=3, stride=2, conv="conv1", norm="bn1"),)
STRIDES = (1, 2, 2, 2)


def _spec(name: str, stages: tuple[Stage, ...]) -> Spec:
    return Spec(
        family=FAMILY, name=name, input=Input(), stem=STEM, small_stem=SMALL_STEM, stages=stages,
        head=Pooled(linear="fc"), block_name=BLOCK_NAME,
    )  # fmt: skip


def _basic(name: str, repeats: tuple[int, ...]) -> Spec:
    stages = (
        Stage(rows=(Row(block=Basic(out=64 << i), repeats=n),), stride=stride)
        for i, (n, stride) in enumerate(zip(repeats, STRIDES, strict=True))
    )
    return _spec(name, tuple(stages))


def _bottleneck(name: str, repeats: tuple[int, ...], *, width: int = 64, groups: int = 1) -> Spec:
    stages = (
        Stage(rows=(Row(block=Bottleneck(width=width << i, out=256 << i, groups=groups), repeats=n),), stride=stride)
        for i, (n, stride) in enumerate(zip(repeats, STRIDES, strict=True))
    )
    return _spec(name, tuple(stages))


def _cifar(depth: int, *, shortcut: ShortcutOption = "A") -> Spec:
    stem = (Conv(out=16, kernel=3, stride=1, conv="conv1", norm="bn1"),)
    stages = (
        Stage(rows=(Row(block=Basic(out=16 << i, shortcut=shortcut), repeats=(depth - 2) // 6),), stride=stride)
        for i, stride in enumerate((1, 2, 2))
    )
    return Spec(
        family=FAMILY, name=f"resnet{depth}_cifar", input=Input(size=(32, 32)), stem=stem, small_stem=stem,
        stages=tuple(stages), head=Pooled(linear="fc", classes=10), block_name=BLOCK_NAME,
    )  # fmt: skip


TABLE = {
    spec.name: spec
    for spec in (
        _basic("resnet18", (2, 2, 2, 2)),
        _basic("resnet34", (3, 4, 6, 3)),
        _bottleneck("resnet50", (3, 4, 6, 3)),
        _bottleneck("resnet101", (3, 4, 23, 3)),
        _bottleneck("resnet152", (3, 8, 36, 3)),
        _bottleneck("resnext50_32x4d", (3, 4, 6, 3), width=128, groups=32),
        _bottleneck("resnext101_32x8d", (3, 4, 23, 3), width=256, groups=32),
        _bottleneck("resnext101_64x4d", (3, 4, 23, 3), width=256, groups=64),
        _bottleneck("wide_resnet50_2", (3, 4, 6, 3), width=128),
        _bottleneck("wide_resnet101_2", (3, 4, 23, 3), width=128),
        *(_cifar(depth) for depth in (8, 14, 20, 32, 44, 56, 110)),
    )
}
