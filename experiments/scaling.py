"""Grow a network four times over: deeper, wider, on larger pictures, or all three at once?

    python experiments/scaling.py [--small | --full] [--seeds N] [--data DIR] [--estimate]

**Hypothesis.** At equal MACs compound scaling (depth 1.2^phi, width 1.1^phi, resolution 1.15^phi) is more accurate than
spending the same factor on one axis alone.

**Source.** Tan and Le 2019, EfficientNet (arXiv 1905.11946), table 3, ImageNet top-1: MobileNetV2 72.0 -> depth 76.8,
width 76.4, resolution 74.8, compound 77.4; ResNet-50 76.0 -> 78.1, 77.7, 77.5, 78.8. The fifth rule, "fast" (mostly
width), is of Dollar, Singh and Girshick 2021 (arXiv 2103.06877).

**What would refute it.** A single axis that is as accurate as compound scaling: the interval of compound less that axis
reaches 0 or lies below it, for any of the bases.

**What popular accounts get wrong.**

- *"Compound scaling won by points."* The best single axis, depth, is 0.6 to 0.7 points behind in that table, one
  training each, and the networks compared are only roughly of equal MACs. Here no network may have more MACs than the
  target, and the table shows how many it has.
- *"alpha, beta and gamma are constants of nature."* They come from a small grid search on one network at phi = 1, and
  the formula does not even give the published B5 to B7.
- *"The same formula made ResNets."* ResNet's depths were chosen by hand. What is carried over here is the rule.
- *"Equal MACs is equal cost."* Four times the MACs is twice the activations by width, but four times by depth or
  resolution, and time follows activations as much as MACs on many machines. So they stand in the table.

**Design.** The base reads CIFAR-10 at half its resolution, so that larger pictures hold more to see, as on ImageNet.
Every rule scales the base to the same target by netsmith's `scale_to`, at or below it; every network sees the same
pictures equally often with one recipe, fixed beforehand: nothing is chosen, so test pictures are read once per network.

**What a small run cannot show.** A base of 14 layers grown for a few passes over a fifth of CIFAR-10 is far from
convergence, where depth pays late and width early. Depth comes in steps of a block per stage, so a deeper network may
stay clearly below the target. Sides of 17, 19 and 21 pixels (compound, fast) make odd maps, which 16 and 32 do not. And
one learning rate need not suit all five rules equally.
"""

import sys
from dataclasses import dataclass

from intervals import Row, by_cost, difference, over_seeds, percent
from study import Cell, Study, script

from netsmith.arch.lower import lower
from netsmith.arch.names import find_spec
from netsmith.arch.scale import RULES, for_size
from netsmith.arch.scale_to import Times, scale_to
from netsmith.arch.spec import Spec, with_classes
from netsmith.run.metrics import Interval
from netsmith.run.recipe import Recipe

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large the experiment is.

    Attributes:
        data: name of the data set.
        bases: networks to scale.
        side: of the base's pictures, pixels; scaling by resolution alone reads `side` * sqrt(`factor`).
        factor: of the MACs.
        train, test: pictures at most, None for all.
        epochs: passes over the training pictures.
    """

    data: str = "cifar10"
    bases: tuple[str, ...]
    side: int = 16
    factor: float = 4.0
    train: int | None = None
    test: int | None = None
    epochs: float


SMALL = Setting(bases=("resnet14_cifar",), train=10_000, test=2_000, epochs=4.0)
FULL = Setting(bases=("resnet20_cifar", "mobilenet_v2", "efficientnet_b0"), epochs=60.0)


def main(study: Study, setting: Setting | None = None) -> None:
    """Scale every base by every rule, train all with every seed, then compare at the target."""
    setting = setting or (FULL if study.options.full else SMALL)
    cells = [
        cell(study, base, rule, spec, seed, setting=setting)
        for seed in study.seeds
        for base in setting.bases
        for rule, spec in networks(base, setting=setting).items()
    ]
    rows = study.run(cells)
    if rows:
        show(study, rows, setting=setting)


def networks(base: str, *, setting: Setting) -> dict[str, Spec]:
    """The base at its resolution, and what every rule makes of it."""
    spec = for_size(find_spec(base), setting.side)
    return {BASE: spec} | {rule: scale_to(spec, macs=Times(setting.factor), rule=rule) for rule in RULES}


def cell(study: Study, base: str, rule: str, spec: Spec, seed: int, *, setting: Setting) -> Cell:
    """One training."""
    side = spec.input.size[0]
    pictures = study.pictures(setting.data, side=side, train=setting.train, test=setting.test)
    recipe = Recipe(
        model=spec.name, img_size=side, epochs=setting.epochs, batch_size=64, seed=seed,
        threads=study.options.threads,
        opt="sgd", lr=0.05, weight_decay=5e-4, sched="cosine", warmup=0.05, smoothing=0.1,
        flip=True, pad=max(1, side // 8), crop_scale=None,
    )  # fmt: skip
    return Cell(
        network=spec.name,
        layout=lower(with_classes(spec, pictures.classes)),
        pictures=pictures,
        recipe=recipe,
        factors={"base": base, "rule": rule},
    )


def show(study: Study, rows: list[Row], *, setting: Setting) -> None:
    """The table and, for each base, accuracy by MACs with a line from the base to what each rule made of it."""
    lines: list[list[str]] = []
    gaps: dict[str, Interval | None] = {}
    for base in setting.bases:
        by_rule = {rule: [row for row in rows if (row["base"], row["rule"]) == (base, rule)] for rule in (BASE, *RULES)}
        origin = by_rule[BASE][0]
        for rule, found in by_rule.items():
            gap = ""
            if rule not in (BASE, "compound"):
                title = rule if len(setting.bases) == 1 else f"{base}, {rule}"
                gaps[title] = difference(by_rule["compound"], found, "test_top1")
                gap = percent(gaps[title], sign=True)
            times = [f"{found[0][name] / origin[name]:.2f}" for name in ("macs", "params", "activations")]
            top1 = percent(over_seeds(found, "test_top1"))
            lines.append([f"`{base}`", rule, str(found[0]["side"]), *times, top1, gap])
        study.chart(
            f"{base}.svg", [by_cost([by_rule[BASE], by_rule[rule]], "macs", title=rule) for rule in RULES],
            across="MACs, million", label="test top-1, %", share=True,
            about=f"Test accuracy by MACs of {base} and of what each rule of scaling makes of it",
        )  # fmt: skip
    study.forest(
        "gaps.svg", gaps, label="compound less this: test top-1, points",
        about="How much more accurate compound scaling is than every other rule",
    )  # fmt: skip
    header = ["base", "rule", "side", "MACs, times", "params, times", "activations, times", "test top-1, %"]
    study.table([*header, "compound less this, points"], lines)


if __name__ == "__main__":
    sys.exit(script("scaling", __doc__ or "", main))
