"""`prune`: a trained network in, a smaller one out, in a run folder of its own.

In rounds, of which each cuts a part of the way to the target and trains the network on; the last has half of the
training, the others share the rest evenly, and their networks are artifacts in `candidates/`, from which an interrupted
run goes on. Without training there is one round, after which batch norm's statistics are taken again on training
pictures. The frame is `netsmith.fit.stage`; training is the Trainer's, by a recipe that is composed as `train` composes
it for weights that were trained before.

A pruned network has to be better than one that was made as small from the start: so where it is trained on and kept,
such a one, scaled down by its family's own rule, is trained for as long as both trainings of the pruned one took, and
both stand in the ledger. Where it is left out, or its training breaks down, the ledger says so, and why: the verdict on
the pruned one is that of the first measurement, before the other is trained.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.arch.cost import cost
from netsmith.arch.graph import Norm
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.scale_to import Times, resolve
from netsmith.artifact.bundle import CONFIG, Bundle, artifact_hash
from netsmith.artifact.runtimes import choose_runtime
from netsmith.errors import CheckError, InputError
from netsmith.fit.composing import (
    FLAGS,
    UNNORMALISED,
    compose_recipe,
    given_layers,
    last_given,
    refuse_taught,
)
from netsmith.fit.cutting import Channels, CostLimit, Cut, LatencyLimit, Milliseconds, SingleWeights, Wish, in_words
from netsmith.fit.explaining import what_it_shows
from netsmith.fit.finish import ATTEMPTS
from netsmith.fit.going_on import (
    BASELINE,
    Round,
    Training,
    announcement,
    enter_twin,
    make_twin,
    refuse_without_twin,
    spec_of,
)
from netsmith.fit.judged import Found, Judged, verdict
from netsmith.fit.recipes import look_at
from netsmith.fit.session import Session
from netsmith.fit.single import refuse_other_recipe, told
from netsmith.fit.stage import Parent, Stage, open_parent, run_stage
from netsmith.fit.starting import Continued
from netsmith.run.budget import Budget
from netsmith.run.files import make_folder
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.run.recipe import Recipe
from netsmith.run.result import Result
from netsmith.run.scores import METRICS

if TYPE_CHECKING:
    from torch import nn

    from netsmith.models.network import Network
    from netsmith.train.evaluate import Evaluation

PRUNE, CUT = "prune", "cut"
"""Rows of the ledger."""
VERDICT = "prune.verdict"
"""Row of the plan."""
ROUNDS = "rounds"
"""Folder of the rounds before the last, in the run."""
RATES = {"sgd": 0.02, "adamw": 1e-3, "rmsprop": 2e-3, "muon": 1e-3, "lamb": 2e-3}
"""Rate after a cut, by optimizer: above that of `train --from`, because what was cut has to be made up for."""
KEPT = {"img_size": "--img-size", "drop_rate": "--drop", "drop_path": "--drop-path"}
"""Fields of a recipe that a pruned network has from the whole one, and their flags."""
MAX_DROP = 1.0
"""Points of the headline that pruning may cost on validation."""


@dataclass(frozen=True, kw_only=True)
class PruneJob:
    """What was asked for.

    Attributes:
        source: folder of the artifact, or of the run that holds it.
        wish: channels that go; None where single weights do.
        sparsity: share of the single weights that go; None where channels do.
        per_layer: of single weights, that share of every layer.
        flags: recipe fields that were given as flags.
        config: a recipe file under the flags.
        steps: rounds of cutting and training.
        twin: whether a natively scaled-down network is trained beside it; None for where it is trained itself, and its
            family has such a network.
        max_drop: points of the headline that it may lose on validation; None does not ask.
        resume: go on with an interrupted run.
    """

    source: Path
    wish: Wish | None
    sparsity: float | None = None
    per_layer: bool = False
    flags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Path | None = None
    steps: int = 1
    twin: bool | None = None
    max_drop: float | None = MAX_DROP
    resume: bool = False

    @cached_property
    def layers(self) -> list[tuple[str, dict[str, Any]]]:
        """What was said of the recipe, the strongest last."""
        return given_layers(self.config, self.flags)

    def wishes(self) -> dict[str, Any]:
        """What decides which network comes out, beside the recipe, by flag."""
        wish = self.wish
        if wish is None:
            return {"--unstructured": self.sparsity, "--per-layer": self.per_layer, "--steps": self.steps}
        return {
            f"--{wish.measure}": in_words(wish.target), "--importance": wish.importance,
            "--per-layer": wish.spread == "per-layer", "--round-to": wish.round_to, "--min-width": wish.min_width,
            "--steps": self.steps,
        }  # fmt: skip

    @property
    def trains(self) -> bool:
        """Whether a length was given for training."""
        return any(last_given(self.layers, key) is not None for key in ("time_s", "epochs"))


def prune_run(job: PruneJob, session: Session, *, measure_s: float = 2.0) -> Result:
    """Do the job in the session's folder, or go on with it where it was interrupted.

    Args:
        job: what is asked for.
        session: where the pictures are ("": those of the model's run), where the run goes, who is told.
        measure_s: seconds of one latency measurement.

    Raises:
        InputError: model, target, recipe, pictures or folder cannot be used; before anything is trained.
        CheckError: what came out is refused, or does not keep its word.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    parent = open_parent(job.source)
    parent.refuse_quantized(PRUNE)
    refuse_taught(job.layers)
    if job.steps > 1 and not job.trains:
        raise InputError(
            "--steps cuts little by little, with training between; give --epochs or --time, or leave it out"
        )
    _refuse_other_network(job, parent.bundle.layout, side=parent.bundle.config.preprocess.size)
    if job.wish is None and last_given(job.layers, "opt") == "muon":
        raise InputError("--opt muon turns zeros of --unstructured into other numbers; take sgd or adamw")
    network = parent.network()
    cut, budget = _cut_of(job, parent, session)
    if not (session.output.is_dir() and any(session.output.iterdir())):  # else it was found possible already
        cut.refuse(network)
        if job.twin:
            refuse_without_twin(parent, trains=job.trains)
    pruning = _Pruning(job, cut)
    seed = last_given(job.layers, "seed", 0)
    return run_stage(
        PRUNE, parent, session, pruning.work, resume=job.resume, seed=seed, budget=budget, measure_s=measure_s
    )


def _refuse_other_network(job: PruneJob, layout: Layout, *, side: int) -> None:
    """Refuse a recipe for another network than the one that is pruned, which keeps its own side and rates."""
    own = {"img_size": side, "drop_rate": layout.head.dropout, "drop_path": layout.drop_path}
    for where, values in job.layers:
        for key, flag in KEPT.items():
            if values.get(key, own[key]) not in (own[key], 0):  # 0 is the network's own
                what = flag if where == FLAGS else f"{where}: {key}"
                raise InputError(f"{what} cannot change here: the network keeps its own, {own[key]:g}; leave it out")


def _cut_of(job: PruneJob, parent: Parent, session: Session) -> tuple[Cut, Budget]:
    """How it is cut, and what the result is held to."""
    if job.wish is None:
        assert job.sparsity is not None, "one of the two"
        return SingleWeights(sparsity=job.sparsity, spread="per-layer" if job.per_layer else "global"), Budget()
    wish, now = job.wish, cost(parent.bundle.layout)
    match wish.measure, wish.target:
        case "latency", Times() | Milliseconds() as limit:
            runtime, threads = choose_runtime(parent.bundle, warn=session.warn)
            timed = LatencyLimit(parent.bundle, limit, runtime=runtime, threads=threads, progress=session.progress)
            budget = Budget(latency_ms=limit.limit if isinstance(limit, Milliseconds) else None)
            return Channels(wish=wish, limit=timed), budget
        case "macs" | "params" as measure, int() | Times() as target:
            whole = now.macs if measure == "macs" else now.params
            most = resolve(target, now, measure)
            return Channels(wish=wish, limit=CostLimit(measure, whole, most)), Budget(**{f"{measure}": most})
        case measure, target:
            raise AssertionError(f"{measure} cannot be {target}")


class _Pruning:
    """A pruning at work."""

    def __init__(self, job: PruneJob, cut: Cut) -> None:
        self.job, self.cut = job, cut
        limit = cut.limit if isinstance(cut, Channels) else None
        self._threads = limit.threads if isinstance(limit, LatencyLimit) else None  # measured where none are held to

    def work(self, stage: Stage) -> Result:
        """From the opened model to the shipped one."""
        stage.hold_to(self.job.wishes())
        runtime = stage.parent.runtime(stage.finisher.plan, warn=stage.session.warn)
        stage = replace(stage, finisher=replace(stage.finisher, runtime=runtime))
        row = stage.ledger.newest(PRUNE)
        if row is not None and row.verdict == "refused":
            raise CheckError(stage.refusal(row.reason))
        made = None if row is None or row.output is None else stage.made(row.output)
        if made is None:
            training = self._training(stage)
            if not self._alone(stage):
                stage.session.say(announcement(stage.parent, training))
            made = self._made(stage, training)
            if row is None:
                self._settle(stage, made, training)
        return stage.ship(made)

    def _settle(self, stage: Stage, made: Bundle, training: "Training") -> None:
        """Judge what was made, where it is not refused set the twin beside it, and enter both."""
        decided = self._decided(stage, made)
        if stage.ledger.newest(BASELINE) is None:
            beside, how = self._beside(stage, made, training, decided)
            if beside is None:
                enter_twin(stage, decided["row"]["after"], None, how)
            else:  # all three are timed in turns
                _, after, twin = stage.judge(stage.parent.bundle, made, beside)
                enter_twin(stage, after.record(), twin, how)
        stage.obey(stage.ledger.add(PRUNE, **decided["row"]))

    def _decided(self, stage: Stage, made: Bundle) -> dict[str, Any]:
        """The row of the verdict on an artifact, and the limits it misses, by a plan row: a resumed run, which may have
        trained the twin for hours, does not draw another."""
        plan, budget, artifact = stage.finisher.plan, stage.finisher.budget, artifact_hash(made.folder)
        for row in reversed(plan.rows):
            if row.kind == VERDICT and row.value["row"]["output"] == artifact:
                return row.value
        before, after = stage.judge(stage.parent.bundle, made)
        attempts = 1
        while after.missed(budget) and (attempts := attempts + 1) <= ATTEMPTS:
            before, after = stage.judge(stage.parent.bundle, made)
        found = self._verdict(before, after)
        row = {
            "verdict": found.word, "reason": found.reason, "inputs": [before.artifact], "output": artifact,
            "before": before.record(), "after": after.record(), "splits_read": ["train", "val"],
        }  # fmt: skip
        missed = [str(each) for each in after.missed(budget)]
        return plan.add(VERDICT, {"row": row, "missed": missed}, at=0, why="judged before all that is compared with it")

    def _beside(
        self, stage: Stage, made: Bundle, training: "Training", decided: Mapping[str, Any]
    ) -> tuple[Bundle | None, str]:
        """The twin and the length of its training, or None and why there is none."""
        if left_out := self._alone(stage):
            return None, left_out
        if not self.job.twin:
            missed, refused = ", ".join(decided["missed"]), decided["row"]["verdict"] == "refused"
            if refused or missed:
                why = "is refused" if refused else f"misses {missed}"
                return None, f"left out, because the pruned one {why}; --baseline trains one all the same"
        measure = "params" if self.job.wish is not None and self.job.wish.measure == "params" else "macs"
        rounds = self._rounds(stage) if self.job.trains else []
        return make_twin(stage, made, training, rounds=rounds, measure=measure)

    def _verdict(self, before: Judged, after: Judged) -> Found:
        target = self.job.wish.target if self.job.wish is not None and self.job.wish.measure == "latency" else None
        share = target.factor if isinstance(target, Times) else None  # milliseconds are a budget of the whole run
        return verdict(before, after, max_drop=self.job.max_drop, faster=target is not None, share=share)

    def _alone(self, stage: Stage) -> str:
        """Why nothing is trained for comparison; "" where something is."""
        if self.job.twin:
            return ""
        if stage.session.is_step:
            return "left out, because whole orders are compared"
        if self.job.twin is not None:
            return "left out (--no-baseline)"
        if self.job.wish is None:
            return "left out, because single weights make nothing smaller"
        if not self.job.trains:
            return "left out, because nothing is trained here; --baseline trains one for as long as its parent was"
        try:
            spec_of(stage.parent)
        except InputError as error:
            return f"left out, because {error}"
        return ""

    def _training(self, stage: Stage) -> "Training":
        """The recipe, composed anew or held against the one that the run began with, and the pictures."""
        start = Continued(stage.parent)
        rate = rate_after_cut(start.layout, last_given(self.job.layers, "opt", "sgd"))
        begun = Recipe.load(stage.run.recipe) if stage.run.recipe.exists() else None
        below = ("pruning", rate) if begun is None else (str(stage.run.recipe), begun.model_dump())
        layers = [below, *self.job.layers]
        if not self.job.trains:  # the loss by which channels are ranked, and no more
            layers.append(("no training", {"epochs": 1.0, "time_s": None}))
        layers[-1] = (layers[-1][0], {**layers[-1][1], **start.fields})
        recipe = compose_recipe(stage.audited, start, layers=layers)
        if begun is not None:
            refuse_other_recipe(stage.run, begun, recipe)
        if self.job.trains:
            recipe.save(stage.run.recipe)
        return Training(stage, recipe, start.preprocess(look_at(stage.audited), recipe.img_size), self.job.trains)

    def _made(self, stage: Stage, training: "Training") -> Bundle:
        """The pruned network, trained, as an artifact that is not judged yet."""
        steps, parent = self.job.steps, stage.parent
        finished = [number for number in range(1, steps) if (stage.candidate(f"round-{number}") / CONFIG).is_file()]
        done = max(finished, default=0)
        network = _load(stage.candidate(f"round-{done}")) if done else parent.network()
        origin = parent.bundle.config.provenance
        weights = f"{parent.bundle.layout.name} of artifact {parent.artifact}, pruned"
        finisher = replace(stage.finisher, weights=weights, licence=origin.licence)
        untrained = finisher.inherited(origin.model_copy(update={"weights": weights}))
        provenance = None if self.job.trains else untrained
        made: Bundle | None = None
        for number in range(done + 1, steps + 1):
            network, val = self._round(stage, network, training, number)
            name, threads = (f"round-{number}", 1) if number < steps else ("pruned", self._threads)
            made = finisher.export(
                network, stage.candidate(name), preprocess=training.preprocess, recipe=training.recipe,
                thresholds=val.thresholds, threads=threads, provenance=provenance,
            )  # fmt: skip
            network = _load(made.folder)
        assert made is not None, "the last round is always made"
        return made

    def _round(
        self, stage: Stage, network: "Network", training: "Training", number: int
    ) -> "tuple[nn.Module, Evaluation]":
        """Cut a part of the way and train on; gives the network and its answers on validation."""
        steps = self.job.steps
        last = number == steps
        run = self._folder(stage, number)
        make_folder(run.path)
        plan = stage.finisher.plan if last else Plan(run.plan)
        before = cost(network.layout)
        network = self.cut.cut(network, number / steps, plan=plan, asked=training.asked)
        if not self.job.trains and training.recalibrated(network):
            stage.session.say("batch norm's statistics were taken again on training pictures")
        val = training.answers(network)
        after = cost(network.layout)
        said = (
            f"round {number} of {steps}: {before.macs:,} -> {after.macs:,} MACs, {before.params:,} -> {after.params:,} "
            f"params, {val.shown} on validation"
        )
        said += " before training goes on" if self.job.trains else ""
        stage.session.say(said)
        if sum(row.stage == CUT for row in stage.ledger.own) < number:
            stage.ledger.add(
                CUT, verdict="done", reason=said, splits_read=["train", "val"],
                before=asdict(before), after={**asdict(after), METRICS[stage.dataset.task]: val.headline.model_dump()},
            )  # fmt: skip
        if not self.job.trains:
            self.cut.check(network)
            return network, val
        trained = training.train(network, run, plan, share=self._share(number), seed=0 if last else number)
        self.cut.check(trained.network)
        assert trained.val is not None, "every run has validation pictures"
        stage.session.say(told(f"round {number}", trained))
        if last:
            for text in what_it_shows(run):
                stage.session.say(text)
        return trained.network, trained.val

    def _folder(self, stage: Stage, number: int) -> RunFolder:
        """Of a round; the last one's is the run's own."""
        return stage.run if number == self.job.steps else RunFolder(stage.run.path / ROUNDS / str(number))

    def _share(self, number: int) -> float:
        """Of the training that a round has."""
        steps = self.job.steps
        return 1.0 if steps == 1 else 0.5 if number == steps else 0.5 / (steps - 1)

    def _rounds(self, stage: Stage) -> list[Round]:
        """Those that were trained, all of them."""
        cuts = (row.after["macs"] for row in stage.ledger.own if row.stage == CUT)
        return [
            Round(share=self._share(number), macs=macs, plan=Plan(self._folder(stage, number).plan))
            for number, macs in enumerate(cuts, start=1)
        ]


def rate_after_cut(layout: Layout, opt: str) -> dict[str, float]:
    """Fields of the recipe by which a network that was cut is trained on with an optimizer."""
    normed = any(isinstance(op, Norm) for op in layout_graph(layout).ops)
    return {"lr": RATES[opt]} if normed and opt in RATES else {"grad_clip": UNNORMALISED[1]}


def _load(folder: Path) -> "Network":
    from netsmith.models.build import load_model

    return load_model(folder)
