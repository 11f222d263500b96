"""What a run folder holds, read once: the report says nothing that is not in here.

A file that is absent or damaged becomes a sentence in `gaps`; the report goes on without it. Reading takes no lock, so
a run in progress can be looked at.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsmith.artifact.bundle import Config, load_bundle
from netsmith.artifact.predictions import Predictions
from netsmith.data.record import DataRecord, parse_data_json, read_data_json
from netsmith.errors import InputError
from netsmith.run.clock import SystemClock
from netsmith.run.files import read_jsonl
from netsmith.run.folder import RunFolder, State
from netsmith.run.gradients import GradientRow
from netsmith.run.ledger import Ledger, LedgerRow, in_front
from netsmith.run.plan import Plan, PlanRow
from netsmith.run.recipe import Recipe
from netsmith.run.result import Result
from netsmith.run.scores import METRICS, Metric, are_tags

T = TypeVar("T")
Row = TypeVar("Row", bound=BaseModel)
SPLITS: tuple[Literal["test", "val"], ...] = ("test", "val")
Drawn = Annotated[float, Field(ge=-1e30, le=1e30)]
"""A number that a chart can bear; the squares of larger ones overflow."""


class ValMark(BaseModel):
    """Accuracy, or mAP of tags, and loss on the validation split at one moment of training."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    top1: float | None = Field(default=None, ge=0.0, le=1.0)
    map: float | None = Field(default=None, ge=0.0, le=1.0)
    loss: Drawn | None = None

    @property
    def score(self) -> float | None:
        """Whichever was recorded."""
        return self.top1 if self.top1 is not None else self.map


class SampleMark(BaseModel):
    """Accuracy and loss on a sample of the training pictures, prepared as validation pictures are."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    top1: float = Field(ge=0.0, le=1.0)
    n: int = Field(ge=1)
    loss: Drawn | None = None


class Mark(BaseModel):
    """One row of `metrics.jsonl`; keys that the report does not show are ignored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    step: int = Field(ge=0)
    progress: float = Field(ge=0.0, le=1.0)
    epoch: Annotated[float, Field(ge=0.0, le=1e9)] | None = None
    lr: Drawn | None = None
    side: int | None = None
    loss: Drawn | None = None
    top1: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    grad_norm: Annotated[float, Field(ge=0.0, le=1e30)] | None = None
    val: ValMark | None = None
    train: SampleMark | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything the report is made from; None or empty where the run has no such file (see `gaps`).

    Attributes:
        path: the run folder, as the user wrote it.
        state: how far the run came.
        command: verb and arguments that made the run.
        result: `results.json`.
        ledger, plan: rows, oldest first.
        recipe: `recipe.yaml`.
        marks: `metrics.jsonl`, of a fit that is not that far the one of the candidate in front; of a step that was
            trained again after a resume, the newer row.
        marks_of: the candidate in front whose metrics those are, None where they are the run's.
        gradients: `gradients.jsonl` beside those metrics; older runs have none.
        data: `data.json`.
        predictions: by split, for those there are.
        model: `model/config.json`.
        gaps: file name -> sentence about why it is not used.
    """

    path: Path
    state: State
    command: list[str]
    result: Result | None
    ledger: tuple[LedgerRow, ...]
    plan: tuple[PlanRow, ...]
    recipe: Recipe | None
    marks: tuple[Mark, ...]
    marks_of: str | None
    gradients: tuple[GradientRow, ...]
    data: DataRecord | None
    predictions: dict[str, Predictions]
    model: Config | None
    gaps: dict[str, str]

    @property
    def metric(self) -> Metric:
        """What the model is judged by, as far as any file says; top-1 where none does."""
        if self.data is not None:
            return METRICS[self.data.task]
        if self.result is not None:
            return self.result.final.metric
        return METRICS[self.model.task] if self.model is not None else "top1"

    @property
    def classes(self) -> list[str]:
        """Names of the classes in label order; empty where no file gives them."""
        if self.data is not None:
            return self.data.classes
        return list(self.model.labels) if self.model is not None else []

    def class_name(self, label: int) -> str:
        """Name of a class, or its number where no file gives it."""
        classes = self.classes
        return classes[label] if label < len(classes) else f"class {label}"

    @property
    def verification(self) -> LedgerRow | None:
        """The newest verification that the ledger has."""
        return next((row for row in reversed(self.ledger) if row.stage == "verify"), None)

    @property
    def commands(self) -> list[str]:
        """What was typed, the first run and each resume, as lines."""
        if self.result is not None and self.result.commands:
            return self.result.commands
        return [row.reason for row in self.rows("session")] or [shlex.join(["netsmith", *self.command])]

    def rows(self, stage: str) -> list[LedgerRow]:
        """The ledger's rows of one stage, oldest first."""
        return [row for row in self.ledger if row.stage == stage]


