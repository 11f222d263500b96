"""MobileNetV3, small and large: Howard et al. 2019 (arXiv 1905.02244), tables 1 and 2.

Deliberate choices: parameter names and norm constants are torchvision's; a squeeze-excitation is a quarter as wide as
the expanded map, rounded to a multiple of 8, as in the authors' code.
"""

from typing import Literal

from netsmith.arch.blocks.inverted import Bneck
from netsmith.arch.blocks.pieces import Conv
from netsmith.arch.heads import Hidden, Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "mobilenet_v3"
RE: Literal["relu"] = "relu"
HS: Literal["hard_swish"] = "hard_swish"

StageRows = tuple[tuple[int, tuple[tuple[int, int, int, bool, Literal["relu", "hard_swish"], int], ...]], ...]

# stride of the stage; its rows: expanded width, kernel, out, squeeze-excitation, activation, repeats
LARGE: StageRows = (
    (1, ((16, 3, 16, False, RE, 1),)),
    (2, ((64, 3, 24, False, RE, 1), (72, 3, 24, False, RE, 1))),
    (2, ((72, 5, 40, True, RE, 1), (120, 5, 40, True, RE, 2))),
    (2, ((240, 3, 80, False, HS, 1), (200, 3, 80, False, HS, 1), (184, 3, 80, False, HS, 2))),
    (1, ((480, 3, 112, True, HS, 1), (672, 3, 112, True, HS, 1))),
    (2, ((672, 5, 160, True, HS, 1), (960, 5, 160, True, HS, 2))),
)
SMALL: StageRows = (
    (2, ((16, 3, 16, True, RE, 1),)),
    (2, ((72, 3, 24, False, RE, 1), (88, 3, 24, False, RE, 1))),
    (2, ((96, 5, 40, True, HS, 1), (240, 5, 40, True, HS, 2))),
    (1, ((120, 5, 48, True, HS, 1), (144, 5, 48, True, HS, 1))),
    (2, ((288, 5, 96, True, HS, 1), (576, 5, 96, True, HS, 2))),
)
STEM = (Conv(out=16, kernel=3, stride=2, conv="features.0.0", norm="features.0.1"),)


def _spec(name: str, table: StageRows, *, conv: int, hidden: int) -> Spec:
    stages = (
        Stage(
            rows=tuple(
                Row(
                    block=Bneck(expand=expand, kernel=kernel, out=out, squeeze=squeeze, activation=activation),
                    repeats=repeats,
                )
                for expand, kernel, out, squeeze, activation, repeats in rows
            ),
            stride=stride,
        )
        for stride, rows in table
    )
    head = Pooled(
        linear="classifier.3", dropout=0.2, conv=conv, conv_name="features.{running}",
        hidden=(Hidden(name="classifier.0", width=hidden),),
    )  # fmt: skip
    return Spec(
        family=FAMILY, name=name, input=Input(), stem=STEM, small_stem=STEM, stages=tuple(stages), head=head,
        block_name="features.{running}", activation=HS, norm_eps=1e-3, norm_momentum=0.01,
    )  # fmt: skip


TABLE = {
    "mobilenet_v3_small": _spec("mobilenet_v3_small", SMALL, conv=576, hidden=1024),
    "mobilenet_v3_large": _spec("mobilenet_v3_large", LARGE, conv=960, hidden=1280),
}
