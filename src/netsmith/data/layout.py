"""From a list of relative paths to classes, labels and splits, the same way for folders, zip and tar files.

Two forms: `class/...image` and `{train,val,test}/class/...image`. A folder named "train" that holds pictures directly
is a class (of trains). Hidden files and what operating systems leave behind are ignored; everything else that is not
used is reported.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from netsmith.data.items import Entry, Split, Stray, listed, printable
from netsmith.data.prepare import EXTENSIONS
from netsmith.errors import InputError

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names and table values, lower case, that name a split."""

_JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found"})

VAL_IS_TEST = (
    "train and val are given but no test: the given val is used as test, and a new val is cut from train, "
    "so that the test number is never selected on"
)


@dataclass(frozen=True)
class Arrangement:
    """What a list of paths means; see `Source` for the fields."""

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    strays: tuple[Stray, ...]


def is_junk(path: str) -> bool:
    """Whether a relative path is hidden or left behind by an operating system."""
    return any(part.startswith(".") or part in _JUNK for part in path.split("/"))


def is_image_name(path: str) -> bool:
    """Whether the extension is one of a picture."""
    return PurePosixPath(path).suffix.lower() in EXTENSIONS


def arrange(paths: Iterable[str], *, where: str, unwrap: bool, empty: Sequence[str] = ()) -> Arrangement:
    """Classes, labels and splits from the relative paths of regular files.

    Args:
        paths: with "/" between the parts.
        where: what to call the source in messages.
        unwrap: look inside a single top folder (archives often have one).
        empty: folders without files, reported.

    Raises InputError when there is no picture, or splits that contradict each other.
    """
    kept = sorted(path for path in paths if not is_junk(path))
    images = [path for path in kept if is_image_name(path)]
    strays = [Stray(path, "its extension is not one of a picture") for path in kept if not is_image_name(path)]
    strays += [Stray(folder, "the folder is empty") for folder in empty if not is_junk(folder)]
    if not images:
        found = f"; it holds {listed([stray.name for stray in strays])}" if strays else ""
        raise InputError(f"no pictures in {where}{found}: expected CLASS/picture.jpg or train/CLASS/picture.jpg inside")
    prefix = _wrapping(images) if unwrap else ""
    inner = {path: path[len(prefix) :].split("/") for path in images}
    rows: list[tuple[str, str, Split | None]] = []  # path, class, split
    if given := _split_folders(inner.values(), where):
        for path, parts in inner.items():
            if parts[0] in given and len(parts) >= 3:
                rows.append((path, parts[1], given[parts[0]]))
            else:
                strays.append(Stray(path, f"not in a class folder inside {' or '.join(sorted(given))}"))
    else:
        for path, parts in inner.items():
            if len(parts) >= 2:
                rows.append((path, parts[0], None))
            else:
                strays.append(Stray(path, "not in a class folder"))
    if not rows:
        raise InputError(
            f"{where} holds pictures but no class folders: put each picture into a folder named after its class, "
            "or name the labels in a CSV file with the columns image_path,label"
        )
    classes = tuple(sorted({row[1] for row in rows}))
    label = {name: index for index, name in enumerate(classes)}
    entries = [Entry(path, (label[name],), side) for path, name, side in rows]
    settled, notes = settle_splits(entries, where=where)
    return Arrangement(classes, settled, notes, tuple(strays))


def settle_splits(entries: Sequence[Entry], *, where: str) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Entries with a given val but no given test have their val made test; and the note that says so.

    Raises InputError when nothing is left to train on.
    """
    present = {entry.split for entry in entries}
    if not present & {"train", None}:
        raise InputError(
            f"{where} holds no training pictures, only {' and '.join(sorted(map(str, present)))}; add train"
        )
    if "val" not in present or "test" in present:
        return tuple(entries), ()
    return tuple(replace(entry, split="test") if entry.split == "val" else entry for entry in entries), (VAL_IS_TEST,)


def _wrapping(images: Sequence[str]) -> str:
    """The single top folder around everything with its "/", or "" where there is none."""
    tops = {path.split("/")[0] for path in images}
    top = next(iter(tops))
    wrapped = len(tops) == 1 and top.lower() not in SPLIT_NAMES and all(path.count("/") >= 2 for path in images)
    return f"{top}/" if wrapped else ""


def _split_folders(paths: Iterable[Sequence[str]], where: str) -> dict[str, Split]:
    """Top folders that are splits, or {} when the top folders are classes."""
    tops: dict[str, bool] = {}  # top folder -> every picture is inside a folder of it
    for parts in paths:
        if len(parts) >= 2:
            tops[parts[0]] = tops.get(parts[0], True) and len(parts) >= 3
    given: dict[str, Split] = {
        top: SPLIT_NAMES[top.lower()] for top, nested in tops.items() if nested and top.lower() in SPLIT_NAMES
    }
    if len(given) < len(tops) and not {"train"} < set(given.values()):
        return {}  # a folder called "train" among others is a class
    if len(set(given.values())) < len(given):
        raise InputError(
            f"{where} names one split twice ({', '.join(map(printable, sorted(given)))}): merge or rename them"
        )
    return given
