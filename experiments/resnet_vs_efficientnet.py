"""Which is better, ResNet or EfficientNet? Accuracy by parameters, MACs and latency on three data sets.

    python experiments/resnet_vs_efficientnet.py [--small | --full] [--only SET] [--estimate | --latencies]

**Hypothesis.** It depends on what is paid. EfficientNet is more accurate per parameter and per MAC; per millisecond on
a CPU ResNet catches up, because depthwise convolutions, squeeze-excitation and SiLU take more time than their MACs say.
In int8 the order changes again, for ResNet: its dense 3x3 convolutions gain most from 8-bit arithmetic.

**Source.** Tan and Le 2019 (arXiv 1905.11946), figure 1 and table 2 (accuracy by parameters and FLOPs) and table 4 (on
one CPU core B1 takes a sixth of ResNet-152's time); Bello et al. 2021, Revisiting ResNets (arXiv 2103.07579): trained
alike, ResNets are faster on accelerators at equal accuracy; Wightman et al. 2021, ResNet strikes back (arXiv
2110.00476): the same ResNet-50 goes from 76.1 to 80.4 % by its recipe alone.

**What would refute it.** One family whose networks are on the validation front of all four costs on all three data
sets, with none of the other's on any.

**What popular accounts get wrong.**

- *"EfficientNet-B0 beats ResNet-50 with a fifth of the parameters"* compares two recipes, years apart. Here pictures,
  number of them, recipe and size of the search for a learning rate are the same.
- *"Ten times fewer FLOPs is ten times faster."* Latency is measured here, on the file that would ship, in a fresh
  process; fp32 and int8 are the third and the fourth cost beside the two that can be counted.
- *"EfficientNet's formula is a better ResNet formula."* The formula scales any network; the blocks are another matter,
  and blocks are what is compared here: both families are scaled in width to the same MACs.

**Design.** Every network is scaled in width to each target of MACs, at or below it. Its learning rate is the one of
`rates` that is best on *validation* with seed 0, as many tries for each; the other seeds train with that one. Fronts
are those of mean *validation* accuracy; the accuracies shown are of test pictures, which choose nothing. No network
starts from published weights (imagenette224 is cut out of ImageNet, so weights from there would have seen its
pictures).

**int8.** Every trained network is exported, quantized by ONNX Runtime's own quantizer over its training pictures and
opened again; the accuracies of int8 are those of that file, so what int8 loses stands beside what it saves. It is the
plain recipe (`int8.py`): no pass over sensitive layers, no bias correction. What a network loses by it may not be lost.

**Latency.** p90 of single pictures, ONNX Runtime, in a fresh process in which the networks take turns, of the same
graph with untrained weights, quantized by the same function for int8: speed depends on the graph and not on the
values. So latencies can be measured apart, with `--latencies` on a quiet machine; every measurement is kept with the
noise of its machine, and of several the one with the least noise counts.

**What a small run cannot show.** Networks of a few million MACs on small pictures, trained for minutes, with two
learning rates: EfficientNet was made for ImageNet, large pictures and hundreds of passes. And latency holds for the
machine of the row only.
"""

import json
import sys
from dataclasses import dataclass

import numpy as np
from int8 import CALIBRATION, quantized
from intervals import Row, by_cost, difference, mean_of, over_seeds, percent
from picture_sets import Pictures
from study import Cell, Study, script
from torch import nn

from netsmith.arch.layout import Layout
from netsmith.arch.lower import lower
from netsmith.arch.names import find_spec
from netsmith.arch.scale import for_size
from netsmith.arch.scale_to import scale_to
from netsmith.arch.spec import with_classes
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.measure import measure_many
from netsmith.artifact.runtimes import open_model
from netsmith.export.network import convert_network
from netsmith.export.probe import probe_onnx
from netsmith.fit.stopwatch import QUIET, timing_key
from netsmith.run.clock import SystemClock
from netsmith.run.files import append_jsonl, read_jsonl, write_text
from netsmith.run.machine import machine, versions
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe

COSTS = {"params": "", "macs": "", "ms": "", "int8_ms": "int8_"}
"""What is paid, and how the accuracies begin that it buys: those of the float network, or of its int8 file."""
PRECISIONS = {"fp32": "", "int8": "int8_"}
"""How the fields of a precision begin."""


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
        if study.options.only not in (None, subject.data):
            continue
        networks = [
            (family, name, macs)
            for macs in subject.macs
            for family, names in setting.families.items()
            for name in names
        ]
        classes = study.pictures(subject.data, side=subject.side, train=subject.train, test=subject.test).classes
        layouts = [scaled(name, macs, side=subject.side, classes=classes) for _, name, macs in networks]
        if study.options.latencies:
            latencies(study, layouts, seconds=setting.seconds)
            continue
        groups = [
            trained(study, layout, family, name, macs, subject=subject, rates=setting.rates)
            for layout, (family, name, macs) in zip(layouts, networks, strict=True)
        ]
        if not study.options.estimate:
            timed = latencies(study, layouts, seconds=setting.seconds)
            rows = [[row | times for row in found] for found, times in zip(groups, timed, strict=True)]
            show(study, rows, subject=subject, families=list(setting.families))


