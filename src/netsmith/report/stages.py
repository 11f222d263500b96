"""What each stage made of the model that it began with: accuracy, time, bytes and memory, before and after; and of a
run that tried several orders of stages, what came of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsmith.report.evidence import Evidence
from netsmith.report.markup import Content, Markup, join, number, numbers, sentence, table, tag
from netsmith.report.wording import bounds, count, milliseconds, percent, size
from netsmith.run.ledger import LedgerRow, own_rows
from netsmith.run.metrics import Interval
from netsmith.run.result import Latency
from netsmith.run.scores import METRIC_NAMES


class _Side(BaseModel):
    """A model as a ledger row describes it before or after a stage; other fields are not shown."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    precision: str
    runtime: str
    threads: int
    size_bytes: int = Field(ge=0)
    memory_bytes: int | None = Field(default=None, ge=0)
    macs: int = Field(ge=0)
    latency_ms: Latency
    top1: Interval | None = None
    map: Interval | None = None

    @property
    def score(self) -> Interval | None:
        """What it is judged by."""
        return self.top1 or self.map


FINALIST, ORDER = "finalist", "order"
"""Rows of a run that chose among orders of stages: what came of one, and whether it was tried."""


def tried(evidence: Evidence) -> Markup | None:
    """A table of the orders of stages that were tried, side by side, and those that were not; None where none were."""
    own = own_rows(evidence.ledger)
    finalists = {str(row.after.get("order")): row for row in own if row.stage == FINALIST}
    lines: list[list[Content]] = []
    for name, row in finalists.items():
        side = _side(row.after)
        if side is None:
            continue
        how = "shipped" if row.after.get("won") is True else "fits" if row.verdict == "kept" else "does not fit"
        lines.append([name, tag("strong", how), *_cells(side)])
    if not lines:
        return None
    rest = [(str(row.after.get("order")), row) for row in own if row.stage == ORDER and row.verdict == "refused"]
    missing: list[list[Content]] = [[name, _why(row, name)] for name, row in [*rest, *_failed_steps(own)]]
    return join(
        [
            sentence(
                "What came of each order of stages, judged in turns in one fresh process. Of those that fit the most "
                "accurate on validation is shipped; of those as good within chance the smallest and fastest."
            ),
            table(_head(evidence, "Order"), lines),
            table(["Order", "not there because"], missing) if missing else "",
        ]
    )


def _why(row: LedgerRow, name: str) -> str:
    """Its reason without the name in front, which has a column of its own."""
    return row.reason.removeprefix(f"{name}: ")


def _failed_steps(own: Sequence[LedgerRow]) -> list[tuple[str, LedgerRow]]:
    """Steps that came to nothing, of each order the last, unless another one took its place."""
    last = {str(row.after["step"]).partition("/")[0]: row for row in own if "step" in row.after and row.stage != "rung"}
    return [(str(row.after["step"]), row) for row in last.values() if row.verdict in ("failed", "refused")]


def stages(evidence: Evidence) -> Markup | None:
    """A table of what made a model, each beside the one that it began with; None where no model is recorded."""
    found = [
        (row, _side(row.before), after)
        for row in evidence.ledger
        if row.stage != FINALIST and (after := _side(row.after)) is not None
    ]
    if not found:
        return None
    return join(
        [
            sentence(
                "Models opened again side by side, what a stage began with and what it made; where nothing comparable "
                "came before, or it could not be measured, there is none before. Accuracies on validation flatter what "
                "was chosen by them; memory is that of a fresh process with the one model."
            ),
            table(_head(evidence, "Stage"), (line for each in found for line in _lines(*each))),
        ]
    )


def _head(evidence: Evidence, first: str) -> list[Content]:
    return [
        first, "", numbers(f"{METRIC_NAMES[evidence.metric]} on validation"), numbers("p50"), numbers("p90"),
        numbers("size"), numbers("memory"), numbers("MACs"), "runs in",
    ]  # fmt: skip


def _side(record: Mapping[str, Any]) -> _Side | None:
    try:
        return _Side.model_validate(record)
    except ValidationError:
        return None


def _lines(row: LedgerRow, before: _Side | None, after: _Side) -> list[list[Content]]:
    step = row.after.get("step")
    name = row.stage if step is None else f"{step}: {row.stage}"
    if before is None:
        return [[name, tag("strong", row.verdict), *_cells(after)]]
    return [[name, "before", *_cells(before)], ["", tag("strong", row.verdict), *_cells(after)]]


def _cells(side: _Side) -> list[Content]:
    found = side.score
    return [
        number("" if found is None else f"{percent(found.value, n=found.n)} ({bounds(found)})"),
        number(milliseconds(side.latency_ms.p50)),
        number(milliseconds(side.latency_ms.p90)),
        number(size(side.size_bytes)),
        number("" if side.memory_bytes is None else size(side.memory_bytes)),
        number(count(side.macs)),
        tag("td", f"{side.precision}, {side.runtime} × {side.threads}", class_="tight"),
    ]
