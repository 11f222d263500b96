"""Pictures without labels beside a data set, to learn from a teacher's answers alone.

Any folder will do: every picture below it counts, whatever the folders in it are called. Left out, and counted aloud,
is what cannot be read, what is there twice, and what shows the same pixels as any picture of the data set: its training
pictures are there already, and its validation and test pictures must stay unseen.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from netsmith.data.audit import look
from netsmith.data.findings import Seen
from netsmith.data.items import Dataset, Entry, Item, Progress, Reader, Source
from netsmith.data.layout import is_image_name
from netsmith.data.pool import cpu_count, in_order
from netsmith.data.prepare import Pixels, read_file
from netsmith.errors import InputError

Unused = Literal["unreadable", "twice"]
"""Why a picture is left out."""


@dataclass(frozen=True)
class Beside:
    """Reads the pictures of a data set by its names, and others by their paths.

    Attributes:
        labelled: reads those of the data set.
        others: absolute paths.
    """

    labelled: Reader
    others: frozenset[str]

    def read(self, name: str) -> bytes | Pixels:
        """See `Reader`."""
        return read_file(name) if name in self.others else self.labelled.read(name)


def with_unlabelled(
    dataset: Dataset, folder: Path, *, say: Callable[[str], None], progress: Progress | None = None
) -> tuple[Dataset, int]:
    """The data set with more pictures to train on, which have no label, and how many of the folder are left out.

    Args:
        dataset: with its splits; pictures of one class each.
        folder: of the other pictures, with all below it.
        say: told how many there are and how many are left out.
        progress: called as progress(done, total).

    Raises:
        InputError: no such folder, or no usable picture in it.
    """
    names = _pictures_below(folder)
    reader = Beside(dataset.reader, frozenset(names))
    found: list[Item | Unused] = []
    for done, each in enumerate(_looked_at(dataset, folder, names, reader), start=1):
        found.append(each)
        if progress is not None:
            progress(done, len(names))
    items = [each for each in found if isinstance(each, Item)]
    if not items:
        raise _useless(dataset, folder, found)
    left = _left_out(dataset, found)
    say(f"{folder}: {len(items):,} pictures without a label to learn from" + (f"; left out: {left}" if left else ""))
    return replace(dataset, items=(*dataset.items, *items), reader=reader), len(names) - len(items)


def refuse_useless(dataset: Dataset, folder: Path) -> None:
    """Refuse what `with_unlabelled` would; looks at pictures until one is of use.

    Args:
        dataset, folder: as `with_unlabelled`.

    Raises:
        InputError: no such folder, or no usable picture in it.
    """
    names = _pictures_below(folder)
    found: list[Unused] = []
    for each in _looked_at(dataset, folder, names, Beside(dataset.reader, frozenset(names))):
        if isinstance(each, Item):
            return
        found.append(each)
    raise _useless(dataset, folder, found)


def _looked_at(dataset: Dataset, folder: Path, names: Sequence[str], reader: Reader) -> Iterator[Item | Unused]:
    """The pictures of a folder in their order, each to train on or why it is left out."""
    source = Source(str(folder), (), tuple(Entry(name, (), None) for name in names), reader)
    known = {item.group for item in dataset.items}
    for seen in in_order(lambda entry: look(source, entry), source.entries, workers=cpu_count()):
        if not isinstance(seen, Seen):
            yield "unreadable"
        elif seen.group in known:
            yield "twice"
        else:
            known.add(seen.group)
            yield Item(seen.key, (), "train", seen.entry.name, seen.group, seen.height, seen.width)


def _left_out(dataset: Dataset, found: Sequence[Item | Unused]) -> str:
    """How many are, and why; "" where none is."""
    unreadable, twice = found.count("unreadable"), found.count("twice")
    left = [f"{unreadable:,} cannot be read"] * bool(unreadable)
    left += [f"{twice:,} are there twice or in {dataset.source}"] * bool(twice)
    return ", ".join(left)


def _useless(dataset: Dataset, folder: Path, found: Sequence[Item | Unused]) -> InputError:
    return InputError(
        f"--unlabelled {folder}: none of its {len(found):,} pictures is of use ({_left_out(dataset, found)}); give "
        "other pictures"
    )


def _pictures_below(folder: Path) -> list[str]:
    """Absolute paths of the pictures in a folder and below, by their extensions; hidden ones are left out.

    Raises:
        InputError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise InputError(f"--unlabelled {folder} is no folder; give one with pictures in it or below")
    names: list[str] = []
    for root, folders, files in os.walk(folder.resolve()):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [os.path.join(root, name) for name in sorted(files) if is_image_name(name) and name[0] != "."]
    if not names:
        raise InputError(f"--unlabelled {folder} holds no pictures; give a folder with some")
    return names
