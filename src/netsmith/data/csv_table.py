"""Sources that are CSV files: which pictures there are, and the class or the tags of each.

Three forms, told apart by the header; paths are relative to the file's folder, other columns are ignored:

- `image_path,label[,split]`: one class per picture.
- `image_path,labels[,split]`: tags, with ";" or "|" between them; none is no tag. A picture on several lines has the
  tags of all.
- `image_path,CLASS,CLASS,...[,split]` without either: a column per tag, 1 where the picture has it and 0 where not.

Names of tags hold neither ";" nor "|", so that what one form says another can.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from netsmith.data.folders import FolderReader
from netsmith.data.items import Entry, Source, Split, encodable, listed, printable
from netsmith.data.layout import SPLIT_NAMES, settle_splits
from netsmith.errors import InputError
from netsmith.run.scores import Task

MOST_TAGS = 10_000
_SEPARATORS = re.compile("[;|]")
_OWN_COLUMNS = frozenset({"image_path", "label", "labels", "split"})
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_FORMS = (
    "the first line must be image_path,label or image_path,label,split; for several labels per picture "
    "image_path,labels, or image_path and a column of 0 and 1 per class"
)


@dataclass(frozen=True)
class _Row:
    """A line of the table: name as it can be written, path as it is on the disk, names of classes, split, where."""

    name: str
    path: str
    labels: tuple[str, ...]
    split: Split | None
    where: str


@dataclass(frozen=True)
class _Form:
    """What a header says: the task, the columns of tags, and how the labels of a line are read."""

    task: Task
    tags: tuple[str, ...]
    read: Callable[[dict[str, str], str], tuple[str, ...]]


def open_csv(path: Path) -> Source:
    """A CSV file, see the module.

    Raises InputError with the line that does not fit, or naming missing files.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
            table = csv.DictReader(handle, strict=True)
            columns = [encodable(name).strip() for name in table.fieldnames or ()]
            form, table.fieldnames = _form(columns, path), columns
            rows = list(_rows(table, form, path))
    except (csv.Error, OSError) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); save it again as UTF-8 with commas") from None
    if not rows:
        raise InputError(f"{path} has a header but no rows; add a line per picture below it")
    missing = [row.name for row in rows if "\0" in row.name or not os.path.isfile(path.parent / row.path)]
    if missing:
        files = "a file that is" if len(missing) == 1 else f"{len(missing):,} files that are"
        raise InputError(
            f"{path} names {files} not there ({listed(missing)}); paths are relative to {path.parent}, "
            "so put the files there or remove their lines"
        )
    rows, joined = _joined(rows) if form.task == "tag" else (rows, ())
    classes = tuple(sorted({*form.tags, *(label for row in rows for label in row.labels)}))
    if form.task == "tag":
        _check_tags(classes, path)
    position = {name: index for index, name in enumerate(classes)}
    entries = [Entry(row.name, tuple(sorted(position[label] for label in row.labels)), row.split) for row in rows]
    settled, notes = settle_splits(entries, where=str(path))
    odd = {row.name: row.path for row in rows if row.name != row.path}
    return Source(str(path), classes, settled, FolderReader(path.parent, odd), (*notes, *joined), task=form.task)


def _form(columns: list[str], path: Path) -> _Form:
    if odd := [name for name in columns if name not in _OWN_COLUMNS and name.lower() in _OWN_COLUMNS]:
        raise InputError(f"{path} has the column '{printable(odd[0])}'; write it '{odd[0].lower()}'")
    if twice := _twice(columns):
        raise InputError(f"{path} has the column {listed(twice)} more than once; keep one")
    if {"label", "labels"} <= {*columns}:
        raise InputError(f"{path} has a column 'label' and a column 'labels'; keep the one that is meant")
    tags = tuple(name for name in columns if name not in ("image_path", "split"))
    has = f"(it has {', '.join(map(printable, columns)) or 'none'})"
    if "image_path" not in columns:
        lacking = "'image_path'" if {"label", "labels"} & {*columns} else "'image_path' and 'label'"
        raise InputError(f"{path} has no column {lacking} {has}; {_FORMS}")
    if "label" in columns:
        return _Form("classify", (), _one_label)
    if "labels" in columns:
        return _Form("tag", (), _several_labels)
    if not tags:
        raise InputError(f"{path} has no column 'label' {has}; {_FORMS}")
    if odd := [name for name in tags if not name.strip() or _SEPARATORS.search(name)]:
        raise InputError(f"{path} has the column '{printable(odd[0])}', which cannot name a class; rename it")
    _check_tags(tags, path)

    def flagged(cells: dict[str, str], where: str) -> tuple[str, ...]:
        return tuple(name for name in tags if _flag(cells[name], f"{where} has", name))

    return _Form("tag", tags, flagged)


