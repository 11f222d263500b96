"""Pictures inside zip and tar files, read in place: no member is ever written to disk, so none can land outside a
folder.

A compressed tar cannot be read at random, so it is decompressed once into one plain tar in the cache, and that is
read in place. Everything in an archive is hostile until shown otherwise: names that leave the archive, links, devices
and bombs refuse the whole archive.
"""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netsmith.data.items import printable
from netsmith.data.prepare import MAX_BYTES, ImageError
from netsmith.errors import InputError, first_line
from netsmith.run.files import FULL_DISK, replacing, sha256_file

_MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_BLOCK = 1 << 20
_LARGEST_HEADER = 16 << 20  # bytes of a member's header in a tar, with long names and attributes


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        members: most members.
        member_bytes: most bytes of one member.
        total_bytes: most bytes of all members together.
        ratio: most bytes out per byte in, looked at when more than `ratio_from` bytes come out.
    """

    members: int = 5_000_000
    member_bytes: int = MAX_BYTES
    total_bytes: int = 1 << 40
    ratio: float = 200.0
    ratio_from: int = 64 << 20


LIMITS = Limits()


class ZipReader:
    """Reads members of a zip file. Pickles as its path and names."""

    def __init__(self, path: Path, members: dict[str, str]) -> None:
        """`members`: shown name -> name in the archive."""
        self.path = path
        self.members = members
        self._open = threading.Lock()
        self._archive: zipfile.ZipFile | None = None

    def read(self, name: str) -> bytes:
        """Bytes of a member; raises ImageError when its header, checksum or compression does not hold."""
        with self._open:
            if self._archive is None:
                self._archive = open_zip(self.path)
        try:
            return self._archive.read(self.members[name])
        except MemoryError:
            raise
        except Exception as error:  # what damaged headers and streams make their parsers raise is not bounded
            raise ImageError(
                f"cannot be read from {self.path} ({first_line(error)}); pack the archive again", "unreadable"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return ZipReader, (self.path, self.members)

    def __del__(self) -> None:
        if self._archive is not None:
            self._archive.close()


class TarReader:
    """Reads members of an uncompressed tar file. Pickles as its path and the places of its members."""

    def __init__(self, path: Path, places: dict[str, tuple[int, int]]) -> None:
        """`places`: shown name -> (offset, size) in bytes."""
        self.path = path
        self.places = places

    def read(self, name: str) -> bytes:
        """Bytes of a member; raises ImageError when the tar file is gone or ends before it."""
        offset, size = self.places[name]
        try:
            with open(self.path, "rb") as handle:
                handle.seek(offset)
                content = handle.read(size)
        except OSError as error:
            raise ImageError(f"cannot be read from {self.path} ({error.strerror}); put it back", "unreadable") from None
        if len(content) < size:
            raise ImageError(f"is cut off: {self.path} ends before it; fetch the archive again", "truncated")
        return content


def is_zip(path: Path) -> bool:
    """Whether the file is a zip archive by its content."""
    return zipfile.is_zipfile(path)


def is_tar(path: Path) -> bool:
    """Whether the file is a tar archive by its content, or compressed with a method tar files use."""
    with open(path, "rb") as handle:
        start = handle.read(512)
    return any(start.startswith(magic) for magic in _MAGIC) or start[257:262] == b"ustar"


def open_zip(path: Path) -> zipfile.ZipFile:
    """Raises InputError for a damaged archive."""
    try:
        return zipfile.ZipFile(path)
    except MemoryError:
        raise
    except Exception as error:  # as of members
        raise InputError(f"{path} is not a whole zip archive ({first_line(error)}); fetch or pack it again") from None


def read_zip(path: Path, *, limits: Limits = LIMITS) -> tuple[ZipReader, list[str]]:
    """A reader for a zip file, and the names of its files.

    Raises InputError for damaged, encrypted or dangerous archives.
    """
    members: dict[str, str] = {}
    guard = _Guard(path, limits)
    with open_zip(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(
                    f"{path} holds a link or device ({printable(info.filename)}); pack the files themselves"
                )
            name = guard.admit(info.filename, info.file_size)
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise InputError(f"{path} is encrypted ({printable(info.filename)}); pack it without a password")
            members[name] = info.filename
    return ZipReader(path, members), list(members)


def read_tar(path: Path, *, scratch: Path, limits: Limits = LIMITS) -> tuple[TarReader, list[str]]:
    """A reader for a tar file, and the names of its files; a compressed one is decompressed into `scratch` unless it
    already is there.

    Raises InputError for damaged or dangerous archives.
    """
    plain = _decompressed(path, scratch, limits)
    places: dict[str, tuple[int, int]] = {}
    guard = _Guard(path, limits)
    try:
        with _Headers(io.FileIO(plain)) as file, tarfile.open(plain, "r:", fileobj=file) as archive:
            while (member := archive.next()) is not None:
                vars(archive)["members"].clear()  # or a million of them would pile up
                name = guard.admit(member.name, member.size if member.isreg() else 0)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise InputError(
                        f"{path} holds a link, device or sparse file ({printable(name)}); pack the files themselves "
                        "(tar --dereference --hard-dereference)"
                    )
                places[name] = (member.offset_data, member.size)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # as of zip archives
        raise InputError(f"{path} is not a whole tar archive ({first_line(error)}); fetch or pack it again") from None
    return TarReader(plain, places), list(places)


class _Headers(io.BufferedReader):
    """A tar file of which headers are read: one that claims to be endless would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes."""
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError("a header of an impossible size")
        return super().read(size)


class _Guard:
    """Refuses an archive for a member's name or for what all members add up to."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.packed = path.stat().st_size
        self.members = 0
        self.bytes = 0

    def admit(self, raw: str, size: int) -> str:
        """The member's name with "/" between its parts, fit to be shown."""
        name = raw.replace("\\", "/").encode("utf-8", "backslashreplace").decode()
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
            raise InputError(
                f"{self.path} holds a member that leads outside of it ({printable(raw)}); it is refused as a whole"
            )
        self.members += 1
        self.bytes += size
        if self.members > self.limits.members:
            raise InputError(
                f"{self.path} holds more than {self.limits.members:,} members; split it or unpack it into a folder"
            )
        if size < 0:
            raise InputError(
                f"{self.path} holds a member of {size:,} bytes ({printable(raw)}); it is refused as a whole"
            )
        if size > self.limits.member_bytes:
            raise InputError(
                f"{self.path} holds a member of {size:,} bytes ({printable(raw)}), more than the limit of "
                f"{self.limits.member_bytes:,}; remove it"
            )
        refuse_bomb(self.path, self.packed, self.bytes, self.limits)
        return "/".join(parts)


