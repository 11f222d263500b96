"""EfficientNet B0 to B7: Tan and Le 2019 (arXiv 1905.11946), table 1 and the published coefficients.

Deliberate choices: parameter names, symmetric padding, norm constants (TensorFlow's from B5 on) and B2's 288 pixels are
torchvision's. The published coefficients are a table: the formula does not regenerate the large ones.
"""

from netsmith.arch.blocks.inverted import MBConv
from netsmith.arch.blocks.pieces import Conv
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "efficientnet"

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
STEM = (Conv(out=32, kernel=3, stride=2, conv="features.0.0", norm="features.0.1"),)

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
}
TENSORFLOW_NORM = ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7")


def _spec(name: str, width: float, depth: float, resolution: int, dropout: float) -> Spec:
    stages = (
        Stage(rows=(Row(block=MBConv(out=out, expand=float(expand), kernel=kernel), repeats=repeats),), stride=stride)
        for expand, kernel, out, repeats, stride in ROWS
    )
    eps, momentum = (1e-3, 0.01) if name in TENSORFLOW_NORM else (1e-5, 0.1)
    return Spec(
        family=FAMILY, name=name, input=Input(size=(resolution, resolution)), stem=STEM, small_stem=STEM,
        stages=tuple(stages),
        head=Pooled(linear="classifier.1", dropout=dropout, conv=1280, conv_name="features.{stage}"),
        block_name="features.{stage}.{index}", activation="silu", norm_eps=eps, norm_momentum=momentum, drop_path=0.2,
        width=width, depth=depth,
    )  # fmt: skip


TABLE = {name: _spec(name, *row) for name, row in COEFFICIENTS.items()}
