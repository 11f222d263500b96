"""`quantize`: the same network in int8, or with its weights in sixteen bits; kept only where it proves itself.

int8 is a ladder (`netsmith.compress.quantize.ladder`): every rung is written as an artifact for each runtime that
computes with bytes (`netsmith.fit.in_runtimes`), opened again, answers the validation pictures and takes turns with the
float model on the clock. The first that loses at most `max_drop` and is faster is shipped, in the runtime in which it
does; where none is, the run ends refused and the float model stays the better one. How graphs are rounded is
`netsmith.fit.rounding`.

Every rung is a row of the ledger, so an interrupted ladder goes on where it was, and one that was refused goes on where
training is allowed anew. It needs no torch but for that (`netsmith.fit.training_rounded`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from netsmith.artifact.bundle import Bundle, Preferred, external_files
from netsmith.artifact.quantization import Calibration
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, choose_runtime
from netsmith.compress.quantize.calibrate import METHODS
from netsmith.compress.quantize.equalize import in_words, pairs
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.half import halve
from netsmith.compress.quantize.ladder import BFLOAT16, Rung, next_rung
from netsmith.errors import CheckError, Diverged, InputError
from netsmith.fit.composing import given_layers
from netsmith.fit.in_runtimes import Limits, Made, serve
from netsmith.fit.judged import Found
from netsmith.fit.parent import open_parent
from netsmith.fit.rounding import Rounder
from netsmith.fit.rungs import RUNG, STAGE, enter_breakdown, nearest, settled, standing, tried
from netsmith.fit.session import Session
from netsmith.fit.stage import Stage, begun_with, run_stage
from netsmith.fit.training_rounded import obstacle
from netsmith.run.budget import Budget
from netsmith.run.ledger import LedgerRow
from netsmith.run.result import Result

INT8_IN = (REFERENCE, "openvino")
"""Runtimes that an int8 graph is judged in, where they run here."""
BFLOAT16_IN = (REFERENCE, "openvino-bf16")
"""Runtimes that a model with its weights in bfloat16 is judged in; the last one computes with them as they are."""


@dataclass(frozen=True, kw_only=True)
class QuantizeJob:
    """What was asked for.

    Attributes:
        source: folder of the model.
        precision: of what is made; None is int8, or where no int8 will do bfloat16.
        max_drop: points of the headline that it may lose on validation.
        faster: whether int8 must also be faster than float.
        budget: limits that layers left in float must not break, and that a runtime is chosen by.
        calibration: the only way of choosing ranges; all of them in turn when None.
        pictures: training pictures to calibrate on, at most.
        seed: of new splits, of which pictures those are and of training.
        training: fields of the recipe that were given; where its length is among them the last rung of int8 may train.
        config: a recipe file for it, in the place of the recipe of the model's run.
        resume: go on with an interrupted run.
        measure_s: seconds of one latency measurement.
    """

    source: Path
    precision: Literal["int8", "float16", "bfloat16"] | None = None
    max_drop: float = 0.5
    faster: bool = True
    budget: Budget | None = None
    calibration: Calibration | None = None
    pictures: int = 256
    seed: int = 0
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Path | None = None
    resume: bool = False
    measure_s: float = 2.0

    def wishes(self) -> dict[str, Any]:
        """What a run is held to: flag -> value. Verdicts belong to their limits; training is held to its recipe."""
        return {
            "--precision": self.precision,
            "--max-drop": self.max_drop,
            "--calibration": self.calibration,
            "--calibration-size": self.pictures,
            "--seed": self.seed,
        }


def quantize_run(job: QuantizeJob, session: Session) -> Result:
    """Do the job in the session's folder, or go on with it where it was interrupted.

    Args:
        job: what is asked for.
        session: where the pictures are, where the run goes, who is told.

    Raises:
        InputError: model, data or folder cannot be used, before anything was written, where the folder is new; or the
            training cannot be had, before the first rung.
        CheckError: nothing that was made is good enough, with the numbers; or the finished run does not keep its word.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    parent = open_parent(job.source)
    parent.refuse_quantized("quantize")
    parent.check_weights()
    given_layers(job.config, job.training)  # a recipe file that is none is told before a folder is made
    if job.pictures < 1:
        raise InputError(f"--calibration-size is {job.pictures}; at least one picture is needed, 256 are usual")
    if outside := external_files(parent.bundle.model_path):
        raise InputError(f"{parent.path} keeps tensors in {outside[0]}; export it again with all of them in model.onnx")
    parent.refuse_not_running(session.warn)  # before anything walks a graph that may not be one
    graph = Graph(parent.bundle.model_path.read_bytes())
    if not graph.layers():
        raise InputError(f"{parent.path} has no convolution or linear layer that could be rounded")
    halved: Made | None = None
    if job.precision in ("float16", "bfloat16"):
        halved = Made(model=halve(graph, job.precision), precision=job.precision)

    def work(stage: Stage) -> Result:
        held = _as_begun(job, stage)
        stage.hold_to(held.wishes())
        if halved is None:
            row = _Ladder(stage, held, graph).climb()
        else:
            row = stage.ledger.newest(STAGE) or _judge_halved(stage, held, graph, halved)
        if row.verdict == "refused":
            raise CheckError(stage.refusal(row.reason))
        made = stage.made(row.output or "")
        if made is None:
            raise InputError(f"{stage.run.path} has lost the model that it kept; quantize again into another folder")
        return stage.ship(made)

    return run_stage(STAGE, parent, session, work, resume=job.resume, seed=job.seed, measure_s=job.measure_s)


