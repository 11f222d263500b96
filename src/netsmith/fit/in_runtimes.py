"""A model that was made smaller, in every runtime that might serve it: judged in each, and the best is preferred.

    served = serve(stage, whole, made, Preferred(), ["openvino"], Limits(max_drop=0.5, faster=True))
    served.bundle, served.found, served.without

Runtimes round in ways of their own, so the same file is as many candidates as there are runtimes: for each an artifact
is written that prefers it, with its own golden answers and, of tags, thresholds; opened again, it answers the
validation pictures and takes turns with the whole model on the clock. The first runtime is ONNX Runtime, which stands
in where another is missing; so another is kept only where the first answers well enough too. Where sixteen bits are
asked for the first is the one that the whole model prefers: it computes in float32 as what stands in does. Of two that
are kept the quicker is preferred, unless the other answers better beyond chance and keeps what is aimed at. A runtime
in which the model cannot be opened or timed is left out, aloud: only the first has to work.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from netsmith.artifact.bundle import WEIGHTS, Bundle, Precision, Preferred, write_bundle
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.golden import Golden, make_golden
from netsmith.artifact.quantization import Quantization
from netsmith.artifact.runtimes import REFERENCE, Session, open_model
from netsmith.errors import last_line
from netsmith.fit.judged import Found, Judged, as_good, verdict
from netsmith.fit.stage import BROKEN, Stage
from netsmith.fit.training_rounded import Learned
from netsmith.run.budget import Budget
from netsmith.run.scores import METRIC_NAMES, POINTS, change, thresholds_for


@dataclass(frozen=True, kw_only=True)
class Made:
    """A model that was made of a stage's parent.

    Attributes:
        model: content of its `model.onnx`.
        precision, quantization: what its `config.json` says of that.
        learned: the training that it comes from, where it was trained on.
    """

    model: bytes
    precision: Precision
    quantization: Quantization | None = None
    learned: Learned | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is asked of it, as `verdict` is asked; and limits to choose a runtime by that need not be kept."""

    max_drop: float
    faster: bool = False
    budget: Budget | None = None
    aim: Budget = field(default_factory=Budget)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A made model in one runtime.

    Attributes:
        bundle: the artifact that prefers it; there on disk only where it is kept.
        before, after: the whole model and this one.
        found: the verdict; of the chosen one it tells the others' numbers too.
        drops, slow, over: what speaks against it: answers, here or in the first runtime; speed; the budget.
        loses: points of the headline, the more of here and in the first runtime: what a limit has to allow.
        others: the same model in the other runtimes.
        without: runtimes that were left out, and why.
    """

    bundle: Bundle
    before: Judged
    after: Judged
    found: Found
    drops: bool
    slow: bool
    over: bool
    loses: float
    others: tuple[Judged, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def fitness(self) -> tuple[bool, bool, bool, float]:
        """The larger the better; of what is kept, all alike."""
        return self.found.kept, not self.slow, not self.over, 0.0 if self.found.kept else -self.loses


def serve(stage: Stage, whole: Bundle, made: Made, first: Preferred, others: Sequence[str], limits: Limits) -> Served:
    """Judge a model in all of some runtimes and choose one; artifacts that are not kept are removed.

    Args:
        stage: at work.
        whole: what it is held against, in the runtime in which it is timed.
        made: the model.
        first: runtime, with its threads, in which it has to answer well enough whatever is preferred.
        others: that run here, but for those in which this model turns out not to; with the threads best for each.
        limits: that it must keep.

    Returns:
        The model in the runtime that is preferred, kept or not; its artifact is on disk only where it is kept.

    Raises:
        InputError, CheckError, RuntimeError: the first runtime refuses the graph, ends or does not answer in time.
    """
    bundles, without = _written(stage, made, first, others)
    tried = [*bundles]
    try:
        before, *judged = stage.judge(whole, *bundles)
    except BROKEN as error:
        if len(bundles) == 1:
            raise
        for bundle in bundles[1:]:
            _leave_out(stage, made, bundle.config.preferred.runtime, error, without)
        bundles = bundles[:1]
        before, *judged = stage.judge(whole, *bundles)
    stand_in, *rest = (_held(bundle, before, after, limits) for bundle, after in zip(bundles, judged, strict=True))
    best = stand_in
    for each in rest:
        other = _only_with(stand_in, each)
        if _rather(best, other, aim=limits.aim):
            best = other
    for bundle in tried:
        if not (best.found.kept and bundle is best.bundle):
            shutil.rmtree(bundle.folder)
    elsewhere = tuple(after for after in judged if after is not best.after)
    left_out = [f"without {name}: {why}" for name, why in without.items()]
    reason = "; ".join([best.found.reason, *map(_shown, elsewhere), *left_out])
    return replace(best, found=Found(best.found.kept, reason), others=elsewhere, without=without)


def _rather(one: Served, other: Served, *, aim: Budget) -> bool:
    """Whether another runtime is to be preferred to one."""
    if one.fitness != other.fitness:
        return other.fitness > one.fitness
    quicker = verdict(one.after, other.after, faster=True).kept
    if not one.found.kept:
        return quicker
    if quicker:
        return as_good(one.after, other.after) or bool(one.after.missed(aim))
    return not as_good(other.after, one.after) and not other.after.missed(aim)


def _held(bundle: Bundle, before: Judged, after: Judged, limits: Limits) -> Served:
    return Served(
        bundle=bundle,
        before=before,
        after=after,
        found=verdict(before, after, max_drop=limits.max_drop, faster=limits.faster, budget=limits.budget),
        drops=not verdict(before, after, max_drop=limits.max_drop).kept,
        slow=not verdict(before, after, faster=limits.faster).kept,
        over=not verdict(before, after, budget=limits.budget).kept,
        loses=-POINTS * change(before.answers, after.answers).value,
    )


def _only_with(first: Served, other: Served) -> Served:
    """Another runtime, which is of use only where the first answers well enough."""
    other = replace(other, loses=max(first.loses, other.loses))
    if not first.drops or other.drops:
        return other
    name = other.after.runtime
    role = f"which stands in for {name}" if first.after.runtime == REFERENCE else f"beside which {name} is judged"
    why = f"{first.after.runtime}, {role}, answers worse ({_shown(first.after)})"
    return replace(other, drops=True, found=Found(False, f"{why}: {other.found.reason}"))


def _shown(judged: Judged) -> str:
    return (
        f"in {judged.runs_in} {METRIC_NAMES[judged.metric]} {judged.score.value:.2%}, "
        f"p50 {judged.latency.p50:.3g} ms, p90 {judged.latency.p90:.3g} ms"
    )


def _leave_out(stage: Stage, made: Made, runtime: str, error: Exception, without: dict[str, str]) -> None:
    """Say and keep why a runtime is left out."""
    without[runtime] = last_line(error)
    stage.session.warn(f"{made.precision} is judged without {runtime}: {without[runtime]}")


def _written(stage: Stage, made: Made, first: Preferred, others: Sequence[str]) -> tuple[list[Bundle], dict[str, str]]:
    """An artifact for each runtime, and why some have none."""
    bundle = stage.parent.bundle
    reference = open_model(made.model, threads=first.threads)
    golden = make_golden(
        bundle.golden().encoded, bundle.config.preprocess, lambda pixels: reference.run(pixels).probabilities
    )
    bundles, without = [_write(stage, made, first, golden, stage.candidate(made.precision))], dict[str, str]()
    for name in others:
        try:
            threads = stage.finisher.threads(made.model, runtime=name, of=name)
            preferred, folder = Preferred(runtime=name, threads=threads), stage.candidate(f"{made.precision}-{name}")
            bundles.append(_write(stage, made, preferred, golden, folder))
        except BROKEN as error:
            _leave_out(stage, made, name, error, without)
    return bundles, without


def _write(stage: Stage, made: Made, preferred: Preferred, golden: Golden, folder: Path) -> Bundle:
    """The parent's artifact with another graph, for a runtime; where it was trained on, with the weights of that."""
    bundle = stage.parent.bundle
    config, path = bundle.config, bundle.folder / WEIGHTS
    weights = path.read_bytes() if path.is_file() else None
    provenance = config.provenance
    if made.learned is not None:
        weights, provenance = made.learned.weights, made.learned.provenance
    session = open_model(made.model, threads=preferred.threads, runtime=preferred.runtime)
    shutil.rmtree(folder, ignore_errors=True)  # a removal that was stopped leaves what is no artifact
    return write_bundle(
        folder,
        model=made.model,
        layout=bundle.layout,
        labels=config.labels,
        preprocess=config.preprocess,
        golden=_answered(golden, session),
        weights=weights,
        activation=config.activation,
        thresholds=_thresholds(stage, session),
        temperature=config.temperature,
        precision=made.precision,
        quantization=made.quantization,
        preferred=preferred,
        provenance=stage.finisher.inherited(provenance),
    )


def _answered(golden: Golden, session: Session) -> Golden:
    """Golden examples with what the runtime that is preferred answers."""
    if session.runtime == REFERENCE:
        return golden
    return replace(golden, others={session.runtime: session.run(golden.pixels).probabilities})


def _thresholds(stage: Stage, session: Session) -> tuple[float, ...] | None:
    """Of tags, chosen by what the model answers on the validation pictures in this runtime."""
    config = stage.parent.bundle.config
    if config.thresholds is None:
        return None
    val = stage.finisher.prepared("val", config.preprocess)
    answers = evaluate(session, val.pixels, val.labels, progress=stage.session.progress)
    return thresholds_for(answers.logits, val.labels)
