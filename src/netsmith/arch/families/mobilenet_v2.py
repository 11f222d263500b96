"""MobileNetV2: Sandler et al. 2018 (arXiv 1801.04381), table 2.

Deliberate choices: parameter names are torchvision's; the last convolution is never narrower than 1280, as in the
paper's section 4.
"""

from netsmith.arch.blocks.inverted import InvertedResidual
from netsmith.arch.blocks.pieces import Conv
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage
from netsmith.arch.widths import AtLeast

FAMILY = "mobilenet_v2"

# expand, out, repeats, stride
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM = (Conv(out=32, kernel=3, stride=2, conv="features.0.0", norm="features.0.1"),)

TABLE = {
    "mobilenet_v2": Spec(
        family=FAMILY,
        name="mobilenet_v2",
        input=Input(),
        stem=STEM,
        small_stem=STEM,
        stages=tuple(
            Stage(rows=(Row(block=InvertedResidual(out=out, expand=float(expand)), repeats=repeats),), stride=stride)
            for expand, out, repeats, stride in ROWS
        ),
        head=Pooled(linear="classifier.1", dropout=0.2, conv=AtLeast(1280), conv_name="features.{running}"),
        block_name="features.{running}",
        activation="relu6",
    )
}
