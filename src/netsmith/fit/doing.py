"""An order of `compress`, done: every step a run of its verb, asked for as the order and the budget say.

A stage's own gate is eased where the budget is the judge: what rounding loses, up to `LOOSEST` points, is for the
comparison in the end to say, which holds it against `--max-drop` and everything else that was made.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from netsmith.arch.cost import cost
from netsmith.artifact.bundle import Bundle, load_bundle
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.half import beyond_float16
from netsmith.fit.composing import given_layers
from netsmith.fit.cutting import Wish
from netsmith.fit.distilling import DistillJob, distill_run
from netsmith.fit.job import TrainJob
from netsmith.fit.prune_job import PruneJob
from netsmith.fit.pruning import prune_run, rate_after_cut
from netsmith.fit.quantizing import QuantizeJob, quantize_run
from netsmith.fit.reaching import Reaching
from netsmith.fit.rungs import loses
from netsmith.fit.single import FREE
from netsmith.fit.stage import Parent, Stage, begun_with
from netsmith.fit.steps import FOLDER, Step, Steps
from netsmith.fit.training_rounded import FIXED
from netsmith.run.budget import Budget
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.search.orders import Order

ROUNDING = Order(("quantize",)).step(0)
"""The model's own ladder, without training at first; where int8 only answers worse it may go on with training."""
INT8_DROP, LOOSEST = 0.5, 5.0
"""Points that int8 may cost at first, and that any rounding may cost at most where the budget asks for it."""
OWN = frozenset(
    {
        "model", "pretrained", "parent", "img_size", "train_size", "drop_rate", "drop_path", "epochs", "time_s",
        "teachers", "distill_loss", "temperature", "alpha", "beta", "label_weight", "hints", "hint_weight",
    }
)  # fmt: skip
"""Fields of a recipe file that are not the user's to choose here: networks, sides, lengths and lessons are the
orders'."""


