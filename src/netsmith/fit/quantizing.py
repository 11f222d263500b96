"""`quantize`: the same network in int8, or with its weights in sixteen bits; kept only where it proves itself.

int8 is a ladder (`netsmith.compress.quantize.ladder`): every rung is written as an artifact, opened again, answers the
validation pictures and takes turns with the float model on the clock. The first that loses at most `max_drop` and is
faster is shipped; where none is, the run ends refused and the float model stays the better one. Ranges of activations
come from training pictures, prepared as all pictures are that are judged by.

Every rung is a row of the ledger, so an interrupted ladder goes on where it was, and one that was refused goes on where
training is allowed anew. It needs no torch but for that (`netsmith.fit.training_rounded`).
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.bundle import WEIGHTS, Bundle, Preferred, external_files, write_bundle
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.golden import make_golden
from netsmith.artifact.quantization import Calibration, Quantization
from netsmith.artifact.runtimes import REFERENCE, choose_runtime, open_model, open_session
from netsmith.compress.quantize.calibrate import METHODS, Observed, observe
from netsmith.compress.quantize.equalize import equalize, in_words, pairs
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.half import halve
from netsmith.compress.quantize.ladder import Rung, next_rung
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.compress.quantize.sensitivity import rank
from netsmith.data.cache import prepared
from netsmith.errors import CheckError, Diverged, InputError
from netsmith.fit.calibration import calibration_pictures
from netsmith.fit.judged import Found, verdict
from netsmith.fit.parent import open_parent
from netsmith.fit.rungs import RUNG, STAGE, enter_breakdown, nearest, settled, standing, tried
from netsmith.fit.session import Session
from netsmith.fit.stage import Stage, run_stage
from netsmith.fit.training_rounded import Learned, compose, float_model, obstacle, train_rounded
from netsmith.run.budget import Budget
from netsmith.run.ledger import LedgerRow
from netsmith.run.machine import machine
from netsmith.run.recipe import Recipe
from netsmith.run.result import Result
from netsmith.run.scores import thresholds_for

VNNI = {"avx512_vnni", "avx_vnni"}
"""Either of these multiplies bytes without saturating; on other x86 processors weights have seven bits."""
SENSITIVITY_PICTURES = 64


@dataclass(frozen=True, kw_only=True)
class QuantizeJob:
    """What was asked for.

    Attributes:
        source: folder of the model.
        precision: of what is made.
        max_drop: points of the headline that it may lose on validation.
        faster: whether int8 must also be faster than float.
        budget: limits that layers left in float must not break.
        calibration: the only way of choosing ranges; all of them in turn when None.
        pictures: training pictures to calibrate on, at most.
        seed: of new splits, of which pictures those are and of training.
        training: fields of the recipe that were given; where its length is among them the last rung may train.
        resume: go on with an interrupted run.
        measure_s: seconds of one latency measurement.
    """

    source: Path
    precision: Literal["int8", "float16", "bfloat16"] = "int8"
    max_drop: float = 0.5
    faster: bool = True
    budget: Budget | None = None
    calibration: Calibration | None = None
    pictures: int = 256
    seed: int = 0
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])
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
    if job.pictures < 1:
        raise InputError(f"--calibration-size is {job.pictures}; at least one picture is needed, 256 are usual")
    if outside := external_files(parent.bundle.model_path):
        raise InputError(f"{parent.path} keeps tensors in {outside[0]}; export it again with all of them in model.onnx")
    graph = Graph(parent.bundle.model_path.read_bytes())
    if not graph.layers():
        raise InputError(f"{parent.path} has no convolution or linear layer that could be rounded")
    halved = None if job.precision == "int8" else halve(graph, job.precision)
    open_session(parent.bundle, warn=session.warn)  # refuses a graph that cannot run before a folder is made

    def work(stage: Stage) -> Result:
        stage.hold_to(job.wishes())
        if halved is None:
            row = _Ladder(stage, job, graph).climb()
        else:
            row = stage.ledger.newest(STAGE) or _judge_halved(stage, job, halved)
        if row.verdict == "refused":
            raise CheckError(stage.refusal(row.reason))
        made = stage.made(row.output or "")
        if made is None:
            raise InputError(f"{stage.run.path} has lost the model that it kept; quantize again into another folder")
        return stage.ship(made)

    return run_stage(STAGE, parent, session, work, resume=job.resume, seed=job.seed, measure_s=job.measure_s)


@dataclass(frozen=True)
class _Ladder:
    """The rungs of one run; what several of them need is computed once."""

    stage: Stage
    job: QuantizeJob
    graph: Graph
    _known: dict[str, Any] = field(default_factory=dict[str, Any])

    def climb(self) -> LedgerRow:
        """Try rungs until one is kept or none is left; gives the row of the outcome, the one of before where nothing
        was left to try."""
        own, say = self.stage.ledger.own, self.stage.session.say
        rows = standing(own, trains=bool(self.job.training))
        rung = self._next(rows, trains=self._trains)
        if rung is None and (outcome := settled(own)) is not None:
            if self.job.training and outcome.verdict == "refused":
                say(
                    "training is allowed, and no rung is left for it: it was tried before, which only another folder "
                    "does anew, or it cannot mend what is wrong"
                )
            return outcome
        if rung is not None and self._trains:
            recipe = self._recipe  # what does not go together is said before the first rung, not after the last
            say(f"where nothing else will do, {recipe.opt} trains with rounding, at a rate of {recipe.lr:g}")
        if (runtime := self._float.config.preferred.runtime) != REFERENCE:
            say(
                f"{self.stage.parent.path} prefers {runtime} and is timed in it; int8 in {REFERENCE}, since runtimes "
                "round in ways of their own: netsmith bench --write tries the others on what is shipped"
            )
        while rung is not None:
            rows.append(self._try(rung))
            rung = self._next(rows, trains=self._trains)
        return self._settle(rows)

    def _next(self, rows: Sequence[LedgerRow], *, trains: bool) -> Rung | None:
        methods = METHODS if self.job.calibration is None else (self.job.calibration,)
        return next_rung([tried(row) for row in rows], layers=len(self.graph.layers()), methods=methods, trains=trains)

    @cached_property
    def _trains(self) -> bool:
        """Whether the last rung may be tried: where its length was given, now or when it began, and it can be."""
        begun = self.stage.run.recipe.exists()
        return (begun or bool(self.job.training)) and obstacle(self.stage.parent) is None

    def _try(self, rung: Rung) -> LedgerRow:
        stage = self.stage
        stage.session.say(f"{RUNG}: {rung}")
        rounding = self._rounding(rung)
        learned: Learned | None = None
        if rung.trained:
            try:
                model, learned = self._trained(rung, rounding)
            except Diverged as error:
                stage.session.say(f"{RUNG}: refused, {error}")
                return enter_breakdown(stage.ledger, rung, str(error), artifact=stage.parent.artifact)
        else:
            source = self._equalized if rung.equalized else self.graph
            observed = self._observed(source)
            model = quantize(source, observed.ranges(rung.calibration), rounding, means=observed.means)
        made = _write(
            stage,
            self.job,
            model,
            preferred=Preferred(threads=stage.finisher.threads(model)),
            quantization=Quantization(
                source=sha256(learned.model if learned is not None else self.graph.model).hexdigest(),
                rung=str(rung),
                per_channel=rung.per_channel,
                bits=self._bits,
                calibration=rung.calibration,
                pictures=len(self._pixels),
                excluded=tuple(sorted(rounding.excluded)),
                equalized=rung.equalized,
            ),
            learned=learned,
        )
        before, after = stage.judge(self._float, made)
        budget = self.job.budget if rung.excluded else None  # what misses it whole is for the budget's owner to say
        found = verdict(before, after, max_drop=self.job.max_drop, faster=self.job.faster, budget=budget)
        if not found.kept:
            shutil.rmtree(made.folder)
        reason = f"{found.reason}; {in_words(pairs(self.graph))}" if rung.equalized else found.reason
        stage.session.say(f"{RUNG}: {found.word}, {reason}")
        return stage.enter(
            before,
            after,
            Found(found.kept, f"{rung}: {reason}"),
            stage=RUNG,
            more={
                "rung": asdict(rung),
                "excluded": sorted(rounding.excluded),
                "drops": not verdict(before, after, max_drop=self.job.max_drop).kept,
                "slow": not verdict(before, after, faster=self.job.faster).kept,
                "over": not verdict(before, after, budget=budget).kept,
                **({"pairs": len(pairs(self.graph))} if rung.equalized else {}),
                **({} if learned is None else {"steps": learned.steps, "epochs": learned.epochs}),
            },
        )

    @cached_property
    def _recipe(self) -> Recipe:
        """Of training with rounding."""
        return compose(self.stage, self.job.training, seed=self.job.seed)

    def _trained(self, rung: Rung, rounding: Rounding) -> tuple[bytes, Learned]:
        """The rounded graph of the network that was trained on; its ranges are those that it was trained with."""
        stage, recipe = self.stage, self._recipe
        recipe.save(stage.run.recipe)
        network = stage.parent.network()
        before = Graph(float_model(stage.parent, network).model)
        ranges = self._observed(before).ranges(rung.calibration)
        learned = train_rounded(stage, network, quantize(before, ranges, rounding), recipe, bits=self._bits)
        return quantize(Graph(learned.model), ranges, rounding), learned

    def _settle(self, rows: Sequence[LedgerRow]) -> LedgerRow:
        """The row of the outcome: the rung that was kept, or the one that came nearest."""
        best, reason = nearest(rows)
        if best.verdict != "kept" and self._next(rows, trains=True) is not None:
            why = obstacle(self.stage.parent) or "give --time, such as 5m, or --epochs, with --resume"
            reason += f"; training with rounding, the last rung, was not tried: {why}"
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

    def _rounding(self, rung: Rung) -> Rounding:
        rounding = Rounding(per_channel=rung.per_channel, bits=self._bits, correct_bias=rung.equalized)
        if not rung.excluded:
            return rounding
        key = f"rank {rung.calibration} {rung.per_channel} {rung.equalized}"
        if key not in self._known:
            source = self._equalized if rung.equalized else self.graph
            self._known[key] = rank(
                source, self._observed(source).ranges(rung.calibration), rounding, self._pixels[:SENSITIVITY_PICTURES],
                threads=self._threads, progress=self.stage.session.progress,
            )  # fmt: skip
        return replace(rounding, excluded=frozenset(name for name, _ in self._known[key][: rung.excluded]))

    @cached_property
    def _threads(self) -> int:
        """Of the float model, for all that is computed and not timed: at most the cores here, as `_float` says."""
        return choose_runtime(self.stage.parent.bundle, warn=lambda message: None)[1]

    @cached_property
    def _float(self) -> Bundle:
        """The model that is begun with, in the runtime that it prefers and runs in here, with the threads that are best
        for it: what is made of it must not win by those."""
        bundle, finisher = self.stage.parent.bundle, self.stage.finisher
        runtime, _ = choose_runtime(bundle, warn=self.stage.session.warn)
        threads = finisher.threads(self.graph.model, runtime=runtime, of="parent")
        preferred = Preferred(runtime=runtime, threads=threads)
        return replace(bundle, config=bundle.config.model_copy(update={"preferred": preferred}))

    @cached_property
    def _bits(self) -> Literal[7, 8]:
        """Of a weight, by a plan row."""
        here = machine()
        saturates = here.arch == "x86_64" and not VNNI & {*here.flags}
        decided = self.stage.finisher.plan.decide(
            "quantize.bits",
            at=0,
            compute=lambda: 7 if saturates else 8,
            why="without VNNI products of eight bits saturate" if saturates else "products of eight bits are exact",
        )
        return 7 if decided == 7 else 8

    @cached_property
    def _equalized(self) -> Graph:
        return Graph(equalize(self.graph, self._observed(self.graph).peaks))

    def _observed(self, graph: Graph) -> Observed:
        key = f"observed {sha256(graph.model).hexdigest()}"
        if key not in self._known:
            self._known[key] = observe(
                graph, self._pixels, counted=self.job.calibration != "minmax", threads=self._threads,
                progress=self.stage.session.progress,
            )  # fmt: skip
        return self._known[key]

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        """Training pictures, prepared as all that are judged by."""
        dataset = self.stage.dataset
        items = calibration_pictures(dataset, self.job.pictures, seed=self.job.seed)
        progress = self.stage.session.progress
        pictures = prepared(
            dataset,
            items,
            self.stage.parent.bundle.config.preprocess,
            progress=lambda done, total: progress("preparing calibration pictures", done, total),
        )
        return pictures.pixels


def _judge_halved(stage: Stage, job: QuantizeJob, halved: bytes) -> LedgerRow:
    """Judge the model with its weights in sixteen bits; gives the row of the outcome."""
    runtime, threads = choose_runtime(stage.parent.bundle, warn=stage.session.warn)
    preferred = Preferred(runtime=runtime, threads=threads)
    made = _write(stage, job, halved, preferred=preferred, quantization=None)
    before, after = stage.judge(stage.parent.bundle, made)
    found = verdict(before, after, max_drop=job.max_drop)
    stage.session.say(f"{STAGE}: {found.word}, {found.reason}")
    if not found.kept:
        shutil.rmtree(made.folder)
    return stage.enter(before, after, found)


def _write(
    stage: Stage,
    job: QuantizeJob,
    model: bytes,
    *,
    preferred: Preferred,
    quantization: Quantization | None,
    learned: Learned | None = None,
) -> Bundle:
    """A candidate: the parent's artifact with another graph, and of tags with thresholds of its own answers; where it
    was trained on, with the weights of that."""
    bundle = stage.parent.bundle
    config, path = bundle.config, bundle.folder / WEIGHTS
    weights = path.read_bytes() if path.is_file() else None
    provenance = config.provenance
    if learned is not None:
        weights, provenance = learned.weights, learned.provenance
    session = open_model(model, threads=preferred.threads)
    thresholds = config.thresholds
    if thresholds is not None:
        val = stage.finisher.prepared("val", config.preprocess)
        answers = evaluate(session, val.pixels, val.labels, progress=stage.session.progress)
        thresholds = thresholds_for(answers.logits, val.labels)
    examples = bundle.golden().encoded
    folder = stage.candidate(job.precision)
    shutil.rmtree(folder, ignore_errors=True)  # a removal that was stopped leaves what is no artifact
    return write_bundle(
        folder,
        model=model,
        layout=bundle.layout,
        labels=config.labels,
        preprocess=config.preprocess,
        golden=make_golden(examples, config.preprocess, lambda pixels: session.run(pixels).probabilities),
        weights=weights,
        activation=config.activation,
        thresholds=thresholds,
        temperature=config.temperature,
        precision=job.precision,
        quantization=quantization,
        preferred=preferred,
        provenance=stage.finisher.inherited(provenance),
    )
