"""What are Inception's 1x1 reductions and its many kernel sizes worth, at equal MACs?

    python experiments/kernels.py [--small | --full] [--seeds N] [--data DIR] [--estimate]

**Hypotheses.** (1) A network whose 3x3, 5x5 and 7x7 convolutions read 1x1 reductions is more accurate than a naive one
of the same MACs, because what the reductions save buys width. (2) Kernels of several sizes side by side are more
accurate than kernels of one size, again at the same MACs.

**Source.** Szegedy et al. 2015, Going Deeper with Convolutions (arXiv 1409.4842), figure 2: (a) naive, (b) with
reductions, and section 4, which argues by cost and shows no naive network trained.

**What would refute them.** (1) The interval of reduced less naive reaches 0 or lies below it at the same target.
(2) The same for several sizes less any single one, 3x3 above all.

**What popular accounts get wrong.**

- *"Reductions make it cheaper at no loss."* At equal width they lose channels; the question is what they win at equal
  MACs. And they add a layer with its own activation, so the networks differ in depth too.
- *"Large kernels see more, hence the accuracy."* A 5x5 costs 2.8 times a 3x3, a 7x7 5.4 times: at equal MACs they are
  paid for in width. The authors themselves replaced 5x5 by two 3x3 a year later (arXiv 1512.00567).
- *"GoogLeNet has 5x5 branches."* In its paper; the widely used torchvision weights have 3x3 there, by an early slip.

**Design.** Networks of netsmith's own, whose modules have nothing but what is asked about: no pool branch, batch norm
everywhere, the same widths between modules. In those of a single size all channels of a module come from that size.
Every network is scaled in width to the same targets of MACs, at or below them, and sees the same pictures equally often
with one recipe, fixed beforehand. Nothing is chosen, so test pictures are read once per network.

**What a small run cannot show.** At 16 x 16 pixels a 7x7 kernel spans half the picture and the last maps are no larger
than it is, so large kernels have less to see there than on photos. Few passes favour what learns fast. And widths this
small come in coarse steps: the reduced network stays an eighth below the target, which the table's MACs tell.
"""

import sys
from dataclasses import dataclass, field

from intervals import Row, by_cost, difference, over_seeds, percent
from study import Cell, Study, script

from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS, find_spec
from netsmith.arch.scale import for_size
from netsmith.arch.scale_to import scale_to
from netsmith.arch.spec import Spec, with_classes
from netsmith.errors import InputError
from netsmith.run.metrics import Interval
from netsmith.run.recipe import Recipe

REDUCED = "reduced, several sizes"
NETWORKS = {
    "naive, several sizes": "inception_naive",
    REDUCED: "inception_reduced",
    "reduced, 3x3": "inception_reduced_k3",
    "reduced, 5x5": "inception_reduced_k5",
    "reduced, 7x7": "inception_reduced_k7",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large the experiment is.

    Attributes:
        data: name of the data set.
        networks: what is compared, by what it is called in the tables.
        side: of the pictures, pixels.
        macs: targets to which every network is scaled in width.
        train, test: pictures at most, None for all.
        epochs: passes over the training pictures.
    """

    data: str = "cifar10"
    networks: dict[str, str] = field(default_factory=lambda: NETWORKS)
    side: int = 32
    macs: tuple[int, ...]
    train: int | None = None
    test: int | None = None
    epochs: float


# Widths are multiples of 8, and an eighth of a module's are 5x5's: at these targets all five networks come near.
SMALL = Setting(side=16, macs=(28_000_000,), train=5_000, test=2_000, epochs=5.0)
FULL = Setting(macs=(100_000_000, 200_000_000, 400_000_000), epochs=60.0)


def main(study: Study, setting: Setting | None = None) -> None:
    """Scale every arm to every target, train all with every seed, then compare at each target."""
    setting = setting or (FULL if study.options.full else SMALL)
    cells = [
        cell(study, arm, spec, macs, seed, setting=setting)
        for seed in study.seeds
        for macs in setting.macs
        for arm, spec in arms(setting).items()
    ]
    rows = study.run(cells)
    if rows:
        show(study, rows, setting=setting)


def arms(setting: Setting) -> dict[str, Spec]:
    """The networks compared, at the setting's resolution."""
    if missing := [name for name in setting.networks.values() if name not in MODELS]:
        raise InputError(f"this netsmith has no network {missing[0]}, which the experiment compares; update it")
    return {arm: for_size(find_spec(name), setting.side) for arm, name in setting.networks.items()}


def cell(study: Study, arm: str, spec: Spec, macs: int, seed: int, *, setting: Setting) -> Cell:
    """One training."""
    pictures = study.pictures(setting.data, side=setting.side, train=setting.train, test=setting.test)
    scaled = scale_to(with_classes(spec, pictures.classes), macs=macs, rule="width")
    recipe = Recipe(
        model=scaled.name, img_size=setting.side, epochs=setting.epochs, batch_size=64, seed=seed,
        threads=study.options.threads,
        opt="sgd", lr=0.05, weight_decay=5e-4, sched="cosine", warmup=0.05, smoothing=0.1,
        flip=True, pad=max(1, setting.side // 8), crop_scale=None,
    )  # fmt: skip
    return Cell(
        network=scaled.name,
        layout=lower(scaled),
        pictures=pictures,
        recipe=recipe,
        factors={"arm": arm, "target_macs": macs},
    )


def show(study: Study, rows: list[Row], *, setting: Setting) -> None:
    """The table, and accuracy by MACs with a line per arm."""
    names = list(dict.fromkeys(row["arm"] for row in rows))

    def of(arm: str, macs: int) -> list[Row]:
        return [row for row in rows if (row["arm"], row["target_macs"]) == (arm, macs)]

    lines: list[list[str]] = []
    gaps: dict[str, Interval | None] = {}
    for macs in setting.macs:
        for arm in names:
            found, gap = of(arm, macs), ""
            if arm != REDUCED:
                title = arm if len(setting.macs) == 1 else f"{arm}, {macs / 1e6:g} M MACs"
                gaps[title] = difference(of(REDUCED, macs), found, "test_top1")
                gap = percent(gaps[title], sign=True)
            costs = [f"{found[0]['macs'] / 1e6:.2f}", f"{found[0]['params']:,}"]
            lines.append([f"{macs / 1e6:g}", arm, *costs, percent(over_seeds(found, "test_top1")), gap])
    header = ["target, M MACs", "network", "M MACs", "params", "test top-1, %", "reduced, several sizes, less this"]
    study.table(header, lines)
    study.forest(
        "gaps.svg", gaps, label=f"{REDUCED}, less this: test top-1, points",
        about="How much more accurate the reduced Inception of several sizes is than each other network",
    )  # fmt: skip
    study.chart(
        "accuracy-by-macs.svg", [by_cost([of(arm, macs) for macs in setting.macs], "macs", title=arm) for arm in names],
        across="MACs, million", label="test top-1, %", share=True, log_x=True,
        about="Test accuracy by MACs of the naive and the reduced Inception and of single kernel sizes",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(script("kernels", __doc__ or "", main))
