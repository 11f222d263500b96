"""Pictures without labels beside a data set, to learn from a teacher's answers alone.

Any folder will do: every picture below it counts, whatever the folders in it are called. Left out, and counted aloud,
is what cannot be read, what is there twice, and what shows the same pixels as any picture of the data set: its training
pictures are there already, and its validation and test pictures must stay unseen.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from netsmith.data.audit import look
from netsmith.data.findings import Seen
from netsmith.data.items import Dataset, Entry, Item, Progress, Reader, Source
from netsmith.data.layout import is_image_name
from netsmith.data.pool import cpu_count, in_order
from netsmith.data.prepare import Pixels, read_file
from netsmith.errors import InputError


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
) -> Dataset:
    """The data set with more pictures to train on, which have no label.

    Args:
        dataset: with its splits; pictures of one class each.
        folder: of the other pictures, with all below it.
        say: told how many there are and how many are left out.
        progress: called as progress(done, total).

    Raises:
        InputError: no such folder, or no usable picture in it.
    """
    names = pictures_below(folder)
    reader = Beside(dataset.reader, frozenset(names))
    source = Source(str(folder), (), tuple(Entry(name, (), None) for name in names), reader)
    known = {item.group for item in dataset.items}
    items: list[Item] = []
    unreadable = twice = 0
    results = in_order(lambda entry: look(source, entry), source.entries, workers=cpu_count())
    for done, seen in enumerate(results, start=1):
        if not isinstance(seen, Seen):
            unreadable += 1
        elif seen.group in known:
            twice += 1
        else:
            known.add(seen.group)
            items.append(Item(seen.key, (), "train", seen.entry.name, seen.group, seen.height, seen.width))
        if progress is not None:
            progress(done, len(names))
    if not items:
        raise InputError(
            f"--unlabelled {folder}: none of its {len(names):,} pictures is of use ({unreadable:,} cannot be read, "
            f"{twice:,} are there twice or in {dataset.source}); give other pictures"
        )
    left = [f"{unreadable:,} cannot be read"] * bool(unreadable)
    left += [f"{twice:,} are there twice or in {dataset.source}"] * bool(twice)
    say(
        f"{folder}: {len(items):,} pictures without a label to learn from"
        + (f"; left out: {', '.join(left)}" if left else "")
    )
    return replace(dataset, items=(*dataset.items, *items), reader=reader)


def pictures_below(folder: Path) -> list[str]:
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
