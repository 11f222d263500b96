"""VGG: Simonyan and Zisserman 2015 (arXiv 1409.1556), table 1, columns A, B, D and E, also with batch norm.

Deliberate choices: parameter names are torchvision's; a pool opens every stage but the first, and the last pool belongs
to the head, which keeps 7 x 7 positions (fewer for small pictures).
"""

from netsmith.arch.blocks.pieces import AdaptivePool, Conv, Pool
from netsmith.arch.heads import Flattened, Hidden
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "vgg"

WIDTHS = (64, 128, 256, 512, 512)
#            3x3 convolutions per stage
REPEATS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
POOL = Row(block=Pool(kernel=2, stride=2, padding=0, name="features.{layer}"))
HEAD = Flattened(
    pieces=(Pool(kernel=2, stride=2, padding=0, name="features.last"), AdaptivePool(size=7)),
    hidden=(Hidden(name="classifier.0", width=4096), Hidden(name="classifier.3", width=4096, dropout=0.5)),
    linear="classifier.6",
    dropout=0.5,
)


def _spec(name: str, repeats: tuple[int, ...], *, norm: str | None) -> Spec:
    convs = (
        Row(block=Conv(out=out, kernel=3, conv="features.{layer}", norm=norm, bias=True), repeats=n)
        for out, n in zip(WIDTHS, repeats, strict=True)
    )
    first, *others = convs
    return Spec(
        family=FAMILY, name=name, input=Input(), stem=(), small_stem=(),
        stages=(Stage(rows=(first,)), *(Stage(rows=(POOL, row), stride=2) for row in others)),
        head=HEAD, block_name="features.{layer}",
    )  # fmt: skip


TABLE = {
    **{name: _spec(name, repeats, norm=None) for name, repeats in REPEATS.items()},
    **{f"{name}_bn": _spec(f"{name}_bn", repeats, norm="features.{next}") for name, repeats in REPEATS.items()},
}
