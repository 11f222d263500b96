"""Pictures in folders."""

import os
from pathlib import Path

from netsmith.data.archives import LIMITS, Limits
from netsmith.data.items import Source, Stray, encodable
from netsmith.data.layout import arrange
from netsmith.data.prepare import read_file
from netsmith.errors import InputError

_DEEPEST = 100  # folders inside each other, far from where Python's stack ends
_HEIC = frozenset({".heic", ".heif"})


class FolderReader:
    """Reads files below a folder. Pickles as the folder.

    Args:
        root: the folder.
        odd: shown name -> real name, for names that are not UTF-8.
    """

    def __init__(self, root: Path, odd: dict[str, str] | None = None) -> None:
        self.root = root
        self.odd = odd or {}

    def read(self, name: str) -> bytes:
        """Bytes of a file; raises ImageError when it is gone, not a regular file, not readable, or too large."""
        return read_file(os.path.join(self.root, self.odd.get(name, name)))


def open_folder(root: Path, *, limits: Limits = LIMITS) -> Source:
    """Pictures in a folder of class folders, or of split folders of class folders; links are followed, loops are not.

    Raises InputError when there is no picture or no class folder.
    """
    names: dict[str, str] = {}  # shown -> real
    empty: list[str] = []
    strays: list[Stray] = []
    ancestors: set[tuple[int, int]] = set()
    entered = 0

    def walk(folder: str) -> None:
        nonlocal entered
        entered += 1
        try:
            status = os.stat(root / folder)
            found = sorted(os.scandir(root / folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not folder:
                raise InputError(f"{root} cannot be read ({error.strerror}); change its permissions") from None
            strays.append(Stray(encodable(folder), f"the folder cannot be read ({error.strerror})"))
            return
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            strays.append(Stray(encodable(folder), "a link that leads back into its own folder"))
            return
        if len(ancestors) > _DEEPEST:
            strays.append(Stray(encodable(folder), f"more than {_DEEPEST} folders deep"))
            return
        if not found and folder:
            empty.append(encodable(folder))
        ancestors.add(identity)
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself, or to where nobody may look: listed, and reading it says why
                is_folder = False
            if is_folder:
                if not entry.name.startswith("."):
                    walk(name)
            elif entry.is_symlink() or entry.is_file():  # a broken link is listed and then cannot be read
                names[encodable(name)] = name
            else:
                strays.append(Stray(encodable(name), "neither a file nor a folder"))
        ancestors.remove(identity)
        if entered + len(names) > limits.members:  # links from folder to folder multiply the ways through them
            raise InputError(f"{root} holds more than {limits.members:,} files and folders; split it")

    walk("")
    if names and all(name.lower().endswith(".tar") for name in names):
        raise InputError(f"{root} holds tar files, no pictures; give '{root}/*.tar' where they are shards")
    found = arrange(names, where=str(root), unwrap=False, empty=empty)
    heic = sum(Path(stray.name).suffix.lower() in _HEIC for stray in found.strays)
    notes = (
        (*found.notes, f"{heic:,} HEIC pictures are left out; convert them to JPEG to use them")
        if heic
        else found.notes
    )
    odd = {name: real for name, real in names.items() if name != real}
    return Source(str(root), found.classes, found.entries, FolderReader(root, odd), notes, (*strays, *found.strays))
