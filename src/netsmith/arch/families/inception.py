"""Networks of plain Inception modules, naive and reduced, for questions about kernels.

The idea is figure 2 of Szegedy et al. 2015 (arXiv 1409.4842): several kernel sizes look at the same map and their
outputs are concatenated; (a) does so naively, (b) puts a 1x1 convolution before each larger kernel, which makes the
same outputs several times cheaper. `inception_naive` and `inception_reduced` have kernels of 1, 3, 5 and 7. Their twins
`..._k3`, `..._k5` and `..._k7` have all channels from one kernel, so that several sizes can be compared with one.

Deliberate choices: these are networks of this project, no published ones. A module puts out a quarter of its channels
by 1x1, half by 3x3 and an eighth each by 5x5 and 7x7 (GoogLeNet's proportions, its pool branch given to the 7x7); there
is no pool branch, which would pass all channels on in the naive form and blur what is compared. A reduction is half as
wide as what its kernel puts out. Naive and reduced networks and their twins have the same widths between modules. The
stem is GoogLeNet's at half its width, so that most of the arithmetic is in what is compared; batch norm behind every
convolution.
"""

from netsmith.arch.blocks.branches import Branches
from netsmith.arch.blocks.pieces import Conv
from netsmith.arch.families.googlenet import max_pool, stem, unit
from netsmith.arch.heads import Pooled
from netsmith.arch.spec import Input, Row, Spec, Stage

FAMILY = "inception"

# channels that a module of the stage puts out, modules
STAGES = ((128, 2), (256, 4), (512, 2))

# kernel -> one in so many of these channels is its
SHARES = {1: 4, 3: 2, 5: 8, 7: 8}


def _branch(kernel: int, out: int, *, reduced: bool) -> tuple[Conv, ...]:
    name = f"branch{kernel}x{kernel}"
    if kernel == 1 or not reduced:
        return (unit(name, out, kernel),)
    return (unit(f"{name}.0", out // 2), unit(f"{name}.1", out, kernel))


def _module(out: int, *, reduced: bool, single: int | None) -> Branches:
    shares = {kernel: out // share for kernel, share in SHARES.items()} if single is None else {single: out}
    return Branches(branches=tuple(_branch(kernel, width, reduced=reduced) for kernel, width in shares.items()))


def _spec(name: str, *, reduced: bool, single: int | None = None) -> Spec:
    """A network; `single` is its only kernel, None for all of them."""
    rows = [
        Row(block=_module(out, reduced=reduced, single=single), repeats=repeats, name=f"inception{number}")
        for number, (out, repeats) in enumerate(STAGES, start=3)
    ]
    return Spec(
        family=FAMILY, name=name, input=Input(),
        stem=stem(7, first=32, last=96), small_stem=stem(3, first=32, last=96),
        stages=(
            Stage(rows=(rows[0],)),
            Stage(rows=(Row(block=max_pool("maxpool3", kernel=2)), rows[1]), stride=2),
            Stage(rows=(Row(block=max_pool("maxpool4", kernel=2)), rows[2]), stride=2),
        ),
        head=Pooled(linear="fc", dropout=0.2), block_name="inception{stage}_{index}",
    )  # fmt: skip


TABLE = {
    "inception_naive": _spec("inception_naive", reduced=False),
    "inception_reduced": _spec("inception_reduced", reduced=True),
    **{f"inception_naive_k{k}": _spec(f"inception_naive_k{k}", reduced=False, single=k) for k in (3, 5, 7)},
    **{f"inception_reduced_k{k}": _spec(f"inception_reduced_k{k}", reduced=True, single=k) for k in (3, 5, 7)},
}
