"""What a data set is made of: a source lists entries, the audit turns them into items with content hashes, a dataset
holds items.

An item's `key` is the hash of its content, so splits, caches and predictions survive renaming and moving of files.
Nothing here holds open files or pixels: sources and datasets pickle as names and numbers, and readers reopen what
they need.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from netsmith.data.prepare import ImageError, Pixels
from netsmith.run.scores import Task, are_tags

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Targets = NDArray[np.int64] | NDArray[np.bool_]
"""int64 [N], the class of each picture, or bool [N,C], whether it has each tag."""
UNLABELLED = -1
"""The class of a picture that is there for its pixels alone, for students to learn from a teacher; in training only."""
Progress = Callable[[int, int], None]
"""Called as progress(done, total)."""


class Reader(Protocol):
    """Reads pictures of one source by name; safe to use from several threads; pickles without open files."""

    def read(self, name: str) -> bytes | Pixels:
        """Encoded bytes, or uint8 pixels [H,W] or [H,W,C]. Raises ImageError without the name in it."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed picture, not yet read: the reader finds it by `name`; `labels` are ascending indices into the
    source's classes, exactly one where the task is to classify."""

    name: str
    labels: tuple[int, ...]
    split: Split | None


@dataclass(frozen=True, slots=True)
class Stray:
    """Something in the source that is not used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """What was found where the user pointed, listed but not read.

    Attributes:
        name: what the user gave: a path, or "digits".
        classes: class names in label order.
        entries: the pictures in a stable order.
        reader: reads them.
        notes: what was decided on the user's behalf, one sentence each.
        strays: files that were left out, with the reason.
        task: whether a picture has one class or any number of tags.
    """

    name: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    reader: Reader
    notes: tuple[str, ...] = ()
    strays: tuple[Stray, ...] = ()
    task: Task = "classify"


@dataclass(frozen=True, slots=True)
class Item:
    """One usable picture.

    Attributes:
        key: hex SHA-256 of the encoded bytes, or of shape and pixels for arrays.
        labels: ascending indices into the dataset's classes, exactly one where the task is to classify.
        split: "train", "val", "test", or None while undecided.
        name: its name in the source.
        group: hex SHA-256 of the decoded pixels: duplicates share it, whatever their encoding.
        height, width: of the upright picture, pixels.
    """

    key: str
    labels: tuple[int, ...]
    split: Split | None
    name: str
    group: str
    height: int
    width: int

    @property
    def label(self) -> int:
        """Its class, where the task is to classify."""
        (label,) = self.labels
        return label


@dataclass(frozen=True)
class Dataset:
    """Audited pictures with labels and splits.

    Attributes:
        classes: class names in label order.
        items: in the order of the source.
        source: the source's name.
        reader: reads items by name.
        notes: what was decided on the user's behalf, one sentence each.
        task: whether a picture has one class or any number of tags.
    """

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    source: str
    reader: Reader
    notes: tuple[str, ...] = ()
    task: Task = "classify"

    @cached_property
    def fingerprint(self) -> str:
        """`fingerprint` of the items; order, names and further copies of pictures do not matter."""
        return fingerprint((item.key, self.named(item), item.split) for item in self.items)

    def named(self, item: Item) -> str:
        """The labels of an item in one string, see `label_text`."""
        return label_text(item.labels, self.classes, self.task)

    def targets(self, items: Sequence[Item]) -> Targets:
        """What is to be answered: int64 [N], the class of each of N items, or bool [N,C], whether it has each tag."""
        return targets_of([item.labels for item in items], classes=len(self.classes), task=self.task)

    def subset(self, split: Split) -> tuple[Item, ...]:
        """Items of one split, in the order of the dataset."""
        return tuple(item for item in self.items if item.split == split)

    def read(self, item: Item) -> bytes | Pixels:
        """Content of an item: encoded bytes, or uint8 pixels [H,W] or [H,W,C].

        Raises ImageError (an InputError) that names the item when it cannot be read any more or is not what the audit
        saw.
        """
        try:
            content = self.reader.read(item.name)
        except ImageError as error:
            raise ImageError(f"{printable(item.name)} {error}", error.trouble) from None
        if content_key(content) != item.key:
            raise ImageError(f"{printable(item.name)} changed since it was audited; start again", "unreadable")
        return content


def label_text(labels: Sequence[int], classes: Sequence[str], task: Task) -> str:
    """The name of a class, or of every tag with ";" after it, sorted; names of tags hold no ";"."""
    return (
        classes[labels[0]] if task == "classify" else "".join(f"{name};" for name in sorted(classes[i] for i in labels))
    )


def targets_of(labels: Sequence[Sequence[int]], *, classes: int, task: Task) -> Targets:
    """Targets of N pictures, from the indices of the classes of each, see `Dataset.targets`; `UNLABELLED` for none."""
    if task == "classify":
        return np.array([label for (label,) in (each or (UNLABELLED,) for each in labels)], np.int64)
    targets = np.zeros((len(labels), classes), np.bool_)
    for row, tags in zip(targets, labels, strict=True):
        row[list(tags)] = True
    return targets


def labels_of(targets: Targets) -> list[tuple[int, ...]]:
    """Indices of the classes of each picture: `targets_of` undone."""
    if are_tags(targets):
        return [tuple(np.flatnonzero(row).tolist()) for row in targets]
    return [(label,) for label in targets.tolist()]


def fingerprint(rows: Iterable[tuple[str, str, Split | None]]) -> str:
    """Hex SHA-256 over the sorted, distinct (key, labels, split) of a data set, see `label_text`."""
    digest = hashlib.sha256()
    for line in sorted({f"{key}\0{name}\0{side or ''}\n" for key, name, side in rows}):
        digest.update(line.encode())
    return digest.hexdigest()


def content_key(content: bytes | Pixels) -> str:
    """Hex SHA-256 of encoded bytes, or of dtype, shape and values of a pixel array."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256(f"{content.dtype} {content.shape}\n".encode())
    digest.update(content.tobytes())
    return digest.hexdigest()


def encodable(name: str) -> str:
    """A file name that can be written as UTF-8: bytes that are not are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def printable(name: str) -> str:
    """A name as one harmless piece of a line: control characters and line breaks are escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


def listed(names: Sequence[str], *, first: int = 3) -> str:
    """The first few names and how many more there are, for a sentence."""
    shown = ", ".join(printable(name) for name in names[:first])
    return shown if len(names) <= first else f"{shown} and {len(names) - first:,} more"
