"""What each stage made of the model that it began with: accuracy, time, bytes and memory, before and after."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsmith.report.evidence import Evidence
from netsmith.report.markup import Content, Markup, join, number, numbers, sentence, table, tag
from netsmith.report.wording import bounds, count, milliseconds, percent, size
from netsmith.run.ledger import LedgerRow
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


def stages(evidence: Evidence) -> Markup | None:
    """A table of the stages that began with a model; None where there is none."""
    found = [
        (row, before, after)
        for row in evidence.ledger
        if (before := _side(row.before)) is not None and (after := _side(row.after)) is not None
    ]
    if not found:
        return None
    metric = METRIC_NAMES["map" if any(after.map is not None for _, _, after in found) else "top1"]
    head: list[Content] = [
        "Stage", "", numbers(f"{metric} on validation"), numbers("p50"), numbers("p90"), numbers("size"),
        numbers("memory"), numbers("MACs"), "runs in",
    ]  # fmt: skip
    return join(
        [
            sentence(
                "Models opened again side by side, what a stage began with and what it made. Accuracies on validation "
                "flatter what was chosen by them; memory is that of a fresh process with the one model."
            ),
            table(head, (line for each in found for line in _lines(*each))),
        ]
    )


def _side(record: Mapping[str, Any]) -> _Side | None:
    try:
        return _Side.model_validate(record)
    except ValidationError:
        return None


def _lines(row: LedgerRow, before: _Side, after: _Side) -> list[list[Content]]:
    return [[row.stage, "before", *_cells(before)], ["", tag("strong", row.verdict), *_cells(after)]]


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
