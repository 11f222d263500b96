"""Loss of power: every state of the disk that a recorded run could have left.

Before each fsync of the run, two disks are made of the record:

- one that lost all that was not synced: names and bytes are those of the last sync of each folder and file;
- one on which names outran bytes: all names as they stood, with the bytes that were synced and no others, which is how
  a rename without a sync leaves an empty file.

On both everything that has its name must be whole. And what has its name must be on the disk, name and bytes, before
anything else is written.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wholeness

GROWING = (".jsonl",)
"""Files that rows are appended to: all but the newest row is on the disk."""


@dataclass
class Disk:
    """What is on the disk: names of folders and bytes of files (by hash) that were synced, by inode."""

    names: dict[int, dict[str, int]]
    contents: dict[int, str]


@dataclass
class State:
    """A moment before a sync.

    Attributes:
        number: of the sync.
        disk: as it was then.
        tree: what the process saw: inode and size (-1 of a folder) by path.
        event: the sync that came next.
    """

    number: int
    disk: Disk
    tree: dict[str, tuple[int, int]]
    event: dict[str, Any]


def states(journal: Path) -> Iterator[State]:
    """All moments of a recorded run, in order."""
    disk = Disk({}, {})
    for number, line in enumerate((journal / "events.jsonl").read_text().splitlines()):
        event = json.loads(line)
        yield State(number, disk, {path: (ino, size) for path, (ino, size) in event["before"].items()}, event)
        if "names" in event:
            disk.names[event["inode"]] = event["names"]
        else:
            disk.contents[event["inode"]] = event["sha256"]


def left_behind(state: State, root: Path, target: Path, journal: Path, *, names_outrun: bool) -> None:
    """Make `target` what a loss of power in a state leaves of `root`.

    Args:
        state: of `states`.
        root: that was recorded.
        target: an absent or old folder, replaced.
        journal: has the bytes.
        names_outrun: names as they stood, see the module.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if names_outrun:
        for path, (inode, size) in sorted(state.tree.items()):
            if Path(path).is_relative_to(root) and path != str(root):
                _put(target / Path(path).relative_to(root), inode, state.disk, journal, folder=size < 0)
        return
    _restore(target, state.tree[str(root)][0], state, journal)


def _restore(target: Path, inode: int, state: State, journal: Path) -> None:
    folders = {ino for ino, size in state.tree.values() if size < 0} | set(state.disk.names)
    for name, child in state.disk.names.get(inode, {}).items():
        _put(target / name, child, state.disk, journal, folder=child in folders)
        if child in folders:
            _restore(target / name, child, state, journal)


def _put(path: Path, inode: int, disk: Disk, journal: Path, *, folder: bool) -> None:
    if folder:
        path.mkdir(exist_ok=True)
    elif inode in disk.contents:
        shutil.copyfile(journal / disk.contents[inode], path)
    else:
        path.write_bytes(b"")


def not_yet_there(state: State, root: Path, journal: Path) -> list[str]:
    """What has its name but is not on the disk while something else is being synced."""
    if not state.event["main"] or "names" in state.event:
        return []
    found: list[str] = []
    for path, (inode, size) in state.tree.items():
        here = Path(path)
        if not here.is_relative_to(root) or path == state.event["path"] or here.name == ".lock":
            continue
        if wholeness.is_temporary(here, root):
            continue
        parent = state.tree[str(here.parent)][0]
        if state.disk.names.get(parent, {}).get(here.name) != inode:
            found.append(f"the name {here.relative_to(root)}")
        elif size >= 0 and here.suffix not in GROWING:
            content = state.disk.contents.get(inode)
            if content is None or (journal / content).stat().st_size != size:
                found.append(f"the bytes of {here.relative_to(root)}")
    return found
