"""The frame of a stage: a trained model and pictures in, a new run folder with a better trade out, or a refusal.

    parent = open_parent(Path("runs/r18"))                    # fit/parent.py; InputError; never written to

    def work(stage: Stage) -> Result:
        network = stage.parent.network()                      # float, in evaluation mode
        ...                                                   # stage.finisher: run, dataset, plan, ledger, prepared()
        made = stage.finisher.export(network, stage.candidate("pruned"), preprocess=..., recipe=...)
        before, after = stage.judge(stage.parent.bundle, made)
        stage.settle(before, after, verdict(before, after, max_drop=1.0), splits_read=["train", "val"])
        return stage.ship(made)                               # test once, results.json, verify, report

    result = run_stage("prune", parent, session, work, resume=False)

Every stage opens, judges and ends by this module, and ends as `train` does (`Finisher.complete`):

- The pictures are those of `session.data`, or where that is "" those that the parent was trained on. Those that its
  `data.json` knows keep the splits they had, so nothing that was trained on is ever validated on and the test pictures
  stay sealed; others are split anew. Their classes must be the model's.
- The ledger begins with the parent's rows, so the last folder tells the whole story.
- `judge` opens the artifact again, answers the validation pictures, and times all that it is given in turns in one
  fresh process, so that a disturbance of the machine meets them alike.
- What is refused is not shipped, there is no `model/`: the ledger has the row with both sides' numbers, and `settle`
  raises CheckError (exit 1) with the reason and where it lies. A folder whose stage was settled before obeys its row.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from netsmith.artifact.bundle import Bundle, Preferred, artifact_hash, load_bundle
from netsmith.artifact.evaluate import Evaluation, evaluate
from netsmith.artifact.measure import measure, measure_many
from netsmith.artifact.runtimes import choose_runtime, open_session
from netsmith.data.audit import Audit
from netsmith.data.items import Dataset
from netsmith.errors import CheckError, InputError
from netsmith.fit.finish import Finisher, reported
from netsmith.fit.judged import Found, Judged, enter
from netsmith.fit.opening import record_split, refuse_inside
from netsmith.fit.parent import Parent, open_parent, record_lineage
from netsmith.fit.session import Session, commands
from netsmith.run.budget import Budget
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger, LedgerRow, Split
from netsmith.run.plan import Plan
from netsmith.run.result import Result

__all__ = ["Parent", "Stage", "made_in", "open_parent", "run_stage"]

OPENING_S = 15.0
"""For opening one model on a busy machine."""
ASKED = "asked"
"""Row of the plan: what a stage was begun with, as typed."""
BROKEN = (InputError, CheckError, RuntimeError, ImportError)
"""What a runtime ends in that refuses a graph, dies, does not answer in time, or is installed and cannot be loaded."""
MEMORY_RUNS = 8
"""Calls by which a model's memory is known."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage at work in its own, locked run folder.

    Attributes:
        name: of its rows in the ledger, such as "prune".
        parent: what it begins with.
        session: what was typed, and who is told.
        audited: the pictures as they are now.
        finisher: the run, its pictures, plan and ledger, and how it ends.
    """

    name: str
    parent: Parent
    session: Session
    audited: Audit
    finisher: Finisher
    _answers: dict[str, Evaluation] = field(default_factory=dict[str, Evaluation], repr=False)
    _memory: dict[tuple[str, Preferred], int | None] = field(
        default_factory=dict[tuple[str, Preferred], int | None], repr=False
    )

    @property
    def run(self) -> RunFolder:
        """The stage's folder."""
        return self.finisher.run

    @property
    def ledger(self) -> Ledger:
        """It begins with the parent's rows."""
        return self.finisher.ledger

    @property
    def dataset(self) -> Dataset:
        """The pictures with their splits."""
        return self.finisher.dataset

    def hold_to(self, asked: Mapping[str, Any]) -> None:
        """Refuse a folder in which something else was asked for: it obeys its plan, and would not heed another wish.

        Args:
            asked: flag -> value, JSON.

        Raises:
            InputError: the run was begun with another value.
        """
        begun = self.finisher.plan.decide(ASKED, at=0, compute=lambda: dict(asked), why="as typed")
        for flag, value in asked.items():
            if (first := begun.get(flag)) != value:
                was = f"no {flag}" if first is None else f"{flag} {first}"
                now = "without it" if value is None else f"{value}"
                raise InputError(
                    f"{self.run.path} was begun with {was}, not {now}; go on with that, or name another folder with -o"
                )

    def candidate(self, name: str) -> Path:
        """Folder of an artifact that has not been judged yet."""
        return self.run.candidates / name

    def made(self, artifact: str) -> Bundle | None:
        """What this run has of this hash: shipped, or a candidate of an earlier session; None where it is gone."""
        return made_in(self.run, artifact)

    def judge(self, *bundles: Bundle) -> tuple[Judged, ...]:
        """Measure artifacts beside each other; what they are compared by is taken in turns.

        Args:
            bundles: each opened again, in its preferred runtime with its preferred number of threads.

        Raises:
            InputError: one cannot be opened.
            CheckError: the process that measures died or did not end.
            RuntimeError, ImportError: see `BROKEN`, which is all of them.
        """
        chosen = [choose_runtime(bundle, warn=self.session.warn) for bundle in bundles]
        seconds = self.finisher.measure_s
        measured = measure_many(
            [bundle.model_path for bundle in bundles],
            threads=[threads for _, threads in chosen],
            runtime=[runtime for runtime, _ in chosen],
            seconds_each=seconds,
            deadline_s=len(bundles) * (4 * seconds + OPENING_S),
            progress=self.session.progress,
        )
        judged: list[Judged] = []
        for bundle, (runtime, threads), found in zip(bundles, chosen, measured, strict=True):
            if found is None:
                raise CheckError(f"{bundle.folder} was not measured in time; close other programs and go on (--resume)")
            artifact, runs_in = artifact_hash(bundle.folder), Preferred(runtime=runtime, threads=threads)
            judged.append(
                Judged.of(
                    bundle,
                    artifact=artifact,
                    answers=self._answered(bundle, artifact, runtime),
                    measured=found,
                    memory_bytes=self._needed(bundle, artifact, runs_in),
                    runs_in=runs_in,
                )
            )
        return tuple(judged)

    def _needed(self, bundle: Bundle, artifact: str, runs_in: Preferred) -> int | None:
        """An artifact's memory in a process of its own, measured once for each way to run it."""
        if (artifact, runs_in) not in self._memory:
            alone = measure(
                bundle.folder, runtime=runs_in.runtime, threads=runs_in.threads, runs=MEMORY_RUNS,
                warn=self.session.warn, progress=self.session.progress,
            )  # fmt: skip
            self._memory[artifact, runs_in] = alone.peak_memory_bytes
        return self._memory[artifact, runs_in]

    def _answered(self, bundle: Bundle, artifact: str, runtime: str) -> Evaluation:
        """An artifact's answers on the validation pictures; each is asked once."""
        if artifact not in self._answers:
            pictures = self.finisher.prepared("val", bundle.config.preprocess)
            self._answers[artifact] = evaluate(
                open_session(bundle, runtime=runtime, warn=self.session.warn),
                pictures.pixels,
                pictures.labels,
                thresholds=bundle.config.thresholds,
                progress=self.session.progress,
            )
        return self._answers[artifact]

    def enter(
        self,
        before: Judged,
        after: Judged,
        found: Found,
        *,
        stage: str | None = None,
        more: Mapping[str, Any] | None = None,
        splits_read: Sequence[Split] = ("train", "val"),
    ) -> LedgerRow:
        """Append a row with both sides' numbers.

        Args:
            before, after: what was judged; `after` is what was made.
            found: the verdict.
            stage: of the row; the stage's own name if not given.
            more: what else `after` says.
            splits_read: whose pictures were looked at.
        """
        return enter(
            self.ledger,
            stage or self.name,
            after,
            verdict=found.word,
            reason=found.reason,
            before=before,
            more=more,
            splits_read=splits_read,
        )

    def settle(
        self, before: Judged, after: Judged, found: Found, *, splits_read: Sequence[Split] = ("train", "val")
    ) -> None:
        """Enter the verdict in the ledger, where it is not there yet.

        Args:
            before, after, found, splits_read: as `enter`.

        Raises:
            CheckError: refused, now or in an earlier session; the message has the numbers.
        """
        self.obey(self.ledger.newest(self.name) or self.enter(before, after, found, splits_read=splits_read))

    def obey(self, row: LedgerRow) -> None:
        """Say the verdict of a row, and end a stage that it refuses.

        Raises:
            CheckError: refused; the message has the numbers.
        """
        self.session.say(f"{self.name}: {row.verdict}, {row.reason}")
        if row.verdict == "refused":
            raise CheckError(self.refusal(row.reason, output=row.output))

    def refusal(self, reason: str, *, output: str | None = None) -> str:
        """What a refused stage says at its end.

        Args:
            reason: of its row.
            output: hash of what is refused, where it may still be looked at.
        """
        made = None if output is None else self.made(output)
        where = "" if made is None else f"; what is refused lies in {made.folder}"
        return (
            f"{self.name} is refused, {reason}; {self.parent.path} stays the better model, see {self.run.ledger}{where}"
        )

    def ship(self, bundle: Bundle) -> Result:
        """Make an artifact that was kept the run's own, and finish the run.

        Raises:
            CheckError: a check of the finished run does not hold.
        """
        from netsmith.export.repack import repack

        shipped = bundle
        if bundle.folder != self.run.model:
            shipped = repack(bundle, self.run.model, overwrite=True, warn=self.session.warn)
            assert artifact_hash(shipped.folder) == artifact_hash(bundle.folder), "what was judged is what is shipped"
        shutil.rmtree(self.run.candidates, ignore_errors=True)
        return self.finisher.complete(shipped)


