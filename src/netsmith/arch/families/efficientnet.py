"""EfficientNet: B0 to B8 and L2 (Tan and Le 2019, arXiv 1905.11946, table 1 and the published coefficients; L2: Xie et
al. 2020, arXiv 1911.04252, table 7), Lite0 to Lite4 (TensorFlow's `efficientnet/lite`), V2 S, M and L (Tan and Le 2021,
arXiv 2104.00298, table 4).

Deliberate choices: parameter names, symmetric padding, norm constants (TensorFlow's in B5 to B7 and V2) and B2's 288
pixels are torchvision's; B8, L2 and Lite are timm's. The published coefficients are a table: the formula does not
regenerate the large ones. Lite is made for integers: ReLU6, no squeeze-excitation, and stem, head and the repeats of
the first and last stage never scale. V2's input is the one its accuracies are published at, larger than in training.
The `tf_` networks are for weights trained in TensorFlow: padding "same", which has the odd position behind, eps 1e-3.
"""

from dataclasses import replace

from netsmith.arch.blocks.inverted import FusedMBConv, MBConv
from netsmith.arch.blocks.pieces import Conv
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage
from netsmith.arch.widths import Fixed, Repeats, Width

FAMILY, TENSORFLOW_FAMILY = "efficientnet", "tf_efficientnet"

# expand, kernel, out, repeats, stride
ROWS = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)

