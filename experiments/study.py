"""What the experiments share: cells and rows. `picture_sets.py` has the data, `intervals.py` the numbers over seeds.

An experiment is a grid of **cells**. A cell is one training of one network with one seed, and gives one **row** of
JSON. Everything that decides what a cell computes (layout, recipe, pictures) is hashed into its key: a row that is
there already is not computed again, so a script can be stopped at any moment and started again, and other settings
are other cells.

Rules that hold for every experiment here:

- Both sides of a comparison get the same pictures, the same recipe and the same number of them; dropout and stochastic
  depth are off on both, because trainings are short and only some of the networks bring them.
- Nothing is chosen on test pictures. Where something is chosen (a learning rate), validation pictures choose, a tenth
  of the training pictures that no network trains on. The last weights count, never the best seen.
- Seeds change initial weights, order and augmentation. An interval is Student's, 95 %, over seeds; differences are
  taken seed by seed. It does not hold what other pictures would change: an accuracy near 70 % on 10,000 test
  pictures is known to 0.9 points at best, whatever the seeds; a difference on the same pictures to less.
- A training whose loss is not finite is a result, not an accident: its row says so.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from intervals import STUDENT, Row
from picture_sets import Part, Pictures, load_pictures
from torch import nn

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, layout_to_json
from netsmith.data.items import Split
from netsmith.errors import CheckError, InputError
from netsmith.models.build import build
from netsmith.report.charts import Estimate, Series, forest, lines, standalone
from netsmith.run.clock import Clock, SystemClock
from netsmith.run.files import append_jsonl, read_jsonl, write_text
from netsmith.run.machine import machine, versions
from netsmith.run.metrics import Interval
from netsmith.run.plan import Plan
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.train.evaluate import evaluate_network
from netsmith.train.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = 2000
"""Training pictures, at most, on which training accuracy is measured: unaugmented, in evaluation mode."""
STEPS_TIMED = 3
MACHINE_CHOICES = {"device", "dtype", "channels_last", "threads", "workers"}  # do not make another cell


# Cells

Look = Callable[[nn.Module, Pictures], Row]
"""What else is recorded whenever a network is looked at; it must leave the network as it was."""
Ending = Callable[[nn.Module | None, Pictures], Row]
"""What else the row holds of the network after its last update; None stands for one that diverged: names, no values."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training.

    Attributes:
        network: its name in tables.
        layout: what is built.
        pictures, recipe: what it is trained on, and how; the recipe holds the seed.
        factors: what the experiment varies, by name; columns of the row.
        marks: how often the network is looked at on the way, the start included; 0: only at the end.
        watch: splits whose accuracy is recorded at marks.
        look: see `Look`.
        ending: see `Ending`.
    """

    network: str
    layout: Layout
    pictures: Pictures
    recipe: Recipe
    factors: Row
    marks: int = 0
    watch: tuple[Split, ...] = ("train", "val")
    look: Look | None = None
    ending: Ending | None = None

    @property
    def key(self) -> str:
        """Equal for cells that compute the same, on whatever machine.

        Of the recipe only what the experiment states counts, so rows outlive fields that recipes gain later.
        """
        recipe = self.recipe.model_dump(mode="json", exclude=MACHINE_CHOICES, exclude_unset=True)
        parts = [layout_to_json(self.layout), recipe, self.pictures.fingerprint, self.marks, self.watch, self.factors]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def accuracy(network: nn.Module, pictures: Pictures, splits: Iterable[Split]) -> Row:
    """`SPLIT_top1` and `SPLIT_loss` of a network in evaluation mode; of training pictures a fixed sample."""
    found: Row = {}
    for which in splits:
        part: Part = getattr(pictures, which)
        most = SAMPLE if which == "train" else len(part.labels)
        rules = pictures.preprocess
        answers = evaluate_network(
            network, part.pixels[:most], part.labels[:most], mean=rules.mean, std=rules.std, batch_size=256
        )
        found |= {f"{which}_top1": answers.top1.value, f"{which}_loss": finite(answers.loss)}
    return found


def finite(value: float) -> float | None:
    """The number itself, or None where it is none that JSON has."""
    return value if isfinite(value) else None


def train_cell(cell: Cell, *, folder: Path, show: Progress = silent) -> Row:
    """Train a cell to its end, going on from what a stopped process left in `folder`; what it gives for the row."""
    folder.mkdir(parents=True, exist_ok=True)
    network = build(cell.layout, seed=cell.recipe.seed, dropout=0.0, drop_path=0.0)
    trainer = Trainer(
        network,
        cell.pictures.data,
        cell.recipe,
        plan=Plan(folder / "plan.jsonl"),
        clock=SystemClock(),
        checkpoints=folder / "checkpoints",
        show=show,
    )
    trainer.resume()
    # Rows beyond the checkpoint are computed again, to the same numbers.
    curve = {row["step"]: row for row in read_jsonl(folder / "curve.jsonl") if row["step"] <= trainer.step}
    try:
        for mark in range(cell.marks):
            step = round(trainer.total_steps * mark / cell.marks)
            if step not in curve:
                trainer.advance(step)
                curve[step] = {"step": step, "progress": mark / cell.marks, **_seen(cell, trainer.network)}
                append_jsonl(folder / "curve.jsonl", curve[step])
                trainer.save()
        trainer.advance()
        last = {"step": trainer.step, "progress": 1.0, **_seen(cell, trainer.network)}
        end: Row = {"diverged": None, **accuracy(trainer.network, cell.pictures, ("train", "val", "test"))}
        end |= cell.ending(trainer.network, cell.pictures) if cell.ending else {}
    except CheckError as error:
        names = [f"{which}_{what}" for which in ("train", "val", "test") for what in ("top1", "loss")]
        last, end = None, {"diverged": str(error), **dict.fromkeys(names)}
        end |= cell.ending(None, cell.pictures) if cell.ending else {}
    rows = [curve[step] for step in sorted(curve)] if cell.marks else []
    return {
        "steps": trainer.step,
        "epochs": trainer.epoch,
        "seconds": trainer.seconds,
        **end,
        "curve": [*rows, last] if cell.marks and last else rows,
    }


def _seen(cell: Cell, network: nn.Module) -> Row:
    if not cell.marks:
        return {}
    more = cell.look(network, cell.pictures) if cell.look else {}
    return accuracy(network, cell.pictures, cell.watch) | more


# Studies


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was typed.

    Attributes:
        full: the version that answers the question, rather than the one that runs on two cores in minutes.
        seeds: how many, counted from 0.
        data: folder of the data sets.
        output: folder of rows, table and charts.
        work: folder of what can be computed again: pixels and checkpoints of unfinished cells.
        threads: of training and of latencies, or None for the usable cores.
        estimate: time a few steps of every network and say how long all would take, in place of running it.
        latencies: measure latencies and nothing else; of an experiment that has any.
        only: the one data set to work on, of an experiment on several; processes may share them out.
    """

    full: bool = False
    seeds: int = 3
    data: Path = ROOT.parent / "shared" / "data"
    output: Path = ROOT / "experiments" / "results"
    work: Path = ROOT / "runs" / "experiments"
    threads: int | None = None
    estimate: bool = False
    latencies: bool = False
    only: str | None = None


