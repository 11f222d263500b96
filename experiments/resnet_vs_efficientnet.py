"""Which is better, ResNet or EfficientNet? Accuracy by parameters, MACs and latency on three data sets.

    python experiments/resnet_vs_efficientnet.py [--small | --full] [--seeds N] [--data DIR] [--estimate]

**Hypothesis.** It depends on what is paid. EfficientNet is more accurate per parameter and per MAC; per millisecond on
a CPU ResNet catches up, because depthwise convolutions, squeeze-excitation and SiLU take more time than their MACs say.

**Source.** Tan and Le 2019 (arXiv 1905.11946), figure 1 and table 2 (accuracy by parameters and FLOPs) and table 4 (on
one CPU core B1 takes a sixth of ResNet-152's time); Bello et al. 2021, Revisiting ResNets (arXiv 2103.07579): trained
alike, ResNets are faster on accelerators at equal accuracy; Wightman et al. 2021, ResNet strikes back (arXiv
2110.00476): the same ResNet-50 goes from 76.1 to 80.4 % by its recipe alone.

**What would refute it.** One family whose networks are on the validation front of all three costs on all three data
sets, with none of the other's on any.

**What popular accounts get wrong.**

- *"EfficientNet-B0 beats ResNet-50 with a fifth of the parameters"* compares two recipes, years apart. Here pictures,
  number of them, recipe and size of the search for a learning rate are the same.
- *"Ten times fewer FLOPs is ten times faster."* Latency is measured here, on the file that would ship, in a fresh
  process; it is the third cost beside the two that can be counted.
- *"EfficientNet's formula is a better ResNet formula."* The formula scales any network; the blocks are another matter,
  and blocks are what is compared here: both families are scaled in width to the same MACs.

**Design.** Every network is scaled in width to each target of MACs, at or below it. Its learning rate is the one of
`rates` that is best on *validation* with seed 0, as many tries for each; the other seeds train with that one. Fronts
are those of mean *validation* accuracy; the accuracies shown are of test pictures, which choose nothing. No network
starts from published weights (imagenette224 is cut out of ImageNet, so weights from there would have seen its
pictures). Latency: p90 of single pictures, ONNX Runtime, fp32, untrained weights of the same graph.

**int8.** The hypothesis for int8 is that the order changes again (on ONNX Runtime B0 gains far less than ResNet-50).
netsmith cannot quantize yet: rows hold `int8_ms: null`, and nothing here says anything about int8.

**What a small run cannot show.** Networks of a few million MACs on small pictures, trained for minutes, with two
learning rates: EfficientNet was made for ImageNet, large pictures and hundreds of passes. And latency holds for the
machine of the row only.
"""

import json
import sys
from dataclasses import dataclass

from intervals import Row, by_cost, over_seeds, percent
from study import Cell, Study, script

from netsmith.arch.layout import Layout
from netsmith.arch.lower import lower
from netsmith.arch.names import find_spec
from netsmith.arch.scale import for_size
from netsmith.arch.scale_to import scale_to
from netsmith.arch.spec import with_classes
from netsmith.artifact.measure import measure_many
from netsmith.export.probe import probe_onnx
from netsmith.fit.stopwatch import QUIET, timing_key
from netsmith.run.files import append_jsonl, read_jsonl, write_text
from netsmith.run.machine import machine
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe

