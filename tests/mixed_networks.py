"""Small networks of every record that the families have, which no single family holds."""

from netsmith.arch.blocks.branches import Branches, Join, Split
from netsmith.arch.blocks.pieces import AdaptivePool, Conv, LocalNorm, Pool
from netsmith.arch.blocks.residual import Basic
from netsmith.arch.heads import Auxiliary, ConvClassifier, Flattened, Hidden, Pooled
from netsmith.arch.layout import Layout
from netsmith.arch.lower import lower
from netsmith.arch.spec import Input, Row, Spec, Stage

SIDE = 19


def _conv(name: str, out: int, kernel: int | tuple[int, ...] = 1, **more: object) -> Conv:
    return Conv(out=out, kernel=kernel, conv=f"{name}.conv", norm=f"{name}.bn", **more)  # pyright: ignore


INCEPTION = Branches(
    branches=(
        (_conv("branch1", 8),),
        (_conv("branch3_1", 6), _conv("branch3_2", 8, (1, 3)), _conv("branch3_3", 8, (3, 1))),
        (_conv("split_1", 6), Split(branches=((_conv("split_a", 4, (1, 3)),), (_conv("split_b", 4, (3, 1)),)))),
        (Pool(kernel=3, name="pool", reduce="avg", count_padding=True), _conv("pooled", 4)),
    )
)
REDUCTION = Branches(
    branches=(
        (_conv("branch3", 8, 3, stride=2, padding=0),),
        (_conv("double_1", 6), _conv("double_2", 6, 3), _conv("double_3", 8, 3, stride=2, padding=0)),
        (Pool(kernel=3, stride=2, name="pool", padding=0),),
    )
)
RESIDUAL = Branches(
    branches=((_conv("branch1", 4),), (_conv("branch3_1", 4), _conv("branch3_2", 6, 3))),
    join=Join(scale=0.2),
)
FIRE = Branches(
    branches=(
        (
            Conv(out=4, kernel=1, conv="squeeze"),
            Split(branches=((Conv(out=6, kernel=1, conv="e1"),), (Conv(out=6, kernel=3, conv="e3"),))),
        ),
    )
)


def spec(name: str) -> Spec:
    """One of NAMES: the stem, blocks and head each differ."""
    stem: tuple[Conv | Pool | LocalNorm, ...] = (Conv(out=8, kernel=3, stride=2, conv="stem", norm="stem_bn"),)
    stages = (Stage(rows=(Row(block=Basic(out=8)),)),)
    head: Pooled | Flattened | ConvClassifier = Pooled(linear="fc", classes=5)
    auxiliary: tuple[Auxiliary, ...] = ()
    match name:
        case "inception":
            stages = (
                Stage(rows=(Row(block=INCEPTION, repeats=2, name="mixed_a"),)),
                Stage(rows=(Row(block=REDUCTION, name="mixed_b"), Row(block=RESIDUAL, name="mixed_c")), stride=2),
            )
            pieces = (AdaptivePool(size=3, name="aux.pool"), _conv("aux.conv", 6))
            beside = Flattened(pieces=pieces, hidden=(Hidden(name="aux.fc1", width=9),), linear="aux.fc2", classes=5)
            auxiliary = (Auxiliary(name="aux1", after="mixed_a", weight=0.3, head=beside),)
        case "fire":
            stem = (Conv(out=8, kernel=3, stride=2, conv="features.0", padding=0),)
            pool = Row(block=Pool(kernel=3, stride=2, padding=0, ceil=True, name="features.{layer}"))
            stages = (
                Stage(rows=(Row(block=FIRE),)),
                Stage(rows=(pool, Row(block=FIRE, repeats=2)), stride=2),
            )
            head = ConvClassifier(conv="classifier.1", classes=5, dropout=0.5)
        case "plain":
            stem = (
                Conv(out=8, kernel=5, stride=2, padding="same", conv="features.0"),
                LocalNorm(name="features.local", alpha=0.5),
            )
            pool = Row(block=Pool(kernel=2, stride=2, padding=0, name="features.{layer}"))
            conv = Row(
                block=Conv(out=8, kernel=3, conv="features.{layer}", norm="features.{next}", groups=2), repeats=2
            )
            stages = (Stage(rows=(pool, conv), stride=2),)
            head = Flattened(
                pieces=(AdaptivePool(size=3),), linear="classifier.3", classes=5, dropout=0.5,
                hidden=(Hidden(name="classifier.0", width=10, activation="hard_swish"),),
            )  # fmt: skip
        case _:
            raise KeyError(name)
    return Spec(
        family="mixed", name=name, input=Input(size=(SIDE, SIDE)), stem=stem, small_stem=stem, stages=stages,
        head=head, block_name="features.{layer}", auxiliary=auxiliary,
    )  # fmt: skip


NAMES = ("inception", "fire", "plain")


def layout(name: str) -> Layout:
    """The spec lowered, for a family whose initial weights exist."""
    lowered = lower(spec(name))
    return Layout(**{**vars(lowered), "family": "resnet"})