def scaled(name: str, macs: int, *, side: int, classes: int) -> Layout:
    """A network at a data set's resolution, scaled in width to a target."""
    return lower(scale_to(with_classes(for_size(find_spec(name), side), classes), macs=macs, rule="width"))


def trained(
    study: Study, layout: Layout, family: str, name: str, macs: int, *, subject: Subject, rates: tuple[float, ...]
) -> list[Row]:
    """Rows over seeds of one network on one data set, with the rate that validation chose."""
    pictures = study.pictures(subject.data, side=subject.side, train=subject.train, test=subject.test)

    def cell(rate: float, seed: int) -> Cell:
        recipe = Recipe(
            model=layout.name, img_size=subject.side, epochs=subject.epochs, batch_size=64, seed=seed,
            threads=study.options.threads,
            opt="sgd", lr=rate, weight_decay=5e-4, sched="cosine", warmup=0.05, smoothing=0.1, flip=subject.flip,
            pad=0 if subject.photos else subject.side // 8, crop_scale=(0.35, 1.0) if subject.photos else None,
        )  # fmt: skip
        factors = {"family": family, "base": name, "target_macs": macs, "calibration": CALIBRATION}
        return Cell(
            network=layout.name, layout=layout, pictures=pictures, recipe=recipe, factors=factors, ending=int8_accuracy
        )

    first, *others = study.seeds
    tried = study.run([cell(rate, first) for rate in rates])
    if not tried:  # an estimate: any rate takes as long
        return study.run([cell(rates[0], seed) for seed in others])
    best = max(tried, key=lambda row: -1.0 if row["diverged"] else row["val_top1"])
    return [best, *study.run([cell(best["lr"], seed) for seed in others])]


def int8_accuracy(network: nn.Module | None, pictures: Pictures) -> Row:
    """`int8_val_top1` and `int8_test_top1` of a trained network's int8 file in ONNX Runtime."""
    names = {which: f"int8_{which}_top1" for which in ("val", "test")}
    if network is None:
        return dict.fromkeys(names.values()) | {"onnxruntime": versions()["onnxruntime"]}
    labels = [str(label) for label in range(pictures.classes)]
    exported = convert_network(network, labels=labels, preprocess=pictures.preprocess)
    session = open_model(quantized(exported.model, pictures.train.pixels))
    parts = {"val": pictures.val, "test": pictures.test}
    found = {names[which]: evaluate(session, part.pixels, part.labels).top1.value for which, part in parts.items()}
    return found | {"onnxruntime": versions()["onnxruntime"]}


def latencies(study: Study, layouts: list[Layout], *, seconds: float) -> list[Row]:
    """Latencies of every layout, measured once a machine; what was noisy is measured again the next time.

    Returns:
        For every layout `ms`: p90 of fp32; `ms_low`, `ms_high`: its bounds; `noise`: see `unevenness`; the same of
        int8, all beginning with `int8_`; `threads`.
    """
    path = study.folder / "latencies.jsonl"
    study.folder.mkdir(parents=True, exist_ok=True)
    threads = study.options.threads or min(machine().cores_physical, machine().cores_usable)
    here = {"machine": machine().key, "threads": threads, "onnxruntime": versions()["onnxruntime"]}

    def known() -> dict[tuple[str, str], Row]:
        rows = [row for row in read_jsonl(path) if row.items() >= here.items()]
        return {(row["key"], row["precision"]): row for row in sorted(rows, key=unevenness, reverse=True)}

    quiet = {what for what, row in known().items() if unevenness(row) < QUIET}
    missing = {
        (timing_key(layout), precision): layout
        for layout in layouts
        for precision in PRECISIONS
        if (timing_key(layout), precision) not in quiet
    }
    if missing:
        study.say(f"timing {len(missing)} files ...")
    models = [untrained(layout, precision) for (_, precision), layout in missing.items()]
    measured = measure_many(models, threads=threads, seconds_each=seconds, deadline_s=60.0 * max(1, len(models)))
    for ((key, precision), layout), found in zip(missing.items(), measured, strict=True):
        assert found is not None, "the deadline is far beyond what the measurements take"
        times = {"ms": found.p90_ms, "ms_low": found.low, "ms_high": found.high, "noise": found.noise}
        date = SystemClock().wall()[:10]
        append_jsonl(path, {"key": key, "network": layout.name, "precision": precision, **here, "date": date, **times})
        if (noise := unevenness(times)) >= QUIET:
            study.say(f"{layout.name}, {precision}: the machine was busy (noise {noise:.2f}); this holds little")
    best = {what: row | {"noise": unevenness(row)} for what, row in known().items()}
    taken = ("ms", "ms_low", "ms_high", "noise")
    return [
        {"threads": threads}
        | {
            start + name: best[timing_key(layout), precision][name]
            for precision, start in PRECISIONS.items()
            for name in taken
        }
        for layout in layouts
    ]


