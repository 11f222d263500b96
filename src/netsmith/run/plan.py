"""Time decides, the plan records, replay obeys.

`plan.jsonl` holds one row per machine-dependent choice (total steps, threads, dtype, micro-batch ...), written and
synced before the choice takes effect. A resumed or replayed run finds the row and obeys it without computing anything,
also where the row lies beyond the checkpoint it continues from; so training is a pure function of recipe, data and
plan.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from netsmith.errors import InputError, first_line
from netsmith.run.files import append_jsonl, read_jsonl
from netsmith.run.world import Share, alone


class PlanRow(BaseModel):
    """One choice.

    Attributes:
        at: step from which the choice holds, >= 0.
        kind: what was chosen, such as "total_steps".
        value: the choice, any JSON value.
        why: the reason, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    at: int = Field(ge=0)
    kind: str = Field(min_length=1)
    value: Any
    why: str


class Plan:
    """The rows of one `plan.jsonl`.

    Args:
        path: the file; absent means no choice was made yet.
        share: where several processes train together: the leading one reads, chooses and writes, all have the rows.
        replayed: the rows are those of a finished run, which made no choices but these at instants that a clock alone
            decided.

    Raises:
        InputError: a complete line is not a plan row.
    """

    def __init__(self, path: Path, *, share: Share = alone, replayed: bool = False) -> None:
        self.path = path
        self.replayed = replayed
        self._share = share
        self._rows = share(self._read)

    def _read(self) -> list[PlanRow]:
        try:
            return [PlanRow.model_validate(row) for row in read_jsonl(self.path)]
        except ValueError as error:  # of read_jsonl too
            raise InputError(
                f"{self.path} is not a plan ({first_line(error).partition('; ')[0]}); start the run again in another "
                "folder"
            ) from error

    @property
    def rows(self) -> tuple[PlanRow, ...]:
        """All rows, oldest first."""
        return tuple(self._rows)

    def record(self, kind: str, value: Any, *, at: int, why: str) -> Any:
        """Append a row and sync it; the choice holds from step `at` on.

        Args:
            kind: what was chosen.
            value: any JSON value without NaN and infinity.
            at: step, not before the newest row of this kind.
            why: the reason, for people.

        Returns:
            `value` as it will be read back (tuples become lists), so that a first run and its replay see the same.
        """
        return self._record(kind, lambda: value, at=at, why=why)

    def _record(self, kind: str, compute: Callable[[], Any], *, at: int, why: str) -> Any:
        newest = max((other.at for other in self._rows if other.kind == kind), default=0)
        if at < newest:
            raise InputError(
                f"{self.path} has a row for {kind} at step {newest} but none at step {at}: "
                "it was made by another recipe; start the run again in another folder"
            )
        return self._add(kind, compute, at=at, why=why)

    def add(self, kind: str, value: Any, *, at: int, why: str) -> Any:
        """As `record`, for kinds whose rows come of accidents, in any order of their steps."""
        return self._add(kind, lambda: value, at=at, why=why)

    def _add(self, kind: str, compute: Callable[[], Any], *, at: int, why: str) -> Any:
        def write() -> PlanRow:
            value = json.loads(json.dumps(compute(), allow_nan=False))
            row = PlanRow(at=at, kind=kind, value=value, why=why)
            append_jsonl(self.path, row.model_dump())
            return row

        row = self._share(write)
        if (row.kind, row.at) != (kind, at):
            raise InputError(
                f"the processes of this run have to decide different things, {row.kind} at step {row.at} and {kind} at "
                f"step {at}; start them on machines of one kind, or say what is measured (--amp or --no-amp)"
            )
        self._rows.append(row)
        return row.value

    def value(self, kind: str, step: int) -> Any:
        """The newest choice of this kind at or before `step`.

        Raises:
            KeyError: there is none.
        """
        row = max((row for row in reversed(self._rows) if row.kind == kind and row.at <= step), key=_at, default=None)
        if row is None:
            raise KeyError(f"no row for {kind} at or before step {step} in {self.path}")
        return row.value

    def decide(self, kind: str, *, at: int, compute: Callable[[], Any], why: str) -> Any:
        """The recorded choice for exactly (`kind`, `at`), or else `compute()`, recorded before it is returned.

        Args:
            kind: what is chosen.
            at: step at which the choice is due; the same in every replay.
            compute: makes the choice; not called when a row exists.
            why: the reason written beside a new row.

        Returns:
            The choice as JSON gives it back.

        Raises:
            InputError: the plan has later rows of this kind but none here, so it belongs to another recipe.
        """
        for row in reversed(self._rows):
            if row.kind == kind and row.at == at:
                return row.value
        return self._record(kind, compute, at=at, why=why)


def _at(row: PlanRow) -> int:
    return row.at
