"""What a training leaves in the ledger: one row `train`, of the form that every stage's row has.

A training that went on with a model of the same classes stands beside that model: both are opened again, answer the
same validation pictures and are timed in turns, and the row says whether the new one is better, no different or worse
beyond chance. It is kept whatever that says: it was asked for and took its time, and the other one is still there.
Where there is no such model, or it cannot be judged, the row has nothing before it and says why.
"""

from dataclasses import dataclass
from typing import Any

from netsmith.fit.judged import Judged, compare, enter
from netsmith.run.ledger import Ledger, LedgerRow
from netsmith.run.metrics import Interval
from netsmith.run.scores import Metric, told_apart

TRAIN = "train"
"""Stage of the row."""
FRESH = "its weights were fresh"
"""Why nothing stands before a training."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A training that came to its end, entered in the ledger once, in one of three ways.

    Attributes:
        id: what was trained: a candidate's id or a network's name.
        steps, epochs: that it took.
        seconds: that it took, as `--time` counts them; None of a candidate, which trained in turns with others.
        alone: why no model stands before it, where none does.
    """

    id: str
    steps: int
    epochs: float
    seconds: float | None = None
    alone: str = FRESH

    def enter(self, ledger: Ledger, made: Judged) -> None:
        """With the artifact that came out, and nothing before it."""
        if row_of(ledger, made.artifact) is None:
            reason = f"{self._ended}; nothing stands before it: {self.alone}"
            enter(ledger, TRAIN, made, verdict="done", reason=reason, more=self._record)

    def enter_beside(self, ledger: Ledger, before: Judged, after: Judged, *, name: str, doubtful: bool) -> LedgerRow:
        """With the artifact that came out beside the one that it went on with, see `compare`; gives the row."""
        found = compare(before, after, name=name, doubtful=doubtful)
        more = {**self._record, "change": found.change.model_dump(), "doubtful": doubtful}
        return enter(ledger, TRAIN, after, verdict="done", reason=found.reason, before=before, more=more)

    def enter_unjudged(self, ledger: Ledger, metric: Metric, val: Interval) -> None:
        """With what the network answered on validation; what became of it is a row of its own."""
        if ledger.newest(TRAIN) is None:
            after = {**self._record, metric: val.model_dump()}
            ledger.add(TRAIN, verdict="done", reason=self._ended, after=after, splits_read=["train", "val"])

    @property
    def _record(self) -> dict[str, Any]:
        spent = {} if self.seconds is None else {"seconds": self.seconds}
        return {"id": self.id, "steps": self.steps, "epochs": self.epochs, **spent}

    @property
    def _ended(self) -> str:
        return f"{self.id} trained to the end of its plan"


def row_of(ledger: Ledger, artifact: str) -> LedgerRow | None:
    """The row of the training that made an artifact; None where there is none, or the newest is of another one, which a
    killed run made before, or of none, whose outcome was to be judged in another row (`Ended.enter_unjudged`)."""
    row = ledger.newest(TRAIN)
    return row if row is not None and row.output == artifact else None


def is_worse(row: LedgerRow) -> bool:
    """Whether a row says that a training came out worse than what it went on with."""
    change = row.after.get("change")
    return change is not None and told_apart(Interval.model_validate(change)) == "worse"
