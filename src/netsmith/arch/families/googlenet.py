"""GoogLeNet: Szegedy et al. 2015 (arXiv 1409.4842), table 1.

Deliberate choices, all torchvision's, whose published weights these are: batch norm behind every convolution (Ioffe and
Szegedy 2015) in place of local response normalisation; the branch that the table calls 5x5 is a 3x3; pools round up;
the classifiers for training read 4 x 4 averages. Parameter names are torchvision's.
"""

from netsmith.arch.blocks.branches import Branches
from netsmith.arch.blocks.draft import Padding, Size
from netsmith.arch.blocks.pieces import AdaptivePool, Conv, Pool
from netsmith.arch.heads import Auxiliary, Flattened, Hidden, Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "googlenet"

# per stage: name, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj
MODULES = (
    (
        ("inception3a", 64, 96, 128, 16, 32, 32),
        ("inception3b", 128, 128, 192, 32, 96, 64),
    ),
    (
        ("inception4a", 192, 96, 208, 16, 48, 64),
        ("inception4b", 160, 112, 224, 24, 64, 64),
        ("inception4c", 128, 128, 256, 24, 64, 64),
        ("inception4d", 112, 144, 288, 32, 64, 64),
        ("inception4e", 256, 160, 320, 32, 128, 128),
    ),
    (
        ("inception5a", 256, 160, 320, 32, 128, 128),
        ("inception5b", 384, 192, 384, 48, 128, 128),
    ),
)


def unit(name: str, out: int, kernel: Size = 1, *, stride: int = 1, padding: Padding = "half") -> Conv:
    """Convolution, norm, activation: what all Inceptions are made of; parameters NAME.conv and NAME.bn."""
    return Conv(out=out, kernel=kernel, stride=stride, padding=padding, conv=f"{name}.conv", norm=f"{name}.bn")


def max_pool(name: str, *, kernel: int = 3) -> Pool:
    """Max pooling that halves the map, rounding up."""
    return Pool(kernel=kernel, stride=2, padding=0, ceil=True, name=name)


def _inception(one: int, reduce3: int, three: int, reduce5: int, five: int, pooled: int) -> Branches:
    """Figure 2 (b) of the paper."""
    return Branches(
        branches=(
            (unit("branch1", one),),
            (unit("branch2.0", reduce3), unit("branch2.1", three, 3)),
            (unit("branch3.0", reduce5), unit("branch3.1", five, 3)),
            (Pool(kernel=3, name="branch4.0"), unit("branch4.1", pooled)),
        )
    )


def _stage(modules: tuple[tuple[str, int, int, int, int, int, int], ...], *, pool: Pool | None) -> Stage:
    rows = tuple(Row(block=_inception(*widths), name=name) for name, *widths in modules)
    return Stage(rows=rows) if pool is None else Stage(rows=(Row(block=pool), *rows), stride=2)


def _auxiliary(name: str, *, after: str) -> Auxiliary:
    head = Flattened(
        pieces=(AdaptivePool(size=4, name=f"{name}.pool"), unit(f"{name}.conv", 128)),
        hidden=(Hidden(name=f"{name}.fc1", width=1024),),
        linear=f"{name}.fc2",
        dropout=0.7,
    )
    return Auxiliary(name=name, after=after, weight=0.3, head=head)


def stem(kernel: int, *, first: int = 64, last: int = 192) -> tuple[Conv | Pool, ...]:
    """Down to an eighth of the side; kernel and width of the first convolution, width of the last."""
    return (
        unit("conv1", first, kernel, stride=2),
        max_pool("maxpool1"),
        unit("conv2", first),
        unit("conv3", last, 3),
        max_pool("maxpool2"),
    )


TABLE = {
    "googlenet": Spec(
        family=FAMILY,
        name="googlenet",
        input=Input(),
        stem=stem(7),
        small_stem=stem(3),
        stages=(
            _stage(MODULES[0], pool=None),
            _stage(MODULES[1], pool=max_pool("maxpool3")),
            _stage(MODULES[2], pool=max_pool("maxpool4", kernel=2)),
        ),
        head=Pooled(linear="fc", dropout=0.2),
        block_name="inception{stage}_{index}",
        norm_eps=1e-3,
        auxiliary=(_auxiliary("aux1", after="inception4a"), _auxiliary("aux2", after="inception4d")),
    )
}
