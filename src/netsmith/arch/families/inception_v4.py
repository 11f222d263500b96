"""Inception-v4: Szegedy et al. 2017 (arXiv 1602.07261), figures 3 to 9.

Deliberate choices, all those of the authors' code, which timm follows: average pools do not count their padding,
convolutions of the stem and where maps shrink have no padding. The modules of the stem that concatenate are blocks, so
that a small picture can leave their strides out. Names are like Inception-v3's; those inside a module are timm's.
"""

from netsmith.arch.blocks.branches import Branches
from netsmith.arch.blocks.pieces import Pool
from netsmith.arch.families.googlenet import unit
from netsmith.arch.families.inception_v3 import FLAT, TALL, crossed, first_convs
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage
from netsmith.arch.widths import Fixed

FAMILY = "inception_v4"
AVERAGE = Pool(kernel=3, reduce="avg", name="branch3.0")


def shrink(name: str) -> Pool:
    """Max pooling where a map shrinks."""
    return Pool(kernel=3, stride=2, padding=0, name=name)


# Figure 3: the modules of the stem.
MIXED_3A = Branches(branches=((shrink("maxpool"),), (unit("conv", 96, 3, stride=2, padding=0),)))
MIXED_4A = Branches(
    branches=(
        (unit("branch0.0", 64), unit("branch0.1", 96, 3, padding=0)),
        (
            unit("branch1.0", 64),
            unit("branch1.1", 64, FLAT),
            unit("branch1.2", 64, TALL),
            unit("branch1.3", 96, 3, padding=0),
        ),
    )
)
MIXED_5A = Branches(branches=((unit("conv", 192, 3, stride=2, padding=0),), (shrink("maxpool"),)))

# Figure 4, on 35x35.
A = Branches(
    branches=(
        (unit("branch0", 96),),
        (unit("branch1.0", 64), unit("branch1.1", 96, 3)),
        (unit("branch2.0", 64), unit("branch2.1", 96, 3), unit("branch2.2", 96, 3)),
        (AVERAGE, unit("branch3.1", 96)),
    )
)

# Figure 5, on 17x17.
B = Branches(
    branches=(
        (unit("branch0", 384),),
        (unit("branch1.0", 192), unit("branch1.1", 224, FLAT), unit("branch1.2", 256, TALL)),
        (
            unit("branch2.0", 192),
            unit("branch2.1", 192, TALL),
            unit("branch2.2", 224, FLAT),
            unit("branch2.3", 224, TALL),
            unit("branch2.4", 256, FLAT),
        ),
        (AVERAGE, unit("branch3.1", 128)),
    )
)

# Figure 6, on 8x8.
C = Branches(
    branches=(
        (unit("branch0", 256),),
        (unit("branch1_0", 384), crossed("branch1_1", 256)),
        (
            unit("branch2_0", 384),
            unit("branch2_1", 448, (3, 1)),
            unit("branch2_2", 512, (1, 3)),
            crossed("branch2_3", 256),
        ),
        (AVERAGE, unit("branch3.1", 256)),
    )
)


def reduction_a(reduce: int, middle: int, double: int, single: int) -> Branches:
    """Figure 7: 35x35 to 17x17, with the widths k, l, m, n of table 1."""
    return Branches(
        branches=(
            (unit("branch0", single, 3, stride=2, padding=0),),
            (
                unit("branch1.0", reduce),
                unit("branch1.1", middle, 3),
                unit("branch1.2", double, 3, stride=2, padding=0),
            ),
            (shrink("branch2"),),
        )
    )


# Figure 8: 17x17 to 8x8.
REDUCTION_B = Branches(
    branches=(
        (unit("branch0.0", 192), unit("branch0.1", 192, 3, stride=2, padding=0)),
        (
            unit("branch1.0", 256),
            unit("branch1.1", 256, FLAT),
            unit("branch1.2", 320, TALL),
            unit("branch1.3", 320, 3, stride=2, padding=0),
        ),
        (shrink("branch2"),),
    )
)

TABLE = {
    "inception_v4": Spec(
        family=FAMILY,
        name="inception_v4",
        input=Input(size=(299, 299)),
        stem=first_convs(padding=0),
        small_stem=first_convs(padding="half"),
        stages=(
            Stage(
                rows=(Row(block=MIXED_3A, name="Mixed_3a"), Row(block=MIXED_4A, name="Mixed_4a", repeats=Fixed(1))),
                stride=2,
            ),
            Stage(rows=(Row(block=MIXED_5A, name="Mixed_5a"), Row(block=A, name="Mixed_5b", repeats=4)), stride=2),
            Stage(
                rows=(
                    Row(block=reduction_a(192, 224, 256, 384), name="Mixed_6a"),
                    Row(block=B, name="Mixed_6b", repeats=7),
                ),
                stride=2,
            ),
            Stage(rows=(Row(block=REDUCTION_B, name="Mixed_7a"), Row(block=C, name="Mixed_7b", repeats=3)), stride=2),
        ),
        head=Pooled(linear="fc"),
        block_name="Mixed_{stage}_{index}",
        norm_eps=1e-3,
    )
}
