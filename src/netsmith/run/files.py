"""Files that are never half written: temporary name in the same folder, flush, fsync, rename, fsync of the folder.

Rows of a `.jsonl` are appended with one write and synced; a torn last line (power loss in the middle of an append) is
dropped when read and cut off before the next append, so a reader never sees half a row.
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netsmith.errors import InputError, first_line

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
"""`errno` of an OSError that says that the disk, or a user's part of it, is full."""
_MOST_DIGITS = 20  # of 2**64, and of -2**63 with its sign


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, so that they survive power loss; one that is there stays.

    A file is not on the disk before the folder is that it lies in: syncing the file alone does not name it.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Give a temporary path beside `path`; on success sync it and rename it to `path`, on any error remove it.

    Raises OSError as the file system does (a full disk leaves the old file as it was).
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text; see `write_bytes`."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; see `write_bytes`. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def append_jsonl(path: Path, row: dict[str, Any], *, sync: bool = True) -> None:
    """Append one row to a JSON-lines file and sync it; a torn last line left by a crash is cut off first.

    With `sync=False` a row outlives the process but not, before the next synced row, the loss of power.
    """
    created = not path.exists()
    line = json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    with open(path, "ab+", opener=_no_link) as handle:
        end = handle.seek(0, os.SEEK_END)
        if end:
            handle.seek(end - 1)
            if handle.read(1) != b"\n":
                handle.seek(0)
                handle.truncate(handle.read().rfind(b"\n") + 1)
        handle.write(line)
        handle.flush()
        if sync:
            os.fsync(handle.fileno())
    if created:  # whoever syncs a later row does not know that the name is new
        sync_folder(path.parent)


def _no_link(path: str, flags: int) -> int:
    """Open a file itself: a link, in a folder from elsewhere, would have rows written to wherever it leads."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def sync_file(path: Path) -> None:
    """Wait until what was written to a file, and its name, are on the disk."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
    sync_folder(path.parent)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file, oldest first; an absent file has none; a torn last line is ignored.

    Raises InputError when a complete line is no JSON object, or holds a whole number of more than 64 bits, which
    nothing here writes and no float can hold.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn or empty
    return [_row(line, where=f"line {number} of {path}") for number, line in enumerate(lines, start=1)]


def _row(line: bytes, *, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_int=_whole)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply; restore it from a copy") from None
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({first_line(error)}); restore it from a copy") from None
    if not isinstance(row, dict):
        raise InputError(f"{where} is no JSON object; restore it from a copy")
    return row


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def sha256_file(path: Path, *, progress: Callable[[int], None] | None = None) -> str:
    """Hex SHA-256 of a file's bytes; `progress` is given the number of bytes of each block read."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()
