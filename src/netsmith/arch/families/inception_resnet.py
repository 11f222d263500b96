"""Inception-ResNet-v2: Szegedy et al. 2017 (arXiv 1602.07261), figures 15 to 19.

The branches of a module are brought back to its input's width by a 1x1 convolution, scaled down and added to the input.

Deliberate choices, all those of the authors' code, which timm follows: the stem of Inception-v3, a first module with a
5x5 branch, the scales 0.17, 0.10 and 0.20, neither scale nor activation for the last module, a last 1x1 convolution,
and modules that read 320, 1088 and 2080 channels, which the figures do not say. Names are like Inception-v3's; those
inside a module are timm's.
"""

from netsmith.arch.blocks.branches import Branches, Join
from netsmith.arch.families.googlenet import unit
from netsmith.arch.families.inception_v3 import FLAT, TALL, stem
from netsmith.arch.families.inception_v4 import AVERAGE, reduction_a, shrink
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage
from netsmith.arch.widths import Fixed

FAMILY = "inception_resnet_v2"

MIXED_5B = Branches(
    branches=(
        (unit("branch0", 96),),
        (unit("branch1.0", 48), unit("branch1.1", 64, 5)),
        (unit("branch2.0", 64), unit("branch2.1", 96, 3), unit("branch2.2", 96, 3)),
        (AVERAGE, unit("branch3.1", 64)),
    )
)

# Figure 16, on 35x35.
BLOCK_35 = Branches(
    branches=(
        (unit("branch0", 32),),
        (unit("branch1.0", 32), unit("branch1.1", 32, 3)),
        (unit("branch2.0", 32), unit("branch2.1", 48, 3), unit("branch2.2", 64, 3)),
    ),
    join=Join(scale=0.17),
)

# Figure 17, on 17x17.
BLOCK_17 = Branches(
    branches=(
        (unit("branch0", 192),),
        (unit("branch1.0", 128), unit("branch1.1", 160, FLAT), unit("branch1.2", 192, TALL)),
    ),
    join=Join(scale=0.10),
)

# Figure 18: 17x17 to 8x8.
REDUCTION_B = Branches(
    branches=(
        (unit("branch0.0", 256), unit("branch0.1", 384, 3, stride=2, padding=0)),
        (unit("branch1.0", 256), unit("branch1.1", 288, 3, stride=2, padding=0)),
        (unit("branch2.0", 256), unit("branch2.1", 288, 3), unit("branch2.2", 320, 3, stride=2, padding=0)),
        (shrink("branch3"),),
    )
)


def _block_8(join: Join) -> Branches:
    """Figure 19, on 8x8."""
    return Branches(
        branches=(
            (unit("branch0", 192),),
            (unit("branch1.0", 192), unit("branch1.1", 224, (1, 3)), unit("branch1.2", 256, (3, 1))),
        ),
        join=join,
    )


TABLE = {
    "inception_resnet_v2": Spec(
        family=FAMILY,
        name="inception_resnet_v2",
        input=Input(size=(299, 299)),
        stem=stem(padding=0),
        small_stem=stem(padding="half"),
        stages=(
            Stage(
                rows=(
                    Row(block=MIXED_5B, name="Mixed_5b", repeats=Fixed(1)),
                    Row(block=BLOCK_35, name="Block35", repeats=10),
                )
            ),
            Stage(
                rows=(
                    Row(block=reduction_a(256, 256, 384, 384), name="Mixed_6a"),
                    Row(block=BLOCK_17, name="Block17", repeats=20),
                ),
                stride=2,
            ),
            Stage(
                rows=(
                    Row(block=REDUCTION_B, name="Mixed_7a"),
                    Row(block=_block_8(Join(scale=0.20)), name="Block8", repeats=9),
                    Row(block=_block_8(Join(activation="none")), name="Block8_last", repeats=Fixed(1)),
                    Row(block=unit("Conv2d_7b_1x1", 1536), repeats=Fixed(1)),
                ),
                stride=2,
            ),
        ),
        head=Pooled(linear="fc"),
        block_name="Block{stage}_{index}",
        norm_eps=1e-3,
    )
}