def gather(run: RunFolder) -> Evidence:
    """Read a run folder.

    Raises:
        InputError: it is no run folder.
    """
    command = run.command
    gaps: dict[str, str] = {}

    def read(path: Path, load: Callable[[], T]) -> T | None:
        name = path.relative_to(run.path).as_posix()
        if not path.exists():
            gaps[name] = f"There is no {name}."
            return None
        if not path.is_file():
            gaps[name] = f"{name} is left out: it is no file."
            return None
        try:
            return load()
        except InputError as error:
            gaps[name] = f"{name} is left out: {error}."
        except RecursionError:
            gaps[name] = f"{name} is left out: it is nested too deeply."
        except OSError as error:
            gaps[name] = f"{name} cannot be read ({error.strerror or error})."
        return None

    ledger = read(run.ledger, lambda: Ledger(run.ledger, clock=SystemClock()).rows) or ()
    leader = None if run.metrics.exists() else in_front(ledger)
    if leader is not None and leader not in _names(run.candidates):
        leader = None
    metrics = run.metrics if leader is None else run.candidates / leader / run.metrics.name
    gradients = metrics.with_name(run.gradients.name)
    data = read(run.data, lambda: _data(run.data))
    found = {split: read(run.predictions(split), lambda split=split: _predictions(run.predictions(split), data))
             for split in SPLITS}  # fmt: skip
    return Evidence(
        path=run.path,
        state=run.state,
        command=command,
        result=read(run.results, lambda: Result.load(run.results)),
        ledger=ledger,
        plan=read(run.plan, lambda: Plan(run.plan).rows) or (),
        recipe=read(run.recipe, lambda: Recipe.load(run.recipe)),
        marks=read(metrics, lambda: _marks(metrics)) or (),
        marks_of=leader,
        gradients=(read(gradients, lambda: _gradients(gradients)) if gradients.exists() else None) or (),
        data=data,
        predictions={split: answers for split, answers in found.items() if answers is not None},
        model=read(run.model / "config.json", lambda: load_bundle(run.model).config),
        gaps=gaps,
    )


def _names(folder: Path) -> list[str]:
    """What a folder holds; nothing where it cannot be read."""
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _data(path: Path) -> DataRecord:
    return read_data_json(parse_data_json(path), where=path.name)


def _marks(path: Path) -> tuple[Mark, ...]:
    newest: dict[int, Mark] = {}
    for mark in _rows(path, Mark):
        before = newest.get(mark.step)  # answers may follow in a row of their own
        said = {key: value for key, value in mark if value is not None}
        newest[mark.step] = mark if before is None else before.model_copy(update=said)
    return tuple(newest[step] for step in sorted(newest))


def _gradients(path: Path) -> tuple[GradientRow, ...]:
    newest = {row.step: row for row in _rows(path, GradientRow)}
    return tuple(newest[step] for step in sorted(newest))


def _rows(path: Path, kind: type[Row]) -> list[Row]:
    try:
        return [kind.model_validate(row) for row in read_jsonl(path)]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"a row has a wrong {'.'.join(map(str, first['loc']))} ({first['msg']})") from error


def _predictions(path: Path, data: DataRecord | None) -> Predictions:
    found = Predictions.load(path)
    if data is not None and are_tags(found.targets) != (data.task == "tag"):
        raise InputError("its targets are not of the task that data.json has")
    if data is not None and found.logits.shape[1] != len(data.classes):
        raise InputError(f"it answers {found.logits.shape[1]} classes and data.json has {len(data.classes)}")
    return found
