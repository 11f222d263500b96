"""Steps of a larger run: stages in folders of their own, whose rows it takes over.

    steps = Steps(stage)
    made = steps.take("prune+quantize/1-prune", ["prune", "runs/r18"], lambda session: prune_run(job, session))

A step is an ordinary run of its verb in `stages/NAME`, resumable by itself, which begins from another model, sees the
larger run's pictures in its splits, and ends before the test pictures are read (`Session.whole`). What it entered in
its ledger about what it tried is entered in the larger run's too, under its name. A step that was finished or refused
before is not done again. What is refused, or diverges, is a failure of the step and its order; any other trouble, such
as a full disk or a busy machine, passes, and so ends the session and not the order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netsmith.artifact.bundle import Bundle, load_bundle
from netsmith.errors import CheckError, Diverged
from netsmith.fit.session import Session
from netsmith.fit.stage import Stage
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger, LedgerRow
from netsmith.run.result import Result

FOLDER = "stages"
OWN = frozenset({"session", "audit", "split", "parent"})
"""Rows that every run begins with, which are the larger run's own business."""


@dataclass(frozen=True)
class Step:
    """A step that came to its end.

    Attributes:
        name: of its folder.
        run: that folder.
        rows: of its ledger.
        failure: why it has no model; "" where it has one.
    """

    name: str
    run: RunFolder
    rows: tuple[LedgerRow, ...]
    failure: str

    @property
    def bundle(self) -> Bundle:
        """The model it made."""
        assert not self.failure, self.failure
        return load_bundle(self.run.model)


class Steps:
    """The steps of one run.

    Args:
        stage: the larger run, at work.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._whole = replace(stage.audited, dataset=stage.dataset)

    def take(
        self, name: str, command: Sequence[str], work: Callable[[Session], Result], *, again: bool = False
    ) -> Step:
        """Do a step, or go on with it where it was interrupted.

        Args:
            name: folder below `stages`, the last part beginning with the place of the step in its order.
            command: verb and arguments, without the folder of the step.
            work: the verb's function.
            again: go on with a step that was refused, because it is allowed more.

        Raises:
            InputError, CheckError, KeyboardInterrupt: of the work, which says nothing about what it would make; the
                larger run can be resumed.
        """
        run = self._run(name)
        failure = "" if again else self._refused(run)
        if not run.finished and not failure:
            try:
                work(self._session(name, run, command))
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None  # what to type is the larger run's to say
            except Diverged as error:
                return self.fail(name, str(error))
            except CheckError:
                if not (failure := self._refused(run)):
                    raise
        rows = Ledger(run.ledger, clock=self._stage.session.clock).own
        self._enter(name, rows)
        return Step(name, run, rows, failure)

    def fail(self, name: str, why: str) -> Step:
        """Say that a step came to nothing, and enter it, once; gives what is there of it."""
        run, reason, ledger = self._run(name), f"{name}: {why}", self._stage.ledger
        rows = Ledger(run.ledger, clock=self._stage.session.clock).own
        self._enter(name, rows)
        self._stage.session.warn(reason)
        if all(row.reason != reason for row in ledger.own):
            ledger.add(verb(name), verdict="failed", reason=reason, after={"step": name})
        return Step(name, run, rows, why)

    def refused(self, name: str) -> bool:
        """Whether a step was refused."""
        return bool(self._refused(self._run(name)))

    def finished(self, name: str) -> bool:
        """Whether a step has made its model."""
        return self._run(name).finished

    def _run(self, name: str) -> RunFolder:
        return RunFolder(self._stage.run.path / FOLDER / name)

    def _refused(self, run: RunFolder) -> str:
        """Why a step was refused; "" where it was not."""
        row = Ledger(run.ledger, clock=self._stage.session.clock).newest(verb(run.path.name))
        return row.reason if row is not None and row.verdict == "refused" else ""

    def _session(self, name: str, run: RunFolder, command: Sequence[str]) -> Session:
        outer = self._stage.session

        def progress(
            title: str, done: float, total: float | None, note: str = "", *, left: float | None = None
        ) -> None:
            outer.progress(f"{name}: {title}", done, total, note, left=left)

        def say(text: str) -> None:
            outer.say(f"{name}: {text}")

        def warn(text: str) -> None:
            outer.warn(f"{name}: {text}")

        return replace(
            outer,
            output=run.path,
            command=[*command, "-o", str(run.path)],
            whole=self._whole,
            progress=progress,
            say=say,
            warn=warn,
        )

    def _enter(self, name: str, rows: Sequence[LedgerRow]) -> None:
        """Take over what is not there yet."""
        ledger = self._stage.ledger
        there = sum(row.after.get("step") == name and row.verdict != "failed" for row in ledger.own)
        for row in [row for row in rows if row.stage not in OWN and row.verdict != "failed"][there:]:
            after: Mapping[str, Any] = {**row.after, "step": name}
            ledger.adopt(row.model_copy(update={"after": after, "reason": f"{name}: {row.reason}"}))


def verb(name: str) -> str:
    """Of a step, by its name, as its ledger has it."""
    last = name.rpartition("-")[2]
    return "quantize" if last in ("halve", "bfloat16") else last