def _as_begun(job: QuantizeJob, stage: Stage) -> QuantizeJob:
    """The job; where no precision is given and the run was begun with int8, which once was all that a ladder made, with
    that."""
    if job.precision is not None or begun_with(stage.finisher.plan).get("--precision") != "int8":
        return job
    stage.session.say(f"{stage.run.path} was begun with --precision int8, and goes on so: int8 or nothing")
    return replace(job, precision="int8")


@dataclass(frozen=True)
class _Ladder:
    """The rungs of one run."""

    stage: Stage
    job: QuantizeJob
    graph: Graph

    def climb(self) -> LedgerRow:
        """Try rungs until one is kept or none is left; gives the row of the outcome, the one of before where nothing
        was left to try."""
        own, say = self.stage.ledger.own, self.stage.session.say
        rows = standing(own, trains=bool(self.job.training), int8_in=_here(INT8_IN), bfloat16_in=_here(BFLOAT16_IN))
        rung = self._next(rows, trains=self._trains)
        if rung is None and (outcome := settled(own)) is not None:
            if self.job.training and outcome.verdict == "refused":
                say(
                    "training is allowed, and no rung is left for it: it was tried before, which only another folder "
                    "does anew, or it cannot mend what is wrong"
                )
            return outcome
        if rung is not None and self._trains:
            recipe = self._rounder.recipe  # what does not go together is said before the first rung, not after the last
            say(f"where nothing else will do, {recipe.opt} trains with rounding, at a rate of {recipe.lr:g}")
        if rung is not None:
            self._tell()
        while rung is not None:
            rows.append(self._try(rung))
            rung = self._next(rows, trains=self._trains)
        return self._settle(rows)

    def _next(self, rows: Sequence[LedgerRow], *, trains: bool) -> Rung | None:
        methods = METHODS if self.job.calibration is None else (self.job.calibration,)
        return next_rung(
            [tried(row) for row in rows],
            layers=len(self.graph.layers()),
            methods=methods,
            trains=trains,
            bfloat16=self.job.precision is None and RUNTIMES[BFLOAT16_IN[-1]].obstacle() is None,
        )

    def _tell(self) -> None:
        """In which runtimes things are judged, where that is not plain."""
        say, runtime = self.stage.session.say, self._float.config.preferred.runtime
        if runtime != REFERENCE:
            say(f"{self.stage.parent.path} prefers {runtime} and is timed in it")
        for name in INT8_IN:
            if missing := RUNTIMES[name].obstacle():
                say(f"int8 is judged without {name}, which {missing}")

    @cached_property
    def _trains(self) -> bool:
        """Whether the last rung of int8 may be tried: its length was given, now or when it began, and it can be."""
        begun = self.stage.run.recipe.exists()
        return (begun or bool(self.job.training)) and obstacle(self.stage.parent) is None

    def _try(self, rung: Rung) -> LedgerRow:
        stage = self.stage
        stage.session.say(f"{RUNG}: {rung}")
        try:
            made = self._made(rung)
        except Diverged as error:
            stage.session.say(f"{RUNG}: refused, {error}")
            return enter_breakdown(stage.ledger, rung, str(error), artifact=stage.parent.artifact)
        excluded = () if made.quantization is None else made.quantization.excluded
        limits = Limits(
            max_drop=self.job.max_drop,
            faster=self.job.faster,
            budget=self.job.budget if excluded else None,  # what misses it whole is for the budget's owner to say
            aim=self.job.budget or Budget(),
        )
        first = Preferred(runtime=REFERENCE, threads=stage.finisher.threads(made.model))
        others = [name for name in _here(BFLOAT16_IN if rung == BFLOAT16 else INT8_IN) if name != REFERENCE]
        served = serve(stage, self._float, made, first, others, limits)
        found, learned = served.found, made.learned
        reason = f"{found.reason}; {in_words(pairs(self.graph))}" if rung.equalized else found.reason
        stage.session.say(f"{RUNG}: {found.word}, {reason}")
        return stage.enter(
            served.before,
            served.after,
            Found(found.kept, f"{rung}: {reason}"),
            stage=RUNG,
            more={
                "rung": asdict(rung),
                "excluded": list(excluded),
                "drops": served.drops,
                "slow": served.slow,
                "over": served.over,
                "loses": served.loses,
                "max_drop": self.job.max_drop,
                "elsewhere": [other.record() for other in served.others],
                **({"without": dict(served.without)} if served.without else {}),
                **({"pairs": len(pairs(self.graph))} if rung.equalized else {}),
                **({} if learned is None else {"steps": learned.steps, "epochs": learned.epochs}),
            },
        )

    def _made(self, rung: Rung) -> Made:
        if rung == BFLOAT16:
            return Made(model=halve(self.graph, "bfloat16"), precision="bfloat16")
        return self._rounder.round(rung)

    @cached_property
    def _rounder(self) -> Rounder:
        job = self.job
        return Rounder(
            stage=self.stage, graph=self.graph, calibration=job.calibration, pictures=job.pictures, seed=job.seed,
            training=job.training, config=job.config,
        )  # fmt: skip

    def _settle(self, rows: Sequence[LedgerRow]) -> LedgerRow:
        """The row of the outcome: the rung that was kept, or the one that came nearest."""
        best, reason = nearest(rows)
        if best.verdict != "kept" and self._next(rows, trains=True) is not None:
            why = obstacle(self.stage.parent) or "give --time, such as 5m, or --epochs, with --resume"
            reason += f"; training with rounding was not tried: {why}"
        missing = RUNTIMES[BFLOAT16_IN[-1]].obstacle()
        if best.verdict != "kept" and self.job.precision is None and missing:
            reason += f"; {BFLOAT16} was not tried: {BFLOAT16_IN[-1]} {missing}"
        return self.stage.ledger.add(
            STAGE,
            verdict=best.verdict,
            reason=reason,
            inputs=best.inputs,
            output=best.output,
            before=best.before,
            after=best.after,
            splits_read=["train", "val"],
        )

    @cached_property
    def _float(self) -> Bundle:
        """The model that is begun with, as it is timed."""
        return _with_best_threads(self.stage, self.graph)


