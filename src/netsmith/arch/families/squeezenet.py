"""SqueezeNet 1.0: Iandola et al. 2016 (arXiv 1602.07360), table 1; 1.1: the authors' repository, 2.4 times less
arithmetic at the same accuracy by pooling earlier.

Deliberate choices, all torchvision's: parameter names, convolutions of the stem without padding, pools whose last
window may hang over the border, ReLU before the last pooling (so logits are never below 0).
"""

from netsmith.arch.blocks.fire import Fire
from netsmith.arch.blocks.pieces import Conv, Pool
from netsmith.arch.heads import ConvClassifier
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "squeezenet"
POOL = Pool(kernel=3, stride=2, padding=0, ceil=True, name="features.{layer}")

# stages of rows: squeeze, expand (of each kind), repeats; every stage but the first begins with a pool
V1_0 = (
    ((16, 64, 2), (32, 128, 1)),
    ((32, 128, 1), (48, 192, 2), (64, 256, 1)),
    ((64, 256, 1),),
)
V1_1 = (
    ((16, 64, 2),),
    ((32, 128, 2),),
    ((48, 192, 2), (64, 256, 2)),
)


def _stage(rows: tuple[tuple[int, int, int], ...], *, pooled: bool) -> Stage:
    fires = tuple(Row(block=Fire(squeeze=squeeze, expand=expand), repeats=repeats) for squeeze, expand, repeats in rows)
    return Stage(rows=(Row(block=POOL), *fires), stride=2) if pooled else Stage(rows=fires)


def _spec(name: str, table: tuple[tuple[tuple[int, int, int], ...], ...], *, out: int, kernel: int) -> Spec:
    conv = Conv(out=out, kernel=kernel, stride=2, conv="features.{layer}", padding=0)
    return Spec(
        family=FAMILY, name=name, input=Input(), stem=(conv, POOL), small_stem=(conv,),
        stages=tuple(_stage(rows, pooled=number > 0) for number, rows in enumerate(table)),
        head=ConvClassifier(conv="classifier.1", dropout=0.5), block_name="features.{layer}",
    )  # fmt: skip


TABLE = {
    "squeezenet1_0": _spec("squeezenet1_0", V1_0, out=96, kernel=7),
    "squeezenet1_1": _spec("squeezenet1_1", V1_1, out=64, kernel=3),
}