def parse(
    about: str, arguments: Sequence[str] | None = None, *, timed: bool = False, sets: Sequence[str] = ()
) -> Options:
    """Options from the command line.

    Args:
        about: the script's docstring, shown by --help.
        arguments: what was typed.
        timed: whether there is --latencies.
        sets: names of the data sets that --only may name.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="two cores, minutes (the default)")
    size.add_argument("--full", action="store_true", help="what the question needs; README.md says how long it takes")
    parser.add_argument("--seeds", type=int, default=Options.seeds, metavar="N", help="2 to 31 for intervals; 3")
    parser.add_argument("--data", type=Path, default=Options.data, help="folder of the data sets")
    parser.add_argument("-o", "--output", type=Path, default=Options.output, help="folder of rows, table and charts")
    parser.add_argument("--work", type=Path, default=Options.work, help="folder of pixels and unfinished cells")
    parser.add_argument("--threads", type=int, help="of training and latencies; the usable cores")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--estimate", action="store_true", help="time a few steps and say how long all would take")
    if timed:
        only.add_argument("--latencies", action="store_true", help="only measure latencies: a quiet machine, minutes")
    if sets:
        parser.add_argument("--only", choices=sets, help="one data set; processes may share them out")
    given = vars(parser.parse_args(arguments))
    del given["small"]
    if not 1 <= given["seeds"] <= len(STUDENT) + 1:
        parser.error(f"--seeds is {given['seeds']}; give 1 to {len(STUDENT) + 1}")
    return Options(**given)


@dataclass
class Study:
    """One experiment at work: its cells, its rows, and what is made of them.

    Args:
        name: of the experiment.
        options: what was typed.
        say: told what happens, a line each.
    """

    name: str
    options: Options
    say: Callable[[str], None] = print
    _rows: dict[str, Row] = field(default_factory=dict[str, Row])
    _pictures: dict[tuple[Any, ...], Pictures] = field(default_factory=dict[tuple[Any, ...], Pictures])

    def __post_init__(self) -> None:
        size = "full" if self.options.full else "small"
        self.folder = self.options.output / f"{self.name}-{size}"
        self.path = self.folder / "rows.jsonl"
        self.ahead: dict[str, float] = {}
        """With `--estimate`: seconds of the cells that have no row yet, by key."""
        self._timed: dict[tuple[Layout, str, int], float] = {}
        self._rows = {row["key"]: row for row in read_jsonl(self.path)}

    @property
    def seeds(self) -> range:
        """Of every comparison."""
        return range(self.options.seeds)

    def pictures(self, name: str, *, side: int, train: int | None = None, test: int | None = None) -> Pictures:
        """A data set; `train` and `test` are the most pictures, as many for validation as for test."""
        asked = (name, side, train, test)
        if asked not in self._pictures:
            most: dict[Split, int | None] = {"train": train, "val": test, "test": test}
            options = self.options
            self._pictures[asked] = load_pictures(name, side=side, most=most, data=options.data, work=options.work)
        return self._pictures[asked]

    def run(self, cells: Sequence[Cell]) -> list[Row]:
        """Rows of the cells, in their order; those that are there are not computed again.

        Returns:
            No rows with `--estimate`, which says how long the cells take instead.
        """
        if self.options.estimate:
            self._estimate(cells)
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, cell in enumerate(cells, start=1):
            if cell.key in self._rows:
                continue
            place = f"[{number}/{len(cells)}] {cell.network}, {cell.pictures.name}, seed {cell.recipe.seed}"
            self.say(f"{place} ...")
            folder = self.options.work / "cells" / cell.key
            row = self._described(cell) | train_cell(cell, folder=folder, show=self._tenths(place))
            append_jsonl(self.path, row)
            self._rows[cell.key] = row
            shutil.rmtree(folder)
            end = "diverged" if row["diverged"] else f"test {100 * row['test_top1']:.1f} %"
            self.say(f"{place}: {end}, {row['seconds']:.0f} s")
        return [self._rows[cell.key] for cell in cells]

    def _tenths(self, place: str) -> Progress:
        """Progress that says something at every tenth."""
        told = 0

        def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
            nonlocal told
            if total and int(10 * done / total) > told:
                told = int(10 * done / total)
                self.say(f"{place}: {note}")

        return show

    def _described(self, cell: Cell) -> Row:
        spent = cost(cell.layout)
        return {
            "experiment": self.name,
            "key": cell.key,
            "network": cell.network,
            "data": cell.pictures.name,
            "side": cell.pictures.preprocess.size,
            **cell.factors,
            "seed": cell.recipe.seed,
            "params": spent.params,
            "macs": spent.macs,
            "activations": spent.activations,
            "pictures": len(cell.pictures.train.labels),
            "n_test": len(cell.pictures.test.labels),
            "lr": cell.recipe.lr,
            "date": SystemClock().wall()[:10],
            "machine": f"{machine().cpu}, {machine().cores_usable} cores",
            "torch": versions()["torch"],
        }

    def _estimate(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            shape = (cell.layout, cell.pictures.fingerprint, cell.recipe.batch_size)
            if shape not in self._timed:
                self._timed[shape] = estimated_seconds(cell)
                self.say(f"{cell.network}, {cell.pictures.name}: {self._timed[shape] / 60:.1f} min a seed (estimate)")
            if cell.key not in self._rows:
                self.ahead[cell.key] = self._timed[shape]

    def chart(self, file: str, series: Sequence[Series], **how: Any) -> None:
        """Write an SVG beside the rows; `how` is passed on to `netsmith.report.charts.lines`."""
        write_text(self.folder / file, standalone(lines(series, name=Path(file).stem, **how)))
        self.say(f"{self.folder / file}")

    def forest(self, file: str, gaps: Mapping[str, Interval | None], *, label: str, about: str) -> None:
        """Write differences with their intervals as an SVG beside the rows; those without an interval are left out."""
        known = [(title, gap) for title, gap in gaps.items() if gap is not None and gap.n > 1]
        rows = [Estimate(title=title, value=gap.value, low=gap.low, high=gap.high) for title, gap in known]
        if rows:
            write_text(
                self.folder / file, standalone(forest(rows, name=Path(file).stem, label=label, about=about, share=True))
            )
            self.say(f"{self.folder / file}")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], *, file: str = "table.md") -> str:
        """Write a table in Markdown beside the rows, and show it."""
        shown = [" | ".join(cells) for cells in (header, ["---"] * len(header), *rows)]
        text = "".join(f"| {line} |\n" for line in shown)
        write_text(self.folder / file, text)
        self.say(text)
        return text


def estimated_seconds(cell: Cell) -> float:
    """Seconds that a cell takes, from the fastest of a few updates and one evaluation: a plan, never a result."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as scratch:
        network = build(cell.layout, seed=0, dropout=0.0, drop_path=0.0)
        trainer = Trainer(network, cell.pictures.data, cell.recipe, plan=Plan(Path(scratch, "plan")), clock=clock)
        trainer.advance(1)  # builds and caches kernels
        step = min(_seconds(clock, lambda: trainer.advance(trainer.step + 1)) for _ in range(STEPS_TIMED))
        part = cell.pictures.val
        count, rules = min(256, len(part.labels)), cell.pictures.preprocess
        pixels, labels = part.pixels[:count], part.labels[:count]
        picture = _seconds(clock, lambda: evaluate_network(network, pixels, labels, mean=rules.mean, std=rules.std))
    sizes = {"train": min(SAMPLE, len(cell.pictures.train.labels))}
    sizes |= {"val": len(cell.pictures.val.labels), "test": len(cell.pictures.test.labels)}
    looks = cell.marks * sum(sizes[which] for which in cell.watch) + sum(sizes.values())
    return trainer.total_steps * step + looks * picture / count


def _seconds(clock: Clock, work: Callable[[], object]) -> float:
    began = clock.now()
    work()
    return clock.now() - began


def script(
    name: str,
    about: str,
    experiment: Callable[[Study], None],
    arguments: Sequence[str] | None = None,
    **flags: Any,
) -> int:
    """Run an experiment as a command; `flags` as for `parse`. Gives the exit code of netsmith's verbs."""
    options = parse(about, arguments, **flags)
    study = Study(name, options)
    try:
        experiment(study)
        if options.estimate:
            minutes = sum(study.ahead.values()) / 60
            study.say(f"{name}: {minutes:.0f} min for {len(study.ahead)} trainings that are not there yet (estimate)")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0
