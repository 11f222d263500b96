"""What `fit` and `train` share: one typed command at work on a run, and the sessions a run was made in.

A run that is killed and gone on with has several sessions. Each begins with a row of the ledger that says what was
typed and what those before it spent; how long one lasted is told by the newest time that anything in the run records,
never by the times of files, which a copy changes.
"""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from netsmith.data.audit import Audit, audit
from netsmith.data.sources import open_source
from netsmith.run.clock import Clock, SystemClock, seconds_of
from netsmith.run.files import read_jsonl
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.progress import Progress, silent
from netsmith.run.world import Share, World, alone


def _unheard(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One typed command at work on a run.

    Attributes:
        data: folder, archive, table or "digits".
        output: run folder.
        strict: refuse data of which something would be left out.
        command: what was typed, verb first.
        clock: reads time.
        progress: told how far each piece is.
        say: told what happens, a sentence a stage.
        warn: told what goes wrong without stopping.
        share: where several processes do the command together: what one does for all.
        whole: of a session that is a step of a larger run, the pictures as that run read and split them. A step reads
            none again and ends with its model: the test pictures, verification and report are the larger run's.
    """

    data: str
    output: Path
    command: Sequence[str]
    strict: bool = False
    clock: Clock = field(default_factory=SystemClock)
    progress: Progress = silent
    say: Callable[[str], None] = _unheard
    warn: Callable[[str], None] = _unheard
    share: Share = alone
    whole: Audit | None = None

    @property
    def is_step(self) -> bool:
        """Whether it is a step of a larger run."""
        return self.whole is not None

    def among(self, world: World, share: Share) -> Self:
        """The same command as one of several processes, of which only the leading one speaks."""
        if world.leads:
            return replace(self, share=share)
        return replace(self, share=share, progress=silent, say=_unheard, warn=_unheard)

    def read(self, *, seed: int) -> Audit:
        """Read and audit all pictures; of a step those that were read.

        Args:
            seed: of the run.

        Raises:
            InputError: data that cannot be used.
        """
        if self.whole is not None:
            return self.whole

        def progress(done: int, total: int) -> None:
            self.progress("reading", done, total)

        return audit(open_source(self.data), strict=self.strict, seed=seed, progress=progress)

    def tell(self, audited: Audit) -> None:
        """Say what was read; a step does not repeat it."""
        for line in () if self.is_step else audited.summary():
            self.say(line)

    def enter(self, run: RunFolder, ledger: Ledger) -> float:
        """Begin: a row of the ledger; gives the seconds that earlier sessions of the run spent."""
        spent = spent_before(run, ledger)
        ledger.add("session", verdict="done", reason=shlex.join(["netsmith", *self.command]), after={"spent_s": spent})
        return spent


def commands(ledger: Ledger) -> tuple[str, ...]:
    """What was typed, first session and later ones, as lines."""
    return tuple(row.reason for row in ledger.rows if row.stage == "session")


def spent_before(run: RunFolder, ledger: Ledger) -> float:
    """Seconds that earlier sessions of a run spent: each until the newest time that its rows and checkpoints record."""
    session = ledger.newest("session")
    if session is None:
        return 0.0
    began = seconds_of(session.time)
    recorded = [seconds_of(ledger.rows[-1].time), *_times_in_training(run)]
    return float(session.after["spent_s"]) + max(0.0, max(recorded) - began)


def _times_in_training(run: RunFolder) -> Iterator[float]:
    """Seconds since 1970 at which rows of metrics and checkpoints were written, the candidates' included."""
    for path in run.path.rglob(run.metrics.name):
        yield from (seconds_of(row["time"]) for row in read_jsonl(path) if "time" in row)
    for path in run.path.rglob(f"{run.checkpoints.name}/step-*.json"):
        try:
            yield float(json.loads(path.read_bytes())["state"]["time"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue  # damaged: whoever loads it passes it over and says so