def begun_with(plan: Plan) -> Mapping[str, Any]:
    """What a stage was asked for when it was begun, flag -> value, as `Stage.hold_to` recorded it; else empty."""
    return next((row.value for row in plan.rows if row.kind == ASKED), {})


def made_in(run: RunFolder, artifact: str) -> Bundle | None:
    """What a run has of a hash, see `Stage.made`."""
    folders = [run.model, *(sorted(run.candidates.iterdir()) if run.candidates.is_dir() else [])]
    found = (each for each in folders if (each / "config.json").is_file() and artifact_hash(each) == artifact)
    return next(map(load_bundle, found), None)


def run_stage(
    name: str,
    parent: Parent,
    session: Session,
    work: Callable[[Stage], Result],
    *,
    resume: bool = False,
    seed: int = 0,
    budget: Budget | None = None,
    measure_s: float = 2.0,
    check: Callable[[Audit], None] | None = None,
) -> Result:
    """Do a stage in the session's folder, or go on with it where it was interrupted.

    Args:
        name: of its rows in the ledger.
        parent: what it begins with.
        session: its `data` may be "": the pictures of the parent's run.
        work: does it, and ends in `Stage.ship`.
        resume: go on with an interrupted stage.
        seed: of new splits.
        budget: limits that the result must keep, possibly none.
        measure_s: seconds of one latency measurement.
        check: looks at the pictures before anything is written, or a run goes on.

    Raises:
        InputError: data, model or folder cannot be used, or as `check` says; before anything was written, where the
            folder is new.
        CheckError: what the stage made is refused, or the finished run does not keep its word.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    session = replace(session, data=session.data or parent.source)
    if not session.data:
        raise InputError(f"{parent.path} is a model without its run; say with --data which pictures to use")
    parent.refuse_onto(session.output)
    refuse_inside(session.data, session.output)
    begun = session.output.is_dir() and any(session.output.iterdir())
    opened = None if begun else _opened(parent, session, seed=seed, check=check)
    with RunFolder.create(session.output, command=session.command, resume=resume) as run:
        ledger = parent.continued(run, session)
        _refuse_other_parent(run, ledger, parent)
        if (result := reported(run, ledger)) is not None:
            return result
        audited, dataset = opened or _opened(parent, session, seed=seed, check=check)
        session.enter(run, ledger)
        session.tell(audited)
        doubt = parent.doubt(dataset)
        if doubt and not session.is_step:
            session.warn(doubt)
        dataset = record_split(audited, seed=seed, run=run, ledger=ledger, dataset=dataset)
        record_lineage(run, dataset, [parent])
        finisher = Finisher(
            run=run,
            dataset=dataset,
            budget=budget or Budget(),
            plan=Plan(run.plan),
            ledger=ledger,
            commands=commands(ledger),
            measure_s=measure_s,
            progress=session.progress,
            doubtful=doubt is not None,
            step=session.is_step,
        )
        return work(Stage(name=name, parent=parent, session=session, audited=audited, finisher=finisher))


def _opened(
    parent: Parent, session: Session, *, seed: int, check: Callable[[Audit], None] | None
) -> tuple[Audit, Dataset]:
    audited = session.read(seed=seed)
    dataset = parent.pictures(audited, seed=seed)
    if check is not None:
        check(audited)
    return audited, dataset


def _refuse_other_parent(run: RunFolder, ledger: Ledger, parent: Parent) -> None:
    begun = next(row for row in reversed(ledger.rows) if row.stage == "parent")
    if parent.artifact not in begun.inputs:
        raise InputError(
            f"{run.path} {begun.reason}, which is not {parent.path} as it is now; name another folder with -o"
        )
