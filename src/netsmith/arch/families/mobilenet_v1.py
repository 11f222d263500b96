"""MobileNet: Howard et al. 2017 (arXiv 1704.04861), table 1.

Deliberate choices, as in the authors' code and timm's `mobilenetv1_100`: ReLU6, and stride 1 in the last block (table 1
says 2, but keeps the map at 7x7). Parameter names are like those of torchvision's MobileNetV2.
"""

from netsmith.arch.blocks.pieces import Conv
from netsmith.arch.blocks.separable import Separable
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "mobilenet_v1"

# out, repeats, stride
ROWS = (
    (64, 1, 1),
    (128, 2, 2),
    (256, 2, 2),
    (512, 6, 2),
    (1024, 2, 2),
)
STEM = (Conv(out=32, kernel=3, stride=2, conv="features.0.0", norm="features.0.1"),)

TABLE = {
    "mobilenet_v1": Spec(
        family=FAMILY,
        name="mobilenet_v1",
        input=Input(),
        stem=STEM,
        small_stem=STEM,
        stages=tuple(
            Stage(rows=(Row(block=Separable(out=out), repeats=repeats),), stride=stride)
            for out, repeats, stride in ROWS
        ),
        head=Pooled(linear="classifier"),
        block_name="features.{running}",
        activation="relu6",
    )
}
