"""`data.json`: which pictures a run has, what each shows and which split it is in, written once and obeyed on resume.

Format 1 is of pictures with one class each, format 2 of tags; both are read, and each task is written in its own, so
that records of classifiers are what they always were.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsmith.data.items import Dataset, Item, Split, fingerprint, label_text, listed, printable
from netsmith.errors import InputError, first_line
from netsmith.run.scores import Task

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Label = Annotated[int, Field(ge=0)]
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class _ClassRow(BaseModel):
    model_config = _STRICT

    label: Label
    split: Split
    group: Hash
    name: str


class _TagRow(BaseModel):
    model_config = _STRICT

    labels: list[Label]
    split: Split
    group: Hash
    name: str


class _ClassRecord(BaseModel):
    model_config = _STRICT

    format: Literal[1]
    source: str
    fingerprint: Hash
    classes: Annotated[list[str], Field(min_length=2)]
    seed: int
    items: dict[Hash, _ClassRow]


class _TagRecord(BaseModel):
    model_config = _STRICT

    format: Literal[2]
    task: Literal["tag"]
    source: str
    fingerprint: Hash
    classes: Annotated[list[str], Field(min_length=1)]
    seed: int
    items: dict[Hash, _TagRow]


@dataclass(frozen=True, slots=True)
class DataRow:
    """One picture of `data.json`; copies of equal content share it. Attributes as those of `Item`."""

    labels: tuple[int, ...]
    split: Split
    group: str
    name: str

    @property
    def label(self) -> int:
        """Its class, where the task is to classify."""
        (label,) = self.labels
        return label


@dataclass(frozen=True)
class DataRecord:
    """`data.json` of either format."""

    task: Task
    source: str
    fingerprint: str
    classes: list[str]
    seed: int
    items: dict[str, DataRow]

    def named(self, labels: Sequence[int]) -> str:
        """Labels in one string, see `label_text`."""
        return label_text(labels, self.classes, self.task)


def to_data_json(dataset: Dataset, *, seed: int) -> dict[str, Any]:
    """The content of `data.json`: enough to make the same splits again from the same pictures.

    Every item must be in a split; items of equal content share one row.
    """
    items: dict[str, dict[str, Any]] = {}
    for item in sorted(dataset.items, key=lambda item: (item.key, item.name)):
        assert item.split is not None, f"{item.name} is in no split"
        shown = {"labels": list(item.labels)} if dataset.task == "tag" else {"label": item.label}
        row = {**shown, "split": item.split, "group": item.group, "name": item.name}
        first = items.setdefault(item.key, row)
        assert row == {**first, "name": item.name}, f"{item.name} contradicts {first['name']}"
    return {
        **({"format": 2, "task": "tag"} if dataset.task == "tag" else {"format": 1}),
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "seed": seed,
        "items": items,
    }


def parse_data_json(path: Path) -> Any:
    """What a `data.json` holds, not checked yet.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}); restore it or make the run again") from error


def load_data_json(path: Path) -> DataRecord:
    """The record of a `data.json`.

    Raises:
        InputError: it cannot be read, or is not such a record.
    """
    return read_data_json(parse_data_json(path), where=str(path))


def read_data_json(document: Any, *, where: str = "data.json") -> DataRecord:
    """Check a parsed `data.json`.

    Raises: InputError when it is not format 1 or 2, or its labels, classes and fingerprint do not agree; `where` names
        the file.
    """
    tagged = isinstance(document, dict) and document.get("format") == 2
    try:
        found = (_TagRecord if tagged else _ClassRecord).model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "top"
        form = 2 if tagged else 1
        raise InputError(
            f"{where} is not a valid data.json, format {form}: {place}: {first['msg']}; make the run again"
        ) from None
    rows = {
        key: DataRow(tuple(row.labels) if isinstance(row, _TagRow) else (row.label,), row.split, row.group, row.name)
        for key, row in found.items.items()
    }
    classes = len(found.classes)
    if wide := [row.name for row in rows.values() if any(label >= classes for label in row.labels)]:
        raise InputError(f"{where} gives labels beyond its {classes} classes ({listed(wide)}); make the run again")
    task: Task = "tag" if tagged else "classify"
    recorded = DataRecord(task, found.source, found.fingerprint, found.classes, found.seed, rows)
    if fingerprint((key, recorded.named(row.labels), row.split) for key, row in rows.items()) != recorded.fingerprint:
        raise InputError(f"{where} does not match its own fingerprint; it was edited or damaged: make the run again")
    return recorded


def from_data_json(document: Any, dataset: Dataset, *, where: str = "data.json", partial: bool = False) -> Dataset:
    """The splits of `document` applied to freshly audited pictures: labels, splits and groups as they were.

    Args:
        document: parsed `data.json`.
        dataset: the same pictures, in any order and under any names.
        where: the file, for messages.
        partial: accept that recorded pictures are gone, and say so in `notes`.

    Returns: the dataset in the document's class order. Pictures that the document does not know are left out and noted.
    Raises: InputError when the document is not valid, a picture is gone (unless `partial`) or now has another class.
    """
    recorded = read_data_json(document, where=where)
    if recorded.task != dataset.task:
        kinds = {"classify": "one class per picture", "tag": "several labels per picture"}
        raise InputError(
            f"{dataset.source} now has {kinds[dataset.task]} and had {kinds[recorded.task]} in {where}: start a new run"
        )
    kept: list[Item] = []
    new: list[str] = []
    for item in dataset.items:
        row = recorded.items.get(item.key)
        if row is None:
            new.append(item.name)
            continue
        was, now = recorded.named(row.labels), dataset.named(item)
        if was != now:
            raise InputError(
                f"{printable(item.name)} is now of class '{printable(now)}' but was '{printable(was)}' in {where}: "
                "start a new run, or put the picture back"
            )
        kept.append(replace(item, labels=row.labels, split=row.split, group=row.group))
    found = {item.key for item in kept}
    gone = [row.name for key, row in recorded.items.items() if key not in found]
    notes = list(dataset.notes)
    if gone:
        sentence = (
            f"{len(gone):,} of {len(recorded.items):,} pictures of {where} are not in {dataset.source} any more "
            f"({listed(gone)})"
        )
        if not partial or not kept:
            raise InputError(f"{sentence}: put them back or start a new run")
        notes.append(f"{sentence}; they are left out")
    if new:
        notes.append(f"{len(new):,} pictures of {dataset.source} are not in {where} and are left out ({listed(new)})")
    return replace(dataset, classes=tuple(recorded.classes), items=tuple(kept), notes=tuple(notes))