def refuse_bomb(path: Path, packed: int, unpacked: int, limits: Limits) -> None:
    """Raise InputError when `unpacked` bytes are too many, in all or for `packed` bytes of archive."""
    bomb = unpacked > limits.ratio_from and unpacked > limits.ratio * packed
    if bomb or unpacked > limits.total_bytes:
        raise InputError(
            f"{path} ({packed:,} bytes) unpacks to {unpacked:,} bytes or more, which looks like a decompression bomb; "
            "if it is real data, unpack it into a folder and name the folder"
        )


def _decompressed(path: Path, scratch: Path, limits: Limits) -> Path:
    """`path` itself if it is not compressed, else a plain copy named after its content."""
    with open(path, "rb") as handle:
        start = handle.read(6)
    opener = next((opener for magic, opener in _MAGIC.items() if start.startswith(magic)), None)
    if opener is None:
        return path
    plain = scratch / f"{sha256_file(path)}.tar"
    if plain.exists():
        return plain
    packed, unpacked = path.stat().st_size, 0
    try:
        with replacing(plain) as temporary, open(temporary, "wb") as target:
            for block in _blocks(path, opener):
                unpacked += len(block)
                refuse_bomb(path, packed, unpacked, limits)
                target.write(block)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise InputError(f"no space left in {scratch} to unpack {path}; free some or set NETSMITH_CACHE") from None
        raise InputError(
            f"{path} cannot be unpacked into {scratch} ({error.strerror}); set NETSMITH_CACHE to a folder that can be "
            "written"
        ) from None
    return plain


def _blocks(path: Path, opener: Any) -> Iterator[bytes]:
    """What a compressed file holds, piece by piece."""
    try:
        with opener(path, "rb") as source:
            while block := source.read(_BLOCK):
                yield block
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} is not a whole compressed tar archive ({error}); fetch or pack it again") from None