@dataclass(frozen=True, kw_only=True)
class CompressJob:
    """What was asked for.

    Attributes:
        source: folder of the model.
        budget: limits, at least one.
        time_s: of all training; None for as long as the model was trained, 0 for none.
        max_drop: points of the headline that the result may lose on validation; None does not ask.
        flags: recipe fields that were given as flags, for all that is trained.
        config: a recipe file under the flags, but for its fields in `OWN`.
        unlabelled: folder of pictures without labels, for all that is distilled, or None.
        resume: go on with an interrupted run.
        measure_s: seconds of one latency measurement.
    """

    source: Path
    budget: Budget
    time_s: float | None = None
    max_drop: float | None = None
    flags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Path | None = None
    unlabelled: Path | None = None
    resume: bool = False
    measure_s: float = 2.0

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Fields of the recipe for all that is pruned and distilled, the flags above the file.

        Raises:
            InputError: the file is none, has an unknown key or a value out of range.
        """
        *files, (_, flags) = given_layers(self.config, self.flags)
        return {key: value for _, fields in files for key, value in fields.items() if key not in OWN} | flags

    @property
    def seed(self) -> int:
        """Of splits and training."""
        return int(self.recipe.get("seed", 0))

    def wishes(self) -> dict[str, Any]:
        """What a run is held to: flag -> value."""
        recipe = {name: value for name, value in self.recipe.items() if name not in FREE}
        return {
            "--budget": str(self.budget), "--time": self.time_s, "--max-drop": self.max_drop,
            "the recipe": json.loads(json.dumps(recipe)),
            "--unlabelled": None if self.unlabelled is None else str(self.unlabelled),
        }  # fmt: skip


@dataclass(frozen=True)
class Finalist:
    """What came of an order: its model, and the run of its last training, if it had any."""

    name: str
    bundle: Bundle
    trained: RunFolder | None = None


class Doing:
    """Does the orders of one run.

    Args:
        job: what is asked for.
        stage: the run, at work.
        steps: its steps.
        reaching: how far networks have to shrink.

    Attributes:
        times: seconds of every step that is trained, by its name; none before the time is divided.
    """

    def __init__(self, job: CompressJob, stage: Stage, *, steps: Steps, reaching: Reaching) -> None:
        self._job, self._stage, self._steps, self._reaching = job, stage, steps, reaching
        self.times: Mapping[str, float] = {}

    def do(self, order: Order) -> list[Finalist]:
        """Do the steps of an order; gives what it ends in, and what was trained on the way and may fit as well."""
        source, trained, parts = self._parent.path, None, order.parts()
        found: list[Finalist] = []
        for at in range(len(order.steps)):
            step = self._step(order, at, source)
            if step.failure:
                break
            source = step.run.path
            trained = step.run if at in parts else trained
            if at + 1 == len(order.steps):
                more = ", trained" if step.name == ROUNDING and ROUNDING in self.times else ""
                found.append(Finalist(order.name + more, step.bundle, trained))
            elif at in parts and self._may_fit(step.bundle):
                found.append(Finalist(step.name, step.bundle, trained))
        return found

    @property
    def _parent(self) -> Parent:
        return self._stage.parent

    def _may_fit(self, bundle: Bundle) -> bool:
        """Whether an artifact keeps all limits that need no stopwatch."""
        counted = cost(bundle.layout)
        values = {"size_bytes": bundle.size_bytes, "macs": counted.macs, "params": counted.params}
        return self._job.budget.model_copy(update={"latency_ms": None}).met(values)

    def _step(self, order: Order, at: int, source: Path) -> Step:
        match order.steps[at]:
            case "quantize":
                return self._quantized(order, at, source)
            case "halve":
                graph = Graph(load_bundle(source).model_path.read_bytes())
                if why := beyond_float16(graph):
                    return self._steps.fail(order.step(at), why)
                return self._in_sixteen_bits(order.step(at), source, "float16")
            case "bfloat16":
                return self._in_sixteen_bits(order.step(at), source, "bfloat16")
            case "prune":
                return self._pruned(order, at, source)
            case "distill":
                return self._distilled(order, at, source)

    def _at_most(self, points: float) -> float:
        """So many points, or as many as the result may lose, where those are fewer."""
        return points if self._job.max_drop is None else min(points, self._job.max_drop)

    def _in_sixteen_bits(self, name: str, source: Path, precision: Literal["float16", "bfloat16"]) -> Step:
        plan = Plan(RunFolder(self._stage.run.path / FOLDER / name).plan)
        allowed = begun_with(plan).get("--max-drop", self._at_most(LOOSEST))  # which was fewer once
        job = QuantizeJob(
            source=source, precision=precision, max_drop=allowed, budget=self._job.budget, seed=self._job.seed,
            resume=True, measure_s=self._job.measure_s,
        )  # fmt: skip
        command = ["quantize", str(source), "--precision", precision, "--max-drop", f"{allowed:g}"]
        return self._steps.take(name, command, lambda session: quantize_run(job, session))

    def _quantized(self, order: Order, at: int, source: Path) -> Step:
        """By the ladder; where it refuses for a few points only, once more with as many allowed: the budget decides."""
        allowed, name = self._at_most(INT8_DROP), order.step(at)
        if name in self.times:
            return self._ladder(name, source, allowed, trains=True)
        step = self._ladder(name, source, allowed)
        row = next(row for row in step.rows if row.stage == "quantize")  # without training, which may have followed
        if row.verdict == "kept":
            return step
        step = replace(step, failure=row.reason)
        if all(each.after["slow"] for each in step.rows if each.stage == "rung"):
            return step
        lost = math.ceil(100 * loses(row) - 1e-6) / 100
        if allowed < lost <= self._at_most(LOOSEST):
            return self._ladder(name.replace("-quantize", "-loosely-quantize"), source, lost)
        return step

    def _ladder(self, name: str, source: Path, max_drop: float, *, trains: bool = False) -> Step:
        job = QuantizeJob(
            source=source, precision="int8", max_drop=max_drop, faster=self._job.budget.latency_ms is not None,
            budget=self._job.budget, seed=self._job.seed, resume=True, measure_s=self._job.measure_s,
        )  # fmt: skip
        if trains:
            flags = {name: value for name, value in self._job.flags.items() if name not in FIXED}
            job = replace(job, training={**flags, "time_s": self.times[name]}, config=self._job.config)
        command = ["quantize", str(source), "--precision", "int8", "--max-drop", f"{max_drop:g}"]
        return self._steps.take(name, command, lambda session: quantize_run(job, session), again=trains)

    def _pruned(self, order: Order, at: int, source: Path) -> Step:
        name = order.step(at)
        reaching = self._reaching
        kept = reaching.kept_of(source, order.form, name) if at else reaching.of(order.form).kept
        if kept is None:
            return self._steps.fail(name, "no pruning of it fits, or none is needed")
        length = {"time_s": self.times[name]} if name in self.times else {}
        job = PruneJob(
            source=source,
            wish=Wish(measure=reaching.measure, target=kept),
            flags={**self._job.recipe, **length},
            max_drop=None,
            resume=True,
        )
        command = ["prune", str(source), f"--{reaching.measure}", str(kept)]
        return self._steps.take(name, command, lambda session: prune_run(job, session, measure_s=self._job.measure_s))

    @property
    def _loss(self) -> str:
        """Of distillation: the one in which labels count in full, because how good the teacher is nobody knows; tags
        and two classes have only Hinton's."""
        config = self._parent.bundle.config
        return "dist" if config.task == "classify" and len(config.labels) > 2 else "kd"

    def _distilled(self, order: Order, at: int, source: Path) -> Step:
        name, config = order.step(at), self._parent.bundle.config
        reach, flags = self._reaching.of(order.form), dict(self._job.recipe)
        if at:
            student = str(source)
            flags = rate_after_cut(load_bundle(source).layout, flags.get("opt", "sgd")) | flags
        else:
            student = (reach.larger if "prune" in order.steps else reach.student) or ""
            flags["img_size"] = config.preprocess.size
        flags |= {"time_s": self.times[name], "distill_loss": self._loss}
        teacher = str(self._parent.path)
        train, more = TrainJob(flags=flags, resume=True), self._job.unlabelled
        job = DistillJob(student=student, teachers=[teacher], train=train, unlabelled=more, twin=False)
        command = ["distill", student, "--teacher", teacher, "--no-twin"]
        command += ["--unlabelled", str(more)] if more else []
        return self._steps.take(name, command, lambda session: distill_run(job, session))
