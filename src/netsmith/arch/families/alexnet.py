"""AlexNet: Krizhevsky et al. 2012, and its one-tower form (Krizhevsky 2014, arXiv 1404.5997).

Deliberate choices: `alexnet` is torchvision's: widths 64/192/384/256/256, no local response normalisation, an adaptive
pool before the linear layers. `alexnet_2012` is the network of the 2012 paper: 96/256/384/384/256, two groups where its
two GPUs did not talk, local response normalisation with the paper's constants (alpha is a sum there; torch divides it
by the size), 224 pixels with torchvision's padding of 2. Names are torchvision's.
"""

from netsmith.arch.blocks.pieces import AdaptivePool, Conv, LocalNorm, Pool
from netsmith.arch.heads import Flattened, Hidden
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "alexnet"

# out, kernel of the five convolutions
ONE_TOWER = ((64, 11), (192, 5), (384, 3), (256, 3), (256, 3))
TWO_TOWERS = ((96, 11), (256, 5), (384, 3), (384, 3), (256, 3))
GROUPED = (False, True, False, True, True)

HEAD = Flattened(
    pieces=(Pool(kernel=3, stride=2, padding=0, name="features.last"), AdaptivePool(size=6)),
    hidden=(
        Hidden(name="classifier.1", width=4096, dropout=0.5),
        Hidden(name="classifier.4", width=4096, dropout=0.5),
    ),
    linear="classifier.6",
)


def _local(*, normed: bool) -> tuple[Row, ...]:
    return (Row(block=LocalNorm(name="features.local{layer}", alpha=5e-4, k=2.0)),) if normed else ()


def _spec(name: str, rows: tuple[tuple[int, int], ...], *, groups: int, normed: bool) -> Spec:
    convs = [
        Row(block=Conv(out=out, kernel=kernel, conv="features.{layer}", groups=groups if grouped else 1))
        for (out, kernel), grouped in zip(rows[1:], GROUPED[1:], strict=True)
    ]
    pool = Row(block=Pool(kernel=3, stride=2, padding=0, name="features.{layer}"))
    first = Conv(out=rows[0][0], kernel=rows[0][1], stride=4, padding=2, conv="features.0")
    local = (LocalNorm(name="features.local", alpha=5e-4, k=2.0),) if normed else ()
    return Spec(
        family=FAMILY, name=name, input=Input(), stem=(first, *local),
        small_stem=(Conv(out=rows[0][0], kernel=3, stride=1, conv="features.0"), *local),
        stages=(
            Stage(rows=(pool, convs[0], *_local(normed=normed)), stride=2),
            Stage(rows=(pool, *convs[1:]), stride=2),
        ),
        head=HEAD, block_name="features.{layer}",
    )  # fmt: skip


TABLE = {
    "alexnet": _spec("alexnet", ONE_TOWER, groups=1, normed=False),
    "alexnet_2012": _spec("alexnet_2012", TWO_TOWERS, groups=2, normed=True),
}
