"""MnasNet: Tan et al. 2019 (arXiv 1807.11626), the B1 network of the authors' code: figure 7 without
squeeze-excitation.

Deliberate choices: one table under two libraries' names. `mnasnet1_0` and its widths are torchvision's, whose batch
norms average over thousands of steps (momentum 0.0003); `mnasnet_100` is timm's, with torch's own momentum. Weights of
either load into either. Parameter names are like those of torchvision's MobileNetV2, so that the blocks are its too.
The head stays 1280 wide.
"""

from netsmith.arch.blocks.inverted import InvertedResidual
from netsmith.arch.blocks.pieces import Conv
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage
from netsmith.arch.widths import Fixed

FAMILY = "mnasnet"

# expand, kernel, out, repeats, stride
ROWS = (
    (1, 3, 16, 1, 1),
    (3, 3, 24, 3, 2),
    (3, 5, 40, 3, 2),
    (6, 5, 80, 3, 2),
    (6, 3, 96, 2, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
STEM = (Conv(out=32, kernel=3, stride=2, conv="features.0.0", norm="features.0.1"),)

#               width, norm momentum
WIDTHS = {
    "mnasnet0_5": (0.5, 3e-4),
    "mnasnet0_75": (0.75, 3e-4),
    "mnasnet1_0": (1.0, 3e-4),
    "mnasnet1_3": (1.3, 3e-4),
    "mnasnet_100": (1.0, 0.1),
}


def _spec(name: str, width: float, momentum: float) -> Spec:
    stages = (
        Stage(
            rows=(Row(block=InvertedResidual(out=out, expand=float(expand), kernel=kernel), repeats=repeats),),
            stride=stride,
        )
        for expand, kernel, out, repeats, stride in ROWS
    )
    return Spec(
        family=FAMILY, name=name, input=Input(), stem=STEM, small_stem=STEM, stages=tuple(stages),
        head=Pooled(linear="classifier.1", dropout=0.2, conv=Fixed(1280), conv_name="features.{running}"),
        block_name="features.{running}", norm_momentum=momentum, width=width,
    )  # fmt: skip


TABLE = {name: _spec(name, *row) for name, row in WIDTHS.items()}
