"""Inception-v3: Szegedy et al. 2016 (arXiv 1512.00567), table 1 and figures 5, 6, 7 and 10.

Larger kernels become stacks of smaller ones and pairs of 1xN and Nx1; maps shrink by a convolution and a pool side by
side.

Deliberate choices, all torchvision's: parameter names, an average pool that counts its padding, one classifier for
training behind the 17x17 maps, convolutions without padding in the stem and where maps shrink.
"""

from netsmith.arch.blocks.branches import Branches, Split
from netsmith.arch.blocks.draft import Padding
from netsmith.arch.blocks.pieces import AdaptivePool, Conv, Pool
from netsmith.arch.families.googlenet import unit
from netsmith.arch.heads import Auxiliary, Flattened, Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "inception_v3"
AVERAGE = Pool(kernel=3, reduce="avg", count_padding=True, name="pool")
SHRINK = Pool(kernel=3, stride=2, padding=0, name="pool")
FLAT, TALL = (1, 7), (7, 1)


def stem(*, padding: Padding) -> tuple[Conv | Pool, ...]:
    """Down to about an eighth of the side; Inception-ResNet-v2 has the same. Small pictures need the padding."""
    return (
        *first_convs(padding=padding),
        Pool(kernel=3, stride=2, padding=padding, name="maxpool1"),
        unit("Conv2d_3b_1x1", 80),
        unit("Conv2d_4a_3x3", 192, 3, padding=padding),
        Pool(kernel=3, stride=2, padding=padding, name="maxpool2"),
    )


def first_convs(*, padding: Padding) -> tuple[Conv, Conv, Conv]:
    """The first three convolutions, with which Inception-v4 begins too."""
    return (
        unit("Conv2d_1a_3x3", 32, 3, stride=2, padding=padding),
        unit("Conv2d_2a_3x3", 32, 3, padding=padding),
        unit("Conv2d_2b_3x3", 64, 3),
    )


def _a(pooled: int) -> Branches:
    """Figure 5, on 35x35."""
    return Branches(
        branches=(
            (unit("branch1x1", 64),),
            (unit("branch5x5_1", 48), unit("branch5x5_2", 64, 5)),
            (unit("branch3x3dbl_1", 64), unit("branch3x3dbl_2", 96, 3), unit("branch3x3dbl_3", 96, 3)),
            (AVERAGE, unit("branch_pool", pooled)),
        )
    )


def _b() -> Branches:
    """Figure 10: 35x35 to 17x17."""
    return Branches(
        branches=(
            (unit("branch3x3", 384, 3, stride=2, padding=0),),
            (
                unit("branch3x3dbl_1", 64),
                unit("branch3x3dbl_2", 96, 3),
                unit("branch3x3dbl_3", 96, 3, stride=2, padding=0),
            ),
            (SHRINK,),
        )
    )


def _c(inner: int) -> Branches:
    """Figure 6, on 17x17; the convolutions inside are `inner` wide."""
    return Branches(
        branches=(
            (unit("branch1x1", 192),),
            (unit("branch7x7_1", inner), unit("branch7x7_2", inner, FLAT), unit("branch7x7_3", 192, TALL)),
            (
                unit("branch7x7dbl_1", inner),
                unit("branch7x7dbl_2", inner, TALL),
                unit("branch7x7dbl_3", inner, FLAT),
                unit("branch7x7dbl_4", inner, TALL),
                unit("branch7x7dbl_5", 192, FLAT),
            ),
            (AVERAGE, unit("branch_pool", 192)),
        )
    )


def _d() -> Branches:
    """17x17 to 8x8."""
    return Branches(
        branches=(
            (unit("branch3x3_1", 192), unit("branch3x3_2", 320, 3, stride=2, padding=0)),
            (
                unit("branch7x7x3_1", 192),
                unit("branch7x7x3_2", 192, FLAT),
                unit("branch7x7x3_3", 192, TALL),
                unit("branch7x7x3_4", 192, 3, stride=2, padding=0),
            ),
            (SHRINK,),
        )
    )


def _e() -> Branches:
    """Figure 7, on 8x8: two branches end in 1x3 and 3x1 side by side."""
    return Branches(
        branches=(
            (unit("branch1x1", 320),),
            (unit("branch3x3_1", 384), crossed("branch3x3_2", 384)),
            (unit("branch3x3dbl_1", 448), unit("branch3x3dbl_2", 384, 3), crossed("branch3x3dbl_3", 384)),
            (AVERAGE, unit("branch_pool", 192)),
        )
    )


def crossed(name: str, out: int) -> Split:
    """1x3 (NAMEa) and 3x1 (NAMEb) side by side."""
    return Split(branches=((unit(f"{name}a", out, (1, 3)),), (unit(f"{name}b", out, (3, 1)),)))


AUXILIARY = Auxiliary(
    name="aux",
    after="Mixed_6e",
    weight=0.4,
    head=Flattened(
        pieces=(
            Pool(kernel=5, stride=3, padding=0, reduce="avg", name="AuxLogits.pool"),
            unit("AuxLogits.conv0", 128),
            unit("AuxLogits.conv1", 768, 5, padding=0),
            AdaptivePool(size=1, name="AuxLogits.avgpool"),
        ),
        linear="AuxLogits.fc",
    ),
)

TABLE = {
    "inception_v3": Spec(
        family=FAMILY,
        name="inception_v3",
        input=Input(size=(299, 299)),
        stem=stem(padding=0),
        small_stem=stem(padding="half"),
        stages=(
            Stage(
                rows=(
                    Row(block=_a(32), name="Mixed_5b"),
                    Row(block=_a(64), name="Mixed_5c"),
                    Row(block=_a(64), name="Mixed_5d"),
                )
            ),
            Stage(
                rows=(
                    Row(block=_b(), name="Mixed_6a"),
                    Row(block=_c(128), name="Mixed_6b"),
                    Row(block=_c(160), name="Mixed_6c"),
                    Row(block=_c(160), name="Mixed_6d"),
                    Row(block=_c(192), name="Mixed_6e"),
                ),
                stride=2,
            ),
            Stage(
                rows=(
                    Row(block=_d(), name="Mixed_7a"),
                    Row(block=_e(), name="Mixed_7b"),
                    Row(block=_e(), name="Mixed_7c"),
                ),
                stride=2,
            ),
        ),
        head=Pooled(linear="fc", dropout=0.5),
        block_name="Mixed_{stage}_{index}",
        norm_eps=1e-3,
        auxiliary=(AUXILIARY,),
    )
}
