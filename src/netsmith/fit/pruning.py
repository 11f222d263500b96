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

`--resume` draws a verdict anew only where the question is another one: by another `--max-drop`, or after a training
that was not asked for before; and where a time was missed, because another session may measure less. It is drawn on
validation pictures, so nothing is spent by asking again.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.arch.cost import cost
from netsmith.arch.graph import Norm
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.scale_to import Times
from netsmith.artifact.bundle import CONFIG, Bundle, artifact_hash
from netsmith.errors import CheckError, InputError
from netsmith.fit.composing import UNNORMALISED, compose_recipe, last_given, refuse_taught
from netsmith.fit.cutting import Channels, Cut, LatencyLimit
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
    telling_how_to_do_without,
)
from netsmith.fit.judged import Found, Judged, verdict
from netsmith.fit.prune_job import PruneJob, cut_of, refuse_other_network
from netsmith.fit.recipes import look_at
from netsmith.fit.session import Session
from netsmith.fit.single import refuse_other_recipe, told
from netsmith.fit.stage import Stage, open_parent, run_stage
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
    refuse_other_network(job, parent.bundle.layout, side=parent.bundle.config.preprocess.size)
    if job.wish is None and last_given(job.layers, "opt") == "muon":
        raise InputError("--opt muon turns zeros of --unstructured into other numbers; take sgd or adamw")
    network = parent.network()
    parent.refuse_not_running(lambda _: None)  # before anything is trained; who stands in for it is told later
    cut, budget = cut_of(job, parent, session)
    if not (session.output.is_dir() and any(session.output.iterdir())):  # else it was found possible already
        cut.refuse(network)
        if job.twin:
            refuse_without_twin(parent, trains=job.trains)
    pruning = _Pruning(job, cut)
    seed = last_given(job.layers, "seed", 0)
    return run_stage(
        PRUNE, parent, session, pruning.work, resume=job.resume, seed=seed, budget=budget, measure_s=measure_s
    )


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
        drawn = None if row is None else self._drawn(stage, row.output)
        anew = row is None or row.verdict == "refused"
        if row is not None and anew and self._stands(drawn):
            raise CheckError(stage.refusal(row.reason, output=row.output))
        if not anew and not self._stands(drawn):
            raise InputError(
                f"the network in {stage.run.path} was judged by another --max-drop, or without --time or --epochs, and "
                "kept; go on as it was typed then, or name another folder with -o"
            )
        if row is not None and anew:
            self._refuse_to_ask_otherwise(stage, row.output, drawn)
        made = None if row is None or row.output is None or self._trains_now(drawn) else stage.made(row.output)
        if made is None or anew:
            training = self._training(stage)
            if not self._left_out(stage):
                stage.session.say(announcement(stage.parent, training, asked=bool(self.job.twin)))
            made = made or self._made(stage, training)
            if anew:
                self._settle(stage, made, training)
        return stage.ship(made)

    def _settle(self, stage: Stage, made: Bundle, training: "Training") -> None:
        """Judge what was made, where it is not refused set the twin beside it, and enter both."""
        decided = self._decided(stage, made)
        there = stage.ledger.newest(BASELINE)
        if there is None or (there.output is None and stage.ledger.newest(PRUNE) is not None):  # left out when refused
            with telling_how_to_do_without():
                twin, how = self._beside(stage, made, training, decided)
                if twin is None:
                    enter_twin(stage, decided["after"], None, how)
                else:  # all three are timed in turns
                    _, after, judged = stage.judge(stage.parent.bundle, made, twin)
                    enter_twin(stage, after.record(), judged, how)
        stage.obey(stage.ledger.add(PRUNE, **decided))

    def _refuse_to_ask_otherwise(self, stage: Stage, artifact: str | None, drawn: Mapping[str, Any] | None) -> None:
        """Refuse to judge anew what was trained as if it were not, and what is compared with another network."""
        if stage.run.recipe.exists() and not self.job.trains:
            raise InputError(f"{stage.run.path} was begun with --time or --epochs; type that again beside --resume")
        there = stage.ledger.newest(BASELINE)
        if self._trains_now(drawn) and there is not None and there.output is not None and artifact in there.inputs:
            raise InputError(
                f"{stage.run.path} holds a network that was trained to be compared with the one that was only cut; "
                "name another folder with -o"
            )

    def _drawn(self, stage: Stage, artifact: str | None) -> Mapping[str, Any] | None:
        """The newest verdict on an artifact; None where none is recorded."""
        values = (row.value for row in reversed(stage.finisher.plan.rows) if row.kind == VERDICT)
        return next((value for value in values if value["row"]["output"] == artifact), None)

    def _stands(self, drawn: Mapping[str, Any] | None) -> bool:
        """Whether the verdict of an earlier session is what would be drawn now, as far as anybody can know."""
        if drawn is None:
            return True
        same = drawn.get("max_drop", self.job.max_drop) == self.job.max_drop
        late = drawn["missed"] and drawn["row"]["verdict"] == "refused"
        return same and not late and not self._trains_now(drawn)

    def _trains_now(self, drawn: Mapping[str, Any] | None) -> bool:
        """Whether what an earlier session judged was only cut, and is to be trained."""
        return drawn is not None and self.job.trains and not drawn.get("trained", True)

    def _decided(self, stage: Stage, made: Bundle) -> dict[str, Any]:
        """The row of the verdict on an artifact, by a plan row: a resumed run, which may have trained the twin for
        hours, does not draw another."""
        plan, budget, artifact = stage.finisher.plan, stage.finisher.budget, artifact_hash(made.folder)
        drawn = self._drawn(stage, artifact)
        if drawn is not None and self._stands(drawn):
            return drawn["row"]
        before, after = stage.judge(stage.parent.bundle, made)
        attempts = 1
        while after.missed(budget) and (attempts := attempts + 1) <= ATTEMPTS:
            before, after = stage.judge(stage.parent.bundle, made)
        found = self._verdict(before, after, budget)
        row = {
            "verdict": found.word, "reason": found.reason, "inputs": [before.artifact], "output": artifact,
            "before": before.record(), "after": after.record(), "splits_read": ["train", "val"],
        }  # fmt: skip
        value = {
            "row": row, "max_drop": self.job.max_drop, "trained": self.job.trains,
            "missed": [str(each) for each in after.missed(budget)],
        }  # fmt: skip
        return plan.add(VERDICT, value, at=0, why="judged before all that is compared with it")["row"]

    def _beside(
        self, stage: Stage, made: Bundle, training: "Training", decided: Mapping[str, Any]
    ) -> tuple[Bundle | None, str]:
        """The twin and the length of its training, or None and why there is none."""
        if left_out := self._left_out(stage):
            return None, left_out
        if not self.job.twin and decided["verdict"] == "refused":
            return None, "left out, because the pruned one is refused; --baseline trains one all the same"
        measure = "params" if self.job.wish is not None and self.job.wish.measure == "params" else "macs"
        rounds = self._rounds(stage) if self.job.trains else []
        return make_twin(stage, made, training, rounds=rounds, measure=measure)

    def _verdict(self, before: Judged, after: Judged, budget: Budget) -> Found:
        target = self.job.wish.target if self.job.wish is not None and self.job.wish.measure == "latency" else None
        share, most = target.factor if isinstance(target, Times) else None, self.job.max_drop
        found = verdict(before, after, max_drop=most, faster=target is not None, share=share, budget=budget)
        mends = ["measure again with --resume when the machine is quiet"] if after.missed(budget) else []
        if not self.job.trains and not verdict(before, after, max_drop=most).kept:
            mends += ["nothing was trained after the cut: give --time such as 10m, or --epochs, with --resume"]
        return replace(found, reason="; ".join([found.reason, *mends]))

    def _left_out(self, stage: Stage) -> str:
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
