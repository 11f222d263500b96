"""From trained weights to a run that keeps its word.

In this order: the artifact is written and compared with PyTorch; the number of threads it prefers is measured in fresh
processes; it answers the validation pictures, its latency and memory are measured in a fresh process, and the ledger
gets what was found; it answers the test pictures, once; `results.json` is written; a fresh process verifies all of it.
Every stage gives the same bytes when a killed run comes here again: what depends on the machine is a plan row.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from netsmith.artifact.bundle import Activation, Bundle, Preferred, Provenance, artifact_hash, write_bundle
from netsmith.artifact.evaluate import Evaluation, evaluate
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure, preferred_threads
from netsmith.artifact.predictions import Predictions
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, open_session
from netsmith.artifact.verify import verify_fresh
from netsmith.data.cache import Prepared, prepared
from netsmith.data.items import Dataset
from netsmith.data.prepare import Pixels, as_pixels
from netsmith.errors import CheckError, InputError
from netsmith.fit.explaining import explain
from netsmith.fit.judged import Judged
from netsmith.fit.replay import Replay
from netsmith.fit.trained import Ended
from netsmith.run.budget import Budget
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger, Split
from netsmith.run.machine import machine, versions
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.run.result import Final, Result, Top1
from netsmith.run.scores import Answers

if TYPE_CHECKING:
    from torch import nn

GOLDEN_PICTURES = 4
RECORDED = ("top1", "map", "f1_macro", "f1_micro")
"""What of an evaluation `results.json` holds."""
ATTEMPTS = 3
"""Latency measurements before a limit counts as missed: other work on the machine only ever slows one."""


@dataclass(frozen=True)
class Finisher:
    """What the last stages of a run need; its methods are those stages.

    Attributes:
        run: the locked folder.
        dataset: with its splits.
        budget: limits, possibly none.
        plan, ledger: of the run.
        commands: what was typed, first run and resumes, as lines.
        measure_s: seconds of one latency measurement.
        progress: told how far the longer stages are.
        replay: of which run the weights must be, if of any.
        weights, licence: those that training began with, for the artifact's provenance; None of fresh ones.
        doubtful: whether a model that it begins with or learns from may have seen what validates.
        step: whether the run is a step of a larger one, which alone reads the test pictures, verifies and reports.
        runtime: that its artifacts prefer.
    """

    run: RunFolder
    dataset: Dataset
    budget: Budget
    plan: Plan
    ledger: Ledger
    commands: tuple[str, ...]
    measure_s: float = 2.0
    progress: Progress = silent
    replay: Replay | None = None
    weights: str | None = None
    licence: str | None = None
    doubtful: bool = False
    step: bool = False
    runtime: str = REFERENCE

    def export(
        self,
        network: "nn.Module",
        folder: Path,
        *,
        preprocess: Preprocess,
        recipe: Recipe,
        thresholds: tuple[float, ...] | None = None,
        threads: int | None = None,
        provenance: Provenance | None = None,
    ) -> Bundle:
        """Write an artifact of `network` into `folder`, replacing the one that is there.

        Args:
            network: trained, from `netsmith.models.build`.
            folder: in the run.
            preprocess, recipe: it was trained with.
            thresholds: of tags, chosen on validation.
            threads: it prefers; measured when None.
            provenance: where it comes from; that of a training by `recipe` on the run's pictures when None.

        Raises:
            CheckError: the graph's answers are not PyTorch's.
        """
        from netsmith.export.network import convert_network

        activation: Activation = "softmax" if thresholds is None else "sigmoid"
        exported = convert_network(
            network,
            labels=self.dataset.classes,
            preprocess=preprocess,
            golden=self._golden_pictures(),
            activation=activation,
        )
        chosen = threads or self.threads(exported.model, runtime=self.runtime)
        return write_bundle(
            folder,
            model=exported.model,
            layout=exported.layout,
            labels=self.dataset.classes,
            preprocess=preprocess,
            golden=exported.golden,
            weights=exported.weights,
            activation=activation,
            thresholds=thresholds,
            preferred=Preferred(runtime=self.runtime, threads=chosen),
            provenance=provenance or self._provenance(recipe),
            overwrite=True,
        )

    def threads(self, model: bytes, *, runtime: str = REFERENCE, of: str = "artifact") -> int:
        """The number of threads that a model prefers here, by a plan row: measured on `model` where there is none.

        Args:
            model: content of an ONNX file.
            runtime: in which.
            of: whose row it is; the run's own artifact's if not given.
        """

        def choose() -> int:
            return preferred_threads(model, seconds_each=1.0, runtime=runtime, progress=self.progress).threads

        why = "the fastest p90, the fewer where alike"
        return int(self.plan.decide(f"{of}.threads", at=0, compute=choose, why=why))

    def _provenance(self, recipe: Recipe) -> Provenance:
        return Provenance(
            recipe=recipe_hash(recipe), data=self.dataset.fingerprint, doubtful=self.doubtful, weights=self.weights,
            licence=self.licence,
        )  # fmt: skip

    def inherited(self, origin: Provenance) -> Provenance:
        """Where an artifact comes from that was made of another's weights on the run's pictures.

        Args:
            origin: of those weights.
        """
        return origin.model_copy(update={"data": self.dataset.fingerprint, "doubtful": self.doubtful})

    def make(
        self,
        network: "nn.Module",
        *,
        preprocess: Preprocess,
        recipe: Recipe,
        thresholds: tuple[float, ...] | None = None,
    ) -> Bundle:
        """The run's artifact, of the trained network; in a replay held to the weights that it must be.

        Args:
            network: trained.
            preprocess, recipe: it was trained with.
            thresholds: of tags, chosen on validation.

        Raises:
            CheckError: as `export`.
        """
        bundle = self.export(network, self.run.model, preprocess=preprocess, recipe=recipe, thresholds=thresholds)
        if self.ledger.newest("export") is None:
            after = {"size_bytes": bundle.size_bytes}
            self.ledger.add("export", verdict="done", reason="agrees with PyTorch on the golden examples", after=after)
        if self.replay is not None:
            self.replay.compare(bundle, self.ledger)
        return bundle

    def complete(self, bundle: Bundle, training: Ended | None = None) -> Result:
        """Answer validation, measure, answer test, write the results, verify and report; a step ends with its results.

        Args:
            bundle: the run's artifact.
            training: that made it, entered in the ledger where it is not there yet; None where a stage has its own row.

        Raises:
            InputError: the runtime that the artifact prefers, and was judged in, is not here any more.
            CheckError: a limit of the budget or a check of the verification does not hold; `results.json` and the
                report say so too.
        """
        _refuse_stand_in(bundle)
        artifact = artifact_hash(bundle.folder)
        val = self._answers(bundle, artifact, "val")
        found = self._judged(bundle, artifact, val)
        if training is not None:
            training.enter(self.ledger, found)
        tested = self.dataset.subset("test") and not self.step
        test = self._answers(bundle, artifact, "test").scores if tested else {}
        scores = {name: Top1(val=one, test=test.get(name)) for name, one in val.scores.items() if name in RECORDED}
        if self.step:
            return self._recorded(found, scores)
        try:
            return self._finish(bundle, found, scores)
        finally:
            if self.run.finished:
                explain(self.run)

    def _finish(self, bundle: Bundle, found: Judged, scores: dict[str, Top1]) -> Result:
        """What was found, written and verified in a fresh process."""
        failed: list[str] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                found = self._judged(bundle, found.artifact, found.answers)
            result = self._recorded(found, scores)
            if missed := [str(row) for row in result.budget if not row.met]:
                reason = f"missed: {'; '.join(missed)}"
                self.ledger.add("budget", verdict="failed", reason=reason, inputs=[found.artifact])
                raise CheckError(f"the finished model misses its budget: {'; '.join(missed)}; it is in {bundle.folder}")
            failed = verified(self.run, self.ledger, found.artifact, seconds=self.measure_s, progress=self.progress)
            if not failed:
                return result
            if not all(name.startswith("latency") for name in failed):
                break  # only a latency may differ because the machine did: it is measured and verified again
        raise CheckError(f"the run does not keep its word: {', '.join(failed)}; see `netsmith verify {self.run.path}`")

    def _recorded(self, found: Judged, scores: dict[str, Top1]) -> Result:
        """What is known of the artifact, in `results.json`."""
        result = Result(
            final=Final(
                model=found.model,
                precision=found.precision,
                runtime=found.runtime,
                threads=found.threads,
                params=found.params,
                macs=found.macs,
                size_bytes=found.size_bytes,
                memory_bytes=found.memory_bytes,
                latency_ms=found.latency,
                **scores,
            ),
            budget=found.held_to(self.budget),
            machine=machine(),
            versions=versions(),
            commands=list(self.commands),
            artifact=found.artifact,
        )
        result.save(self.run.results)
        return result

    def _golden_pictures(self) -> list[bytes]:
        """Encoded pictures to ship as examples: the first of the first sets of labels, by hash; arrays are PNG."""
        chosen: dict[tuple[int, ...], bytes] = {}
        for item in sorted(self.dataset.subset("val"), key=lambda item: item.key):
            if item.labels not in chosen:
                content = self.dataset.read(item)
                chosen[item.labels] = content if isinstance(content, bytes) else _png(as_pixels(content))
            if len(chosen) == GOLDEN_PICTURES:
                break
        return list(chosen.values())

    def _judged(self, bundle: Bundle, artifact: str, answers: Answers) -> Judged:
        """The artifact measured once more, in a process of its own."""
        limit = self.budget.latency_ms
        best: Measurement | None = None
        for _ in range(ATTEMPTS):
            found = measure(bundle.folder, seconds=self.measure_s, progress=self.progress)
            best = found if best is None or found.p90_ms < best.p90_ms else best
            if limit is None or best.high <= limit:
                break
        assert best is not None
        memory, preferred = best.peak_memory_bytes, bundle.config.preferred
        return Judged.of(
            bundle, artifact=artifact, answers=answers, measured=best, memory_bytes=memory, runs_in=preferred
        )

    def _answers(self, bundle: Bundle, artifact: str, split: Literal["val", "test"]) -> Evaluation:
        """The artifact's answers on a split, written to `predictions/`; reading test is entered in the ledger first."""
        if split == "test" and self.ledger.test_reading(artifact) is None:
            self.ledger.add(
                "test", verdict="done", reason="the finished artifact answers once", inputs=[artifact],
                splits_read=["test"],
            )  # fmt: skip
        pictures = self.prepared(split, bundle.config.preprocess)
        session = open_session(bundle, runtime=bundle.config.preferred.runtime)
        found = evaluate(
            session,
            pictures.pixels,
            pictures.labels,
            thresholds=bundle.config.thresholds,
            progress=self.progress,
        )
        answers = Predictions(pictures.keys, pictures.labels, found.logits, session.runtime)
        answers.save(self.run.predictions(split))
        return found

    def prepared(self, split: Split, preprocess: Preprocess) -> Prepared:
        """Evaluation pixels of a split, from the cache where they are there."""
        assert not (self.step and split == "test"), "the larger run reads them"
        items = self.dataset.subset(split)
        return prepared(self.dataset, items, preprocess, progress=self._counting(f"preparing {split} pictures"))

    def _counting(self, title: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(title, done, total)


def _refuse_stand_in(bundle: Bundle) -> None:
    """Raise InputError where another runtime would answer and be timed under the name of the preferred one."""
    name = bundle.config.preferred.runtime
    if obstacle := RUNTIMES[name].obstacle():
        raise InputError(
            f"{bundle.folder} was judged in {name}, which {obstacle}; go on with --resume where it runs, or make the "
            "model again into another folder"
        )


def verified(run: RunFolder, ledger: Ledger, artifact: str, *, seconds: float, progress: Progress) -> list[str]:
    """Names of the checks of a fresh process that do not hold; the ledger gets a row.

    Args:
        run: finished.
        ledger: its own.
        artifact: hash of its model.
        seconds: of one latency measurement.
        progress: told how far it is.
    """
    found = verify_fresh(run.path, seconds=seconds, progress=progress)
    failed = [check.name for check in found.failed]
    ledger.add(
        "verify",
        verdict="done" if found.ok else "failed",
        reason=f"{len(found.checks)} checks in a fresh process"
        + (f"; not held: {', '.join(failed)}" if failed else ""),
        inputs=[artifact],
    )
    return failed


def reported(run: RunFolder, ledger: Ledger) -> Result | None:
    """The result of a run that was killed when only its report was missing, which is written now; None for any other.

    Raises:
        InputError: the run is finished, its report too.
    """
    if not is_concluded(run, ledger):
        return None
    if run.report.exists():
        what = "fit" if run.command[0] == "fit" else "run"
        raise InputError(f"{run.path} holds a finished {what}; name another folder with -o")
    explain(run)
    return Result.load(run.results)


def is_concluded(run: RunFolder, ledger: Ledger) -> bool:
    """Whether a fresh process found the results of a run to hold for the artifact it has."""
    verified = ledger.newest("verify")
    if not run.finished or verified is None or verified.verdict != "done":
        return False
    return verified.inputs == [artifact_hash(run.model)]


def recipe_hash(recipe: Recipe) -> str:
    """Hex SHA-256 of a recipe's content."""
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()


def _png(pixels: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