COSTS = {"params": "parameters, million", "macs": "MACs, million", "ms": "latency fp32, p90, ms"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A data set and how large the experiment is on it.

    Attributes:
        data: name of the data set.
        side: of the pictures, pixels.
        macs: targets to which every network is scaled in width.
        train, test: pictures at most, None for all.
        epochs: passes over the training pictures.
        flip: whether a mirrored picture is still of its class.
        photos: whether pictures are cropped at random as photos are, rather than padded and cropped.
    """

    data: str
    side: int
    macs: tuple[int, ...]
    train: int | None = None
    test: int | None = None
    epochs: float
    flip: bool = True
    photos: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Families with their networks, data sets, learning rates to choose from, seconds of one measurement."""

    families: dict[str, tuple[str, ...]]
    subjects: tuple[Subject, ...]
    rates: tuple[float, ...]
    seconds: float = 2.0


SMALL = Setting(
    families={"ResNet": ("resnet18",), "EfficientNet": ("efficientnet_b0",)},
    rates=(0.03, 0.1),
    subjects=(
        Subject(data="cifar10", side=32, macs=(6_000_000, 18_000_000), train=4_000, test=2_000, epochs=4.0),
        Subject(
            data="fashion-mnist", side=32, macs=(6_000_000, 18_000_000), train=4_000, test=2_000, epochs=4.0, flip=False
        ),
        Subject(data="imagenette224", side=64, macs=(10_000_000, 30_000_000), epochs=8.0, photos=True),
    ),
)
FULL = Setting(
    families={"ResNet": ("resnet18", "resnet50"), "EfficientNet": ("efficientnet_b0",)},
    rates=(0.0125, 0.025, 0.05, 0.1, 0.2),
    subjects=(
        Subject(data="cifar10", side=32, macs=(20_000_000, 60_000_000, 180_000_000, 540_000_000), epochs=100.0),
        Subject(data="fashion-mnist", side=32, macs=(20_000_000, 60_000_000, 180_000_000), epochs=60.0, flip=False),
        Subject(
            data="imagenette224", side=160, macs=(100_000_000, 300_000_000, 900_000_000), epochs=200.0, photos=True
        ),
    ),
)


def main(study: Study, setting: Setting | None = None) -> None:
    """On every data set: train every network with its best rate and every seed, time it, then draw the fronts."""
    setting = setting or (FULL if study.options.full else SMALL)
    for subject in setting.subjects:
        groups = [
            trained(study, family, name, macs, subject=subject, rates=setting.rates)
            for macs in subject.macs
            for family, names in setting.families.items()
            for name in names
        ]
        if not study.options.estimate:
            layouts = [layout for layout, _ in groups]
            timed = latencies(study, layouts, seconds=setting.seconds)
            rows = [[row | timed[timing_key(layout)] for row in found] for layout, found in groups]
            show(study, rows, subject=subject, families=list(setting.families))


def trained(
    study: Study, family: str, name: str, macs: int, *, subject: Subject, rates: tuple[float, ...]
) -> tuple[Layout, list[Row]]:
    """One network on one data set: what it is, and its rows over seeds with the rate that validation chose."""
    pictures = study.pictures(subject.data, side=subject.side, train=subject.train, test=subject.test)
    spec = scale_to(with_classes(for_size(find_spec(name), subject.side), pictures.classes), macs=macs, rule="width")
    layout = lower(spec)

    def cell(rate: float, seed: int) -> Cell:
        recipe = Recipe(
            model=spec.name, img_size=subject.side, epochs=subject.epochs, batch_size=64, seed=seed,
            threads=study.options.threads,
            opt="sgd", lr=rate, weight_decay=5e-4, sched="cosine", warmup=0.05, smoothing=0.1, flip=subject.flip,
            pad=0 if subject.photos else subject.side // 8, crop_scale=(0.35, 1.0) if subject.photos else None,
        )  # fmt: skip
        factors = {"family": family, "base": name, "target_macs": macs}
        return Cell(network=spec.name, layout=layout, pictures=pictures, recipe=recipe, factors=factors)

    first, *others = study.seeds
    tried = study.run([cell(rate, first) for rate in rates])
    if not tried:  # an estimate: any rate takes as long
        study.run([cell(rates[0], seed) for seed in others])
        return layout, []
    best = max(tried, key=lambda row: -1.0 if row["diverged"] else row["val_top1"])
    return layout, [best, *study.run([cell(best["lr"], seed) for seed in others])]


def latencies(study: Study, layouts: list[Layout], *, seconds: float) -> dict[str, Row]:
    """Latency of every layout by its key, measured once a machine; what was noisy is measured again the next time.

    Returns:
        `ms`: p90 of fp32; `ms_high`: its upper bound; `noise` of the machine; `threads`; `int8_ms`: always None.
    """
    path = study.folder / "latencies.jsonl"
    threads = study.options.threads or min(machine().cores_physical, machine().cores_usable)
    here = {"machine_key": machine().key, "threads": threads}
    known = {row["key"]: row for row in read_jsonl(path) if row.items() >= here.items()}
    missing = {timing_key(layout): layout for layout in layouts if timing_key(layout) not in known}
    if missing:
        study.say(f"timing {len(missing)} networks ...")
    models = [probe_onnx(layout, preprocess=Preprocess(size=layout.input.size[0])) for layout in missing.values()]
    measured = measure_many(models, threads=threads, seconds_each=seconds, deadline_s=60.0 * max(1, len(models)))
    for (key, layout), found in zip(missing.items(), measured, strict=True):
        assert found is not None, "the deadline is far beyond what the measurements take"
        times = {"ms": found.p90_ms, "ms_high": found.high, "noise": found.noise, "int8_ms": None}
        known[key] = {"key": key, "network": layout.name, **here, **times}
        if found.noise < QUIET:
            append_jsonl(path, known[key])
        else:
            study.say(f"{layout.name}: the machine was busy (noise {found.noise:.2f}); its latency holds little")
    taken = ("ms", "ms_high", "noise", "threads", "int8_ms")
    return {timing_key(layout): {name: known[timing_key(layout)][name] for name in taken} for layout in layouts}


def on_front(groups: list[list[Row]], cost: str) -> list[bool]:
    """Of every network, whether none is as cheap and more accurate on validation, or cheaper and as accurate."""

    def judged(rows: list[Row]) -> tuple[float, float]:
        top1 = over_seeds(rows, "val_top1")
        return rows[0][cost], top1.value if top1 else -1.0

    points = [judged(rows) for rows in groups]
    return [not any(a <= price and b >= top1 and (a, b) != (price, top1) for a, b in points) for price, top1 in points]


def show(study: Study, groups: list[list[Row]], *, subject: Subject, families: list[str]) -> None:
    """Per data set: the table, all numbers as JSON, and one chart per cost."""
    fronts = {cost: on_front(groups, cost) for cost in COSTS}
    lines: list[list[str]] = []
    for place, rows in enumerate(groups):
        first = rows[0]
        costs = [f"{first['params']:,}", f"{first['macs'] / 1e6:.2f}", f"{first['ms']:.2f}", "not there yet"]
        front = ", ".join(cost for cost in COSTS if fronts[cost][place]) or "none"
        accuracies = [percent(over_seeds(rows, name)) for name in ("val_top1", "test_top1")]
        lines.append([f"`{first['network']}`", *costs, f"{first['lr']:g}", *accuracies, front])
    header = ["network", "params", "M MACs", "fp32 p90, ms", "int8, ms", "rate", "validation top-1, %", "test top-1, %"]
    study.table([*header, "on the front of"], lines, file=f"{subject.data}.md")
    flat = [
        row | {f"front_{cost}": fronts[cost][place] for cost in COSTS}
        for place, rows in enumerate(groups)
        for row in rows
    ]
    text = "".join(json_line({name: value for name, value in row.items() if name != "curve"}) for row in flat)
    write_text(study.folder / f"{subject.data}-fronts.jsonl", text)
    for cost, label in COSTS.items():
        series = [
            by_cost([rows for rows in groups if rows[0]["family"] == family], cost, title=family) for family in families
        ]
        study.chart(
            f"{subject.data}-{cost}.svg", series, across=label, label="test top-1, %", share=True, log_x=True,
            about=f"Test accuracy on {subject.data} by {label} of ResNets and EfficientNets",
        )  # fmt: skip


def json_line(row: Row) -> str:
    """A row as a line of a JSON-lines file."""
    return json.dumps(row, allow_nan=False) + "\n"


if __name__ == "__main__":
    sys.exit(script("resnet_vs_efficientnet", __doc__ or "", main))
