"""Pre-activation ResNets (v2) and Wide ResNets for CIFAR.

He et al. 2016, Identity Mappings in Deep Residual Networks (arXiv 1603.05027), section 3 and the appendix; Zagoruyko
and Komodakis 2016, Wide Residual Networks (1605.07146), table 1.

Deliberate choices:
- The first convolution stands alone, without norm and activation; the norm and activation that the last block lacks
  stand before the pool. Both are as in timm's networks with batch norm, whose names a key map knows.
- The stride is on the 3x3.
- CIFAR networks have zero-padded shortcuts with basic blocks (6n + 2 layers) as the first version's, and projections
  with bottlenecks (9n + 2). The first block's identity starts behind the activation, as section 3.2 says.
- `wrnD_K_cifar` has D layers and K times the width. The dropout inside blocks, which the paper tries too, is left out.
"""

from netsmith.arch.blocks.pieces import Conv, Pool
from netsmith.arch.blocks.preactivation import PreBasic, PreBottleneck
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage
from netsmith.arch.widths import Fixed

FAMILY = "resnetv2"
BLOCK_NAME = "layer{stage}.{index}"
LAST_NORM = "bn"


def _alone(out: int, *, kernel: int, stride: int) -> Conv:
    return Conv(out=out, kernel=kernel, stride=stride, conv="conv1", activation="none", bias=False)


STEM = (_alone(64, kernel=7, stride=2), Pool(kernel=3, stride=2))
SMALL_STEM = (_alone(64, kernel=3, stride=2),)
CIFAR_STEM = (_alone(16, kernel=3, stride=1),)
CIFAR_STRIDES = (1, 2, 2)


def _bottleneck(name: str, repeats: tuple[int, ...]) -> Spec:
    stages = (
        Stage(rows=(Row(block=PreBottleneck(width=64 << i, out=256 << i), repeats=n),), stride=stride)
        for i, (n, stride) in enumerate(zip(repeats, (1, 2, 2, 2), strict=True))
    )
    return Spec(
        family=FAMILY, name=name, input=Input(), stem=STEM, small_stem=SMALL_STEM, stages=tuple(stages),
        head=Pooled(linear="fc", norm=LAST_NORM), block_name=BLOCK_NAME,
    )  # fmt: skip


def _cifar(name: str, stages: tuple[tuple[Row, ...], ...]) -> Spec:
    return Spec(
        family=FAMILY, name=name, input=Input(size=(32, 32)), stem=CIFAR_STEM, small_stem=CIFAR_STEM,
        stages=tuple(Stage(rows=rows, stride=stride) for rows, stride in zip(stages, CIFAR_STRIDES, strict=True)),
        head=Pooled(linear="fc", classes=10, norm=LAST_NORM), block_name=BLOCK_NAME,
    )  # fmt: skip


def _cifar_basic(depth: int) -> Spec:
    n = (depth - 2) // 6
    first = (
        Row(block=PreBasic(out=16, shortcut="A", shared=True), repeats=Fixed(1)),
        Row(block=PreBasic(out=16, shortcut="A"), repeats=n - 1),
    )
    others = ((Row(block=PreBasic(out=16 << i, shortcut="A"), repeats=n),) for i in (1, 2))
    return _cifar(f"preresnet{depth}_cifar", (first, *others))


def _cifar_bottleneck(depth: int) -> Spec:
    blocks = (PreBottleneck(width=16 << i, out=64 << i) for i in range(3))
    return _cifar(f"preresnet{depth}_cifar", tuple((Row(block=block, repeats=(depth - 2) // 9),) for block in blocks))


def _wide(depth: int, times: int) -> Spec:
    blocks = (PreBasic(out=16 * times << i) for i in range(3))
    return _cifar(f"wrn{depth}_{times}_cifar", tuple((Row(block=block, repeats=(depth - 4) // 6),) for block in blocks))


TABLE = {
    spec.name: spec
    for spec in (
        _bottleneck("resnetv2_50", (3, 4, 6, 3)),
        _bottleneck("resnetv2_101", (3, 4, 23, 3)),
        _bottleneck("resnetv2_152", (3, 8, 36, 3)),
        *(_cifar_basic(depth) for depth in (20, 32, 44, 56, 110)),
        *(_cifar_bottleneck(depth) for depth in (164, 1001)),
        *(_wide(depth, times) for depth, times in ((16, 4), (40, 4), (28, 10))),
    )
}
