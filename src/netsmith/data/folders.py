"""Pictures in folders."""

import os
from pathlib import Path

from netsmith.data.archives import LIMITS, Limits
from netsmith.data.items import Source, Stray, encodable
from netsmith.data.layout import arrange
from netsmith.data.prepare import read_file
from netsmith.errors import InputError

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

    def walk(folder: str) -> None:
        status = os.stat(root / folder)
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            strays.append(Stray(encodable(folder), "a link that leads back into its own folder"))
            return
        try:
            found = sorted(os.scandir(root / folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not folder:
                raise InputError(f"{root} cannot be read ({error.strerror}); change its permissions") from None
            strays.append(Stray(encodable(folder), f"the folder cannot be read ({error.strerror})"))
            return
        if not found and folder:
            empty.append(encodable(folder))
        ancestors.add(identity)
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # a link into a place that may not be looked at
                strays.append(Stray(encodable(name), f"cannot be looked at ({error.strerror})"))
                continue
            if is_folder:
                if not entry.name.startswith("."):
                    walk(name)
            elif entry.is_file() or entry.is_symlink():  # a broken link is listed and then cannot be read
                names[encodable(name)] = name
            else:
                strays.append(Stray(encodable(name), "neither a file nor a folder"))
        ancestors.remove(identity)
        if len(names) > limits.members:
            raise InputError(f"{root} holds more than {limits.members:,} files; split it")

    walk("")
    found = arrange(names, where=str(root), unwrap=False, empty=empty)
    heic = sum(Path(stray.name).suffix.lower() in _HEIC for stray in found.strays)
    notes = (
        (*found.notes, f"{heic:,} HEIC pictures are left out; convert them to JPEG to use them")
        if heic
        else found.notes
    )
    odd = {name: real for name, real in names.items() if name != real}
    return Source(str(root), found.classes, found.entries, FolderReader(root, odd), notes, (*strays, *found.strays))