#               width, depth, resolution, dropout
COEFFICIENTS = {
    "efficientnet_b0": (1.0, 1.0, 224, 0.2),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2),
    "efficientnet_b2": (1.1, 1.2, 288, 0.3),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5),
    "efficientnet_b8": (2.2, 3.6, 672, 0.5),
    "efficientnet_l2": (4.3, 5.3, 800, 0.5),
}
LITE_COEFFICIENTS = {
    "efficientnet_lite0": (1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": (1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": (1.1, 1.2, 260, 0.3),
    "efficientnet_lite3": (1.2, 1.4, 300, 0.3),
    "efficientnet_lite4": (1.4, 1.8, 380, 0.3),
}
TENSORFLOW_NORM = ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7")

# V2: block, expand, out, repeats, stride; kernels are 3, the stem is as wide as the first row
V2_ROWS = {
    "efficientnet_v2_s": (
        ("fused", 1, 24, 2, 1),
        ("fused", 4, 48, 4, 2),
        ("fused", 4, 64, 4, 2),
        ("mbconv", 4, 128, 6, 2),
        ("mbconv", 6, 160, 9, 1),
        ("mbconv", 6, 256, 15, 2),
    ),
    "efficientnet_v2_m": (
        ("fused", 1, 24, 3, 1),
        ("fused", 4, 48, 5, 2),
        ("fused", 4, 80, 5, 2),
        ("mbconv", 4, 160, 7, 2),
        ("mbconv", 6, 176, 14, 1),
        ("mbconv", 6, 304, 18, 2),
        ("mbconv", 6, 512, 5, 1),
    ),
    "efficientnet_v2_l": (
        ("fused", 1, 32, 4, 1),
        ("fused", 4, 64, 7, 2),
        ("fused", 4, 96, 7, 2),
        ("mbconv", 4, 192, 10, 2),
        ("mbconv", 6, 224, 19, 1),
        ("mbconv", 6, 384, 25, 2),
        ("mbconv", 6, 640, 7, 1),
    ),
}
#     resolution, dropout
V2 = {"efficientnet_v2_s": (384, 0.2), "efficientnet_v2_m": (480, 0.3), "efficientnet_v2_l": (480, 0.4)}


def _stem(out: Width) -> tuple[Conv]:
    return (Conv(out=out, kernel=3, stride=2, conv="features.0.0", norm="features.0.1"),)


def _head(conv: Width, dropout: float) -> Pooled:
    return Pooled(linear="classifier.1", dropout=dropout, conv=conv, conv_name="features.{stage}")


def _spec(name: str, width: float, depth: float, resolution: int, dropout: float) -> Spec:
    stages = (
        Stage(rows=(Row(block=MBConv(out=out, expand=float(expand), kernel=kernel), repeats=repeats),), stride=stride)
        for expand, kernel, out, repeats, stride in ROWS
    )
    eps, momentum = (1e-3, 0.01) if name in TENSORFLOW_NORM else (1e-5, 0.1)
    return Spec(
        family=FAMILY, name=name, input=Input(size=(resolution, resolution)), stem=_stem(32), small_stem=_stem(32),
        stages=tuple(stages), head=_head(1280, dropout),
        block_name="features.{stage}.{index}", activation="silu", norm_eps=eps, norm_momentum=momentum, drop_path=0.2,
        width=width, depth=depth,
    )  # fmt: skip


def _lite(name: str, width: float, depth: float, resolution: int, dropout: float) -> Spec:
    def stage(expand: int, kernel: int, out: int, repeats: Repeats, stride: int) -> Stage:
        block = MBConv(out=out, expand=float(expand), kernel=kernel, squeeze=None)
        return Stage(rows=(Row(block=block, repeats=repeats),), stride=stride)

    ends = (0, len(ROWS) - 1)
    stages = (
        stage(expand, kernel, out, Fixed(repeats) if i in ends else repeats, stride)
        for i, (expand, kernel, out, repeats, stride) in enumerate(ROWS)
    )
    return Spec(
        family=FAMILY, name=name, input=Input(size=(resolution, resolution)),
        stem=_stem(Fixed(32)), small_stem=_stem(Fixed(32)), stages=tuple(stages), head=_head(Fixed(1280), dropout),
        block_name="features.{stage}.{index}", activation="relu6", drop_path=0.2, width=width, depth=depth,
    )  # fmt: skip


def _v2(name: str, resolution: int, dropout: float) -> Spec:
    def stage(kind: str, expand: int, out: int, repeats: int, stride: int) -> Stage:
        block = (FusedMBConv if kind == "fused" else MBConv)(out=out, expand=float(expand))
        return Stage(rows=(Row(block=block, repeats=repeats),), stride=stride)

    stages = tuple(stage(*row) for row in V2_ROWS[name])
    stem = _stem(V2_ROWS[name][0][2])
    return Spec(
        family=FAMILY, name=name, input=Input(size=(resolution, resolution)), stem=stem, small_stem=stem,
        stages=stages, head=_head(1280, dropout),
        block_name="features.{stage}.{index}", activation="silu", norm_eps=1e-3, drop_path=0.2,
    )  # fmt: skip


def _tensorflow(spec: Spec) -> Spec:
    """The network with TensorFlow's padding and norm constants, under timm's name."""

    def row(row: Row) -> Row:
        assert isinstance(row.block, MBConv | FusedMBConv)
        return replace(row, block=replace(row.block, padding="same"))

    stem = tuple(replace(piece, padding="same") for piece in spec.stem if isinstance(piece, Conv))
    side = 260 if spec.name == "efficientnet_b2" else spec.input.size[0]
    return replace(
        spec, family=TENSORFLOW_FAMILY, name=f"tf_{spec.name.replace('_v2', 'v2')}", input=Input(size=(side, side)),
        stem=stem, small_stem=stem,
        stages=tuple(replace(stage, rows=tuple(map(row, stage.rows))) for stage in spec.stages),
        norm_eps=1e-3, norm_momentum=0.01,
    )  # fmt: skip


_NETWORKS = (
    *(_spec(name, *row) for name, row in COEFFICIENTS.items()),
    *(_lite(name, *row) for name, row in LITE_COEFFICIENTS.items()),
    *(_v2(name, *row) for name, row in V2.items()),
)
TABLE = {spec.name: spec for spec in (*_NETWORKS, *map(_tensorflow, _NETWORKS))}
