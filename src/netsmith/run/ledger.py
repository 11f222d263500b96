"""What happened in a run: a row per stage with what went in and came out, what was measured, and the verdict.

The ledger also seals the test split: a row says which splits a stage read, and the test split is read once per
artifact. A run that begins with the model of another starts with that run's rows, so the last folder tells the whole
story; a row `parent` parts them from its own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from netsmith.errors import InputError, first_line
from netsmith.run.clock import Clock
from netsmith.run.files import append_jsonl, read_jsonl, write_text

Verdict = Literal["kept", "refused", "done", "failed"]
Split = Literal["train", "val", "test"]
SHA256 = r"^[0-9a-f]{64}$"
PARENT = "parent"
"""Stage of the row that parts the rows of the run a model comes from and those of the run that goes on with it."""


class LedgerRow(BaseModel):
    """One stage of a run.

    Attributes:
        time: when it ended, ISO 8601 UTC.
        stage: its name, such as "audit", "race", "export".
        inputs: SHA-256 of what it read (data fingerprint, artifacts, recipes).
        output: SHA-256 of what it made, or None.
        before, after: what was measured before and after it, by name.
        verdict: "kept" or "refused" for a stage that had to prove itself, "done" or "failed" for any other.
        reason: one sentence.
        splits_read: the splits whose labels it looked at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    time: str
    stage: str = Field(min_length=1)
    inputs: list[str] = []
    output: str | None = Field(default=None, pattern=SHA256)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    verdict: Verdict
    reason: str
    splits_read: list[Split] = []


class Ledger:
    """The rows of one `ledger.jsonl`; rows are only ever added.

    Args:
        path: the file; absent means nothing happened yet.
        clock: gives the time of new rows.

    Raises:
        InputError: a complete line is not a ledger row.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        try:
            self._rows = [LedgerRow.model_validate(row) for row in read_jsonl(path)]
        except ValueError as error:  # of read_jsonl too
            raise InputError(
                f"{path} is not a ledger ({first_line(error).partition('; ')[0]}); restore it from a copy or run again "
                "elsewhere"
            ) from error

    @classmethod
    def continued(cls, path: Path, rows: Sequence[LedgerRow], *, clock: Clock, reason: str, artifact: str) -> Self:
        """The ledger at `path`; where there is none, one that begins with the rows of another and a row `parent`.

        Args:
            path: the file; it appears whole or not at all.
            rows: of the run that the model comes from, possibly none.
            clock: gives the time of new rows.
            reason: which model it is, one sentence.
            artifact: SHA-256 of its folder.
        """
        if not path.exists():
            parent = LedgerRow(time=clock.wall(), stage=PARENT, inputs=[artifact], verdict="done", reason=reason)
            documents = (row.model_dump() for row in (*rows, parent))
            lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in documents)
            write_text(path, "".join(lines))
        return cls(path, clock=clock)

    @property
    def rows(self) -> tuple[LedgerRow, ...]:
        """All rows, oldest first, those of the run before included."""
        return tuple(self._rows)

    @property
    def own(self) -> tuple[LedgerRow, ...]:
        """The rows of this run alone, oldest first."""
        return own_rows(self._rows)

    def add(
        self,
        stage: str,
        *,
        verdict: Verdict,
        reason: str,
        inputs: Sequence[str] = (),
        output: str | None = None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        splits_read: Sequence[Split] = (),
    ) -> LedgerRow:
        """Append a row and sync it; see `LedgerRow` for the arguments."""
        row = LedgerRow(
            time=self._clock.wall(),
            stage=stage,
            inputs=list(inputs),
            output=output,
            before=dict(before or {}),
            after=dict(after or {}),
            verdict=verdict,
            reason=reason,
            splits_read=list(splits_read),
        )
        self.adopt(row)
        return row

    def adopt(self, row: LedgerRow) -> None:
        """Append a row as it is, such as one of the ledger of a step, and sync it."""
        append_jsonl(self.path, row.model_dump())
        self._rows.append(row)

    def newest(self, stage: str) -> LedgerRow | None:
        """The last row of this stage in this run, or None."""
        return next((row for row in reversed(self.own) if row.stage == stage), None)

    def test_reading(self, artifact: str) -> LedgerRow | None:
        """The row in which the test split was read for the artifact with this SHA-256, or None while it is sealed."""
        return next((row for row in self._rows if "test" in row.splits_read and artifact in row.inputs), None)


def own_rows(rows: Sequence[LedgerRow]) -> tuple[LedgerRow, ...]:
    """The rows of a run alone, without those of the runs that its model comes from; oldest first."""
    parents = [at for at, row in enumerate(rows) if row.stage == PARENT]
    return tuple(rows[parents[-1] + 1 :] if parents else rows)


def in_front(rows: Sequence[LedgerRow]) -> str | None:
    """Id of the candidate that leads a fit, or won it; None while no rung of its race is decided, or nothing raced.

    Args:
        rows: the ledger's, oldest first.
    """
    gone = {str(row.after.get("id")) for row in rows if row.stage == "diverged"}
    rungs = [row.after.get("entries") for row in reversed(rows) if row.stage == "race"]
    # The newest rung lists those kept first, best first; of the others, who went later was better.
    for place, entries in enumerate(rungs):
        for entry in entries if isinstance(entries, list) else []:
            match entry:
                case {"id": str(id_), "kept": bool(kept)} if (not place or not kept) and id_ not in gone:
                    return id_
                case _:
                    continue
    return None
