"""Train, val and test: stratified, seeded, and decided by each picture's own hash.

Within a class, pictures are ordered by hash(seed, pixels); test is cut from the low end and val from the high end.
The order of files, their names and the other classes do not matter, and a picture added later moves only pictures at
the cut. Duplicates share the hash, so they stay together. Splits that were given are kept; only what is missing is
cut, from train.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsmith.data.items import Dataset, Item, Split, fingerprint, listed, printable
from netsmith.errors import InputError

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def split(dataset: Dataset, *, seed: int, val: float = 0.15, test: float = 0.15) -> Dataset:
    """The dataset with every item in train, val or test.

    Args:
        seed: another seed is another split.
        val, test: share of the pictures of each class to cut for splits that were not given; at least one picture each
            (none where `test` is 0).

    Raises InputError naming the class that has too few distinct pictures, and the mend.
    """
    assert 0 < val < 1, val
    assert 0 <= test < 1 - val, test
    given = {item.split for item in dataset.items}
    shares: dict[Split, float] = {}
    if "test" not in given and test > 0:
        shares["test"] = test
    if "val" not in given:
        shares["val"] = val
    groups = _groups(dataset.items)
    sides: dict[str, Split] = {}  # group -> its new side; every other group of the pool is train
    for label, name in enumerate(dataset.classes):
        members = groups.get(label, {})
        _refuse_few(len(members), name, needed=1 + len(shares), missing=list(shares))
        total = sum(members.values())
        order = sorted(members, key=lambda group: hashlib.sha256(f"split {seed} {group}".encode()).digest())
        for reserved, (side, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
            # train and every side still to come need one group each
            free = [group for group in (order if side == "test" else order[::-1]) if group not in sides]
            for group in _cut(free, members, round(total * share), most=len(free) - reserved):
                sides[group] = side
    items = tuple(
        item if item.split in ("val", "test") else replace(item, split=sides.get(item.group, "train"))
        for item in dataset.items
    )
    return replace(dataset, items=items)


def _groups(items: Sequence[Item]) -> dict[int, dict[str, int]]:
    """Label -> duplicate group -> number of pictures, of the items that may be cut."""
    groups: dict[int, dict[str, int]] = defaultdict(Counter)
    for item in items:
        if item.split in (None, "train"):
            groups[item.label][item.group] += 1
    return groups


def _cut(order: Sequence[str], sizes: dict[str, int], wanted: int, *, most: int) -> list[str]:
    """Groups from the front of `order` that come closest to `wanted` pictures: at least one group, at most `most`."""
    chosen: list[str] = []
    count = 0
    for group in order:
        if len(chosen) == most or count >= wanted:
            break
        if abs(count + sizes[group] - wanted) <= abs(count - wanted):
            chosen.append(group)
            count += sizes[group]
    return chosen or [min(order, key=lambda group: sizes[group])]


def _refuse_few(distinct: int, name: str, *, needed: int, missing: Sequence[Split]) -> None:
    if distinct >= needed:
        return
    found = {0: "no picture", 1: "1 distinct picture"}.get(distinct, f"{distinct} distinct pictures")
    purpose = " and ".join(["train", *missing])
    raise InputError(
        f"class '{printable(name)}' has {found} to train on but {purpose} need at least {needed}: "
        "add pictures, remove the class, or give the splits as folders"
    )


class DataRow(BaseModel):
    """One picture of `data.json`; copies of equal content share it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    label: Annotated[int, Field(ge=0)]
    split: Split
    group: Hash
    name: str


class DataRecord(BaseModel):
    """`data.json`, format 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1]
    source: str
    fingerprint: Hash
    classes: Annotated[list[str], Field(min_length=2)]
    seed: int
    items: dict[Hash, DataRow]


def to_data_json(dataset: Dataset, *, seed: int) -> dict[str, Any]:
    """The content of `data.json`, format 1: enough to make the same splits again from the same pictures.

    Every item must be in a split; items of equal content share one row.
    """
    items: dict[str, dict[str, Any]] = {}
    for item in sorted(dataset.items, key=lambda item: (item.key, item.name)):
        assert item.split is not None, f"{item.name} is in no split"
        row = {"label": item.label, "split": item.split, "group": item.group, "name": item.name}
        first = items.setdefault(item.key, row)
        assert (first["label"], first["split"]) == (item.label, item.split), f"{item.name} contradicts {first['name']}"
    return {
        "format": 1,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "seed": seed,
        "items": items,
    }


def read_data_json(document: Any, *, where: str = "data.json") -> DataRecord:
    """Check a parsed `data.json`.

    Raises: InputError when it is not format 1, or its labels, classes and fingerprint do not agree; `where` names the
        file.
    """
    try:
        recorded = DataRecord.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "top"
        raise InputError(
            f"{where} is not a valid data.json, format 1: {place}: {first['msg']}; make the run again"
        ) from None
    if wide := [row.name for row in recorded.items.values() if row.label >= len(recorded.classes)]:
        raise InputError(
            f"{where} gives labels beyond its {len(recorded.classes)} classes ({listed(wide)}); make the run again"
        )
    rows = recorded.items.items()
    if fingerprint((key, recorded.classes[row.label], row.split) for key, row in rows) != recorded.fingerprint:
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
    kept: list[Item] = []
    new: list[str] = []
    for item in dataset.items:
        row = recorded.items.get(item.key)
        if row is None:
            new.append(item.name)
            continue
        was, now = recorded.classes[row.label], dataset.classes[item.label]
        if was != now:
            raise InputError(
                f"{printable(item.name)} is now of class '{printable(now)}' but was '{printable(was)}' in {where}: "
                "start a new run, or put the picture back"
            )
        kept.append(replace(item, label=row.label, split=row.split, group=row.group))
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