def _rows(table: "csv.DictReader[str]", form: _Form, path: Path) -> Iterator[_Row]:
    for row in table:
        where = f"line {table.line_num} of {path}"
        if None in row or None in row.values():
            raise InputError(
                f"{where} does not have {len(table.fieldnames or ())} values as the header has; mend the line"
            )
        cells = cast(dict[str, str], row)
        real = cells["image_path"].strip()
        if not real:
            raise InputError(f"{where} has an empty image_path; fill it in")
        labels = form.read(cells, where)
        yield _Row(encodable(real), real, labels, read_split(cells.get("split", ""), f"split in {where}"), where)


def _one_label(cells: dict[str, str], where: str) -> tuple[str, ...]:
    label = encodable(cells["label"].strip())
    if not label:
        raise InputError(f"{where} has an empty label; fill it in")
    if _SEPARATORS.search(label):
        raise InputError(
            f"{where} has the label '{printable(label)}': several labels per picture go into a column 'labels'; "
            "rename the column, or give one label, without '|' and ';'"
        )
    return (label,)


def _several_labels(cells: dict[str, str], where: str) -> tuple[str, ...]:
    text = encodable(cells["labels"].strip())
    if not text:
        return ()
    names = [name.strip() for name in _SEPARATORS.split(text)]
    if not names[-1]:
        names.pop()  # "a;b;" ends its list as it separates it
    if "" in names:
        raise InputError(f"{where} has an empty name between separators in '{printable(text)}'; take one out")
    if twice := _twice(names):
        raise InputError(f"{where} has the label {listed(twice)} more than once; keep one")
    return tuple(names)


def _twice(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _flag(text: str, where: str, name: str) -> bool:
    flag = _FLAGS.get(text.strip().lower())
    if flag is None:
        raise InputError(
            f"{where} '{printable(text.strip())}' in the column '{printable(name)}', which must be 0 or 1: a table "
            "without a column 'label' or 'labels' has a column per class; "
            "mend the value, or name the column of labels 'label' or 'labels'"
        )
    return flag


def _joined(rows: Sequence[_Row]) -> tuple[list[_Row], tuple[str, ...]]:
    """One row per picture, with the labels of all its lines; and what was joined."""
    by_name: dict[str, _Row] = {}
    more: list[str] = []
    for row in rows:
        first = by_name.setdefault(row.name, row)
        if first is row:
            continue
        if first.split != row.split:
            raise InputError(
                f"{row.where} gives {printable(row.name)} another split than {first.where}; make them the same"
            )
        labels = dict.fromkeys((*first.labels, *row.labels))
        by_name[row.name] = _Row(first.name, first.path, tuple(labels), first.split, first.where)
        more.append(row.name)
    names = sorted(set(more))
    count = "1 picture stands" if len(names) == 1 else f"{len(names):,} pictures stand"
    note = (f"{count} on several lines and has the labels of all of them: {listed(names)}",) if names else ()
    return list(by_name.values()), note


def _check_tags(classes: tuple[str, ...], path: Path) -> None:
    if not classes:
        raise InputError(f"{path} gives no picture a label; fill in the column 'labels'")
    if len(classes) > MOST_TAGS:
        raise InputError(
            f"{path} has {len(classes):,} different labels, more than {MOST_TAGS:,}; "
            f"give short names with ';' between them, not texts such as '{printable(max(classes, key=len)[:40])}'"
        )


def read_split(text: str, where: str) -> Split | None:
    """A split by any of its names, case ignored; an empty text leaves the choice to the splitting."""
    name = text.strip().lower()
    if name and name not in SPLIT_NAMES:
        raise InputError(f"{where} is '{printable(text)}'; it must be train, val or test")
    return SPLIT_NAMES.get(name)