def _judge_halved(stage: Stage, job: QuantizeJob, graph: Graph, made: Made) -> LedgerRow:
    """Judge the model with its weights in sixteen bits; gives the row of the outcome.

    Where two runtimes are compared each has the threads that are best for it, the whole model too; in one alone nothing
    is won by threads, and they stay as they are.
    """
    runtime, threads = choose_runtime(stage.parent.bundle, warn=stage.session.warn)
    whole, first, others = stage.parent.bundle, Preferred(runtime=runtime, threads=threads), list[str]()
    if made.precision == "bfloat16" and runtime != BFLOAT16_IN[-1]:
        if missing := RUNTIMES[BFLOAT16_IN[-1]].obstacle():
            stage.session.say(f"it is computed in {runtime} alone: {BFLOAT16_IN[-1]} {missing}")
        else:
            others = [BFLOAT16_IN[-1]]
            whole = _with_best_threads(stage, graph)
            first = whole.config.preferred  # its arithmetic stays that of the whole model
    served = serve(stage, whole, made, first, others, Limits(max_drop=job.max_drop, aim=job.budget or Budget()))
    stage.session.say(f"{STAGE}: {served.found.word}, {served.found.reason}")
    elsewhere = [other.record() for other in served.others]
    more: dict[str, Any] = {"loses": served.loses, "max_drop": job.max_drop, "elsewhere": elsewhere}
    more |= {"without": dict(served.without)} if served.without else {}
    return stage.enter(served.before, served.after, served.found, more=more)


def _here(runtimes: Sequence[str]) -> list[str]:
    """Those of some runtimes that nothing keeps from running here."""
    return [name for name in runtimes if RUNTIMES[name].obstacle() is None]


def _with_best_threads(stage: Stage, graph: Graph) -> Bundle:
    """The model that is begun with, in the runtime that it prefers and runs in here, with the threads that are best for
    it: what is made of it must not win by those."""
    bundle = stage.parent.bundle
    runtime, _ = choose_runtime(bundle, warn=stage.session.warn)
    threads = stage.finisher.threads(graph.model, runtime=runtime, of="parent")
    preferred = Preferred(runtime=runtime, threads=threads)
    return replace(bundle, config=bundle.config.model_copy(update={"preferred": preferred}))
