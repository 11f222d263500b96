"""A model that was made smaller, in every runtime that might serve it: judged in each, and the best is preferred.

    served = serve(stage, whole, made, [Preferred(), Preferred(runtime="openvino")], Limits(max_drop=0.5, faster=True))
    served.bundle, served.found

Runtimes round in ways of their own, so the same file is as many candidates as there are runtimes: for each an artifact
is written that prefers it, with its own golden answers and, of tags, thresholds; opened again, it answers the
validation pictures and takes turns with the whole model on the clock. The first runtime is the one that stands in where
another is missing; so another is kept only where the first answers well enough too, and preferred only where it is
faster.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from netsmith.artifact.bundle import WEIGHTS, Bundle, Precision, Preferred, write_bundle
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.golden import Golden, make_golden
from netsmith.artifact.quantization import Quantization
from netsmith.artifact.runtimes import REFERENCE, Session, open_model
from netsmith.fit.judged import Found, Judged, verdict
from netsmith.fit.stage import Stage
from netsmith.fit.training_rounded import Learned
from netsmith.run.budget import Budget
from netsmith.run.scores import METRIC_NAMES, thresholds_for


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
    """What is asked of it, as `verdict` is asked."""

    max_drop: float
    faster: bool = False
    budget: Budget | None = None


@dataclass(frozen=True, kw_only=True)
class Served:
    """A made model in one runtime.

    Attributes:
        bundle: the artifact that prefers it; there on disk only where it is kept.
        before, after: the whole model and this one.
        found: the verdict; of the chosen one it tells the others' numbers too.
        drops, slow, over: what speaks against it: answers, here or in the runtime that stands in; speed; the budget.
        others: the same model in the other runtimes.
    """

    bundle: Bundle
    before: Judged
    after: Judged
    found: Found
    drops: bool
    slow: bool
    over: bool
    others: tuple[Judged, ...] = ()

    @property
    def fitness(self) -> tuple[bool, bool, bool]:
        """The larger the better."""
        return self.found.kept, not self.slow, not self.over


def serve(stage: Stage, whole: Bundle, made: Made, preferred: Sequence[Preferred], limits: Limits) -> Served:
    """Judge a model in all of some runtimes and choose one; artifacts that are not kept are removed.

    Args:
        stage: at work.
        whole: what it is held against, in the runtime in which it is timed.
        made: the model.
        preferred: different runtimes that run here, with their threads; the first stands in for the others.
        limits: that it must keep.
    """
    bundles = _written(stage, made, preferred)
    before, *judged = stage.judge(whole, *bundles)
    first, *rest = (_held(bundle, before, after, limits) for bundle, after in zip(bundles, judged, strict=True))
    best = first
    for each in rest:
        other = _only_with(first, each)
        quicker = verdict(best.after, other.after, faster=True).kept
        if other.fitness > best.fitness or (other.fitness == best.fitness and quicker):
            best = other
    for bundle in bundles:
        if not (best.found.kept and bundle is best.bundle):
            shutil.rmtree(bundle.folder)
    others = tuple(after for after in judged if after is not best.after)
    reason = "; ".join([best.found.reason, *map(_shown, others)])
    return replace(best, found=Found(best.found.kept, reason), others=others)


def _held(bundle: Bundle, before: Judged, after: Judged, limits: Limits) -> Served:
    return Served(
        bundle=bundle,
        before=before,
        after=after,
        found=verdict(before, after, max_drop=limits.max_drop, faster=limits.faster, budget=limits.budget),
        drops=not verdict(before, after, max_drop=limits.max_drop).kept,
        slow=not verdict(before, after, faster=limits.faster).kept,
        over=not verdict(before, after, budget=limits.budget).kept,
    )


def _only_with(first: Served, other: Served) -> Served:
    """Another runtime, which is of use only where the one that stands in for it answers well enough."""
    if not first.drops or other.drops:
        return other
    why = f"{first.after.runtime}, which stands in for {other.after.runtime}, answers worse ({_shown(first.after)})"
    return replace(other, drops=True, found=Found(False, f"{why}: {other.found.reason}"))


def _shown(judged: Judged) -> str:
    return (
        f"in {judged.runs_in} {METRIC_NAMES[judged.metric]} {judged.score.value:.2%}, "
        f"p50 {judged.latency.p50:.3g} ms, p90 {judged.latency.p90:.3g} ms"
    )


def _written(stage: Stage, made: Made, preferred: Sequence[Preferred]) -> list[Bundle]:
    """The parent's artifact with another graph, once for each runtime; where it was trained on, with the weights of
    that."""
    bundle = stage.parent.bundle
    config, path = bundle.config, bundle.folder / WEIGHTS
    weights = path.read_bytes() if path.is_file() else None
    provenance = config.provenance
    if made.learned is not None:
        weights, provenance = made.learned.weights, made.learned.provenance
    reference = open_model(made.model, threads=preferred[0].threads)
    golden = make_golden(bundle.golden().encoded, config.preprocess, lambda pixels: reference.run(pixels).probabilities)
    written: list[Bundle] = []
    for at, each in enumerate(preferred):
        session = reference
        if each.runtime != REFERENCE:
            session = open_model(made.model, threads=each.threads, runtime=each.runtime)
        folder = stage.candidate(f"{made.precision}-{each.runtime}" if at else made.precision)
        shutil.rmtree(folder, ignore_errors=True)  # a removal that was stopped leaves what is no artifact
        written.append(
            write_bundle(
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
                preferred=each,
                provenance=stage.finisher.inherited(provenance),
            )
        )
    return written


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