def unevenness(times: Row) -> float:
    """Noise of the machine while it measured, or the distance of p90's bounds as a share of it: the larger."""
    return max(times["noise"], (times["ms_high"] - times["ms_low"]) / times["ms"])


def untrained(layout: Layout, precision: str) -> bytes:
    """The ONNX file of a layout with random weights, as fast as that of the trained network."""
    side = layout.input.size[0]
    model = probe_onnx(layout, preprocess=Preprocess(size=side))
    noise = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    return model if precision == "fp32" else quantized(model, noise)


def on_front(groups: list[list[Row]], cost: str) -> list[bool]:
    """Of every network, whether none is as cheap and more accurate on validation, or cheaper and as accurate."""

    def judged(rows: list[Row]) -> tuple[float, float]:
        top1 = over_seeds(rows, f"{COSTS[cost]}val_top1")
        return rows[0][cost], top1.value if top1 else -1.0

    points = [judged(rows) for rows in groups]
    return [not any(a <= price and b >= top1 and (a, b) != (price, top1) for a, b in points) for price, top1 in points]


def show(study: Study, groups: list[list[Row]], *, subject: Subject, families: list[str]) -> None:
    """Per data set: the table, all numbers as JSON, and charts by parameters, MACs and latency."""
    fronts = {cost: on_front(groups, cost) for cost in COSTS}
    lines: list[list[str]] = []
    for place, rows in enumerate(groups):
        first = rows[0]
        times = [f"{first[f'{start}ms']:.2f} ({first[f'{start}noise']:.2f})" for start in PRECISIONS.values()]
        front = ", ".join(cost for cost in COSTS if fronts[cost][place]) or "none"
        accuracies = [percent(over_seeds(rows, name)) for name in ("val_top1", "test_top1", "int8_test_top1")]
        costs = [f"{first['params']:,}", f"{first['macs'] / 1e6:.2f}", *times]
        finished = [row for row in rows if not row["diverged"]]
        lost = mean_of([row["int8_test_top1"] - row["test_top1"] for row in finished]) if finished else None
        accuracies.append(percent(lost, sign=True))
        lines.append([f"`{first['network']}`", *costs, f"{first['lr']:g}", *accuracies, front])
    header = ["network", "params", "M MACs", "fp32 p90, ms (noise)", "int8 p90, ms (noise)", "rate"]
    header += [
        "validation top-1, %",
        "test top-1, %",
        "int8 test top-1, %",
        "int8 less fp32, points",
        "on the front of",
    ]
    study.table(header, lines, file=f"{subject.data}.md")
    gaps = {
        f"{mine[0]['base']} at {mine[0]['target_macs'] / 1e6:g} M, {precision}": difference(
            mine, theirs, f"{start}test_top1"
        )
        for precision, start in PRECISIONS.items()
        for mine in groups
        for theirs in groups
        if mine[0]["target_macs"] == theirs[0]["target_macs"]
        and (mine[0]["family"], theirs[0]["family"]) == (families[0], families[-1])
    }
    study.forest(
        f"{subject.data}-gaps.svg", gaps, label=f"{families[0]} less {families[-1]}: test top-1, points",
        about=f"How much more accurate ResNets are on {subject.data} than EfficientNets of the same target of MACs",
    )  # fmt: skip
    flat = [
        row | {f"front_{cost}": fronts[cost][place] for cost in COSTS}
        for place, rows in enumerate(groups)
        for row in rows
    ]
    text = "".join(json_line({name: value for name, value in row.items() if name != "curve"}) for row in flat)
    write_text(study.folder / f"{subject.data}-fronts.jsonl", text)
    by_family = {family: [rows for rows in groups if rows[0]["family"] == family] for family in families}
    for cost, label in {"params": "parameters, million", "macs": "MACs, million"}.items():
        study.chart(
            f"{subject.data}-{cost}.svg", [by_cost(mine, cost, title=family) for family, mine in by_family.items()],
            across=label, label="test top-1, %", share=True, log_x=True,
            about=f"Test accuracy on {subject.data} by {label} of ResNets and EfficientNets",
        )  # fmt: skip
    series = [
        by_cost(
            mine, f"{start}ms", title=f"{family} {precision}", accuracy=f"{start}test_top1",
            colour=place, dashed=precision == "int8",
        )
        for place, (family, mine) in enumerate(by_family.items())
        for precision, start in PRECISIONS.items()
    ]  # fmt: skip
    study.chart(
        f"{subject.data}-ms.svg", series, across="latency, p90, ms", label="test top-1, %", share=True, log_x=True,
        about=f"Test accuracy on {subject.data} by latency of ResNets and EfficientNets in fp32 and int8",
    )  # fmt: skip


def json_line(row: Row) -> str:
    """A row as a line of a JSON-lines file."""
    return json.dumps(row, allow_nan=False) + "\n"


if __name__ == "__main__":
    sys.exit(
        script(
            "resnet_vs_efficientnet", __doc__ or "", main, timed=True, sets=[subject.data for subject in SMALL.subjects]
        )
    )
