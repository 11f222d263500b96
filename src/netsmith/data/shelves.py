"""Where training masters are put, one by one and in any order, once they are decoded.

`PixelShelf` is the cache file itself before it is whole (`NAME.filling`), with every picture at its final place, which
is known beforehand because the audit knows all sizes. Beside it `NAME.filled` says which pictures are there, each with
the checksum of its pixels. Choices made on purpose:

- All room is reserved before the first picture: a disk that is too small is known at once, not after an hour.
- A mark is written after the pixels it speaks of, and whoever did not write them itself believes it only when the
  checksum holds. So a kill or a power loss costs the pictures whose writing it met, and nothing else; what was left is
  gone on with.
- The bytes of a picture do not depend on who decodes it, so several processes may fill one file without waiting for
  each other: at worst two write the same bytes to the same place.
- Pixels are written with `pwrite` and mapped for reading only: a full disk is an error, never a SIGBUS.

`JpegShelf` keeps each picture as a JPEG of quality 95 with its colour unreduced (reducing it costs a photo of this size
5 to 12 dB and saves a fifth), a sixth to a third of the bytes, for disks without room for pixels.
"""

import errno
import fcntl
import io
import os
import struct
import weakref
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netsmith.data.prepare import Pixels
from netsmith.data.shrink import whole_jpeg
from netsmith.data.store import PAGE, Views, encoded_header, encoded_index, locked, offsets_of, open_store
from netsmith.run.files import sync_folder

QUALITY = 95
"""Of re-encoded pictures."""
_BLOCK = 1 << 24
_MARK = struct.Struct("<II")  # checksum, 1 where the picture is there
_ENTRY = struct.Struct("<QII")  # offset, bytes (0 where the picture is not there), checksum


class Shelf(Protocol):
    """Keeps pictures by index for threads and processes; each index is handled by one thread of a process at a time."""

    def pack(self, picture: Pixels) -> bytes | memoryview:
        """What is kept of a picture."""
        ...

    def unpack(self, index: int, packed: bytes | memoryview) -> Pixels:
        """The picture that is trained on, whether it was kept or not."""
        ...

    def holds(self, index: int) -> bool:
        """Whether another process or an earlier run left the picture whole."""
        ...

    def store(self, index: int, packed: bytes | memoryview) -> bool:
        """Keep a picture; whether this shelf keeps any. Raises OSError as the file system does."""
        ...

    def fetch(self, index: int) -> Pixels:
        """A picture that is there."""
        ...

    def pixels(self) -> Pixels | None:
        """uint8 [bytes of all pictures], mapped read-only, where they are kept as pixels."""
        ...

    def exclusive(self, *, wait: bool) -> AbstractContextManager[bool]:
        """Be the only process that does; gives whether it is so, which it is with `wait`."""
        ...

    def finish(self, stopped: Callable[[], bool]) -> None:
        """All pictures are there and this is the only process here: make of them what lasts, unless `stopped`."""
        ...


class PixelShelf:
    """The growing cache file of decoded pictures.

    Args:
        path: of the file when it is whole.
        name: what its header says it holds.
        shapes: int64 [N,2], height and width of every picture, N >= 1.

    Raises:
        OSError: there is no room, or the folder cannot be written. The lock of `path` must be held.
    """

    def __init__(self, path: Path, name: str, shapes: NDArray[np.int64]) -> None:
        self.path, self.name, self.shapes = path, name, shapes
        self._offsets = offsets_of(shapes)
        self._index = encoded_index(np.arange(len(shapes)), shapes)
        total = int(self._offsets[-1])
        self._growing = growing_file(path)
        self._file = _reserved(self._growing, PAGE + total + len(self._index))
        weakref.finalize(self, os.close, self._file)
        self._marks = _reserved(_marks_file(path), _MARK.size * len(shapes))
        weakref.finalize(self, os.close, self._marks)
        self._pixels = np.memmap(self._growing, np.uint8, "r", PAGE, (total,))
        self._views = Views(self._pixels, shapes)

    def pack(self, picture: Pixels) -> memoryview:
        """The pixels."""
        return np.ascontiguousarray(picture).data.cast("B")

    def unpack(self, index: int, packed: bytes | memoryview) -> Pixels:
        """The pixels."""
        height, width = (int(side) for side in self.shapes[index])
        return np.frombuffer(packed, np.uint8).reshape(height, width, 3)

    def holds(self, index: int) -> bool:
        """Whether the picture is marked and its checksum holds."""
        checksum, there = _MARK.unpack(os.pread(self._marks, _MARK.size, _MARK.size * index))
        return there == 1 and zlib.crc32(self._views[index].data) == checksum

    def store(self, index: int, packed: bytes | memoryview) -> bool:
        """Write the pixels to their place, then the mark."""
        start, end = self._offsets[index], self._offsets[index + 1]
        assert len(packed) == end - start, f"picture {index} has {len(packed)} bytes, not the {end - start} announced"
        _write(self._file, packed, PAGE + int(start))
        _write(self._marks, _MARK.pack(zlib.crc32(packed), 1), _MARK.size * index)
        return True

    def fetch(self, index: int) -> Pixels:
        """A view of the pixels."""
        return self._views[index]

    def pixels(self) -> Pixels:
        """All pixels."""
        return self._pixels

    def exclusive(self, *, wait: bool) -> AbstractContextManager[bool]:
        """Hold the cache's lock."""
        return locked(self.path, wait=wait)

    def finish(self, stopped: Callable[[], bool]) -> None:
        """Give the file its index, its header and its name; the pixels stay mapped."""
        there = open_store(self.path, self.name, asked=len(self.shapes), whole=False)
        if there is None or there.dropped:
            checksum = 0
            for start in range(0, len(self._pixels), _BLOCK):
                if stopped():
                    return
                checksum = zlib.crc32(self._pixels[start : start + _BLOCK].data, checksum)
            counts = (len(self.shapes), 0)
            header = encoded_header(self.name, self._index, counts, pixel_bytes=len(self._pixels), pixel_crc32=checksum)
            _write(self._file, self._index, PAGE + len(self._pixels))
            _write(self._file, header, 0)
            os.fsync(self._file)
            os.replace(self._growing, self.path)
            sync_folder(self.path.parent)
        remove_growing(self.path)


class JpegShelf:
    """A table of places, then JPEGs in the order in which they came.

    Args:
        path: of the file; None keeps nothing but gives the same pictures.
        shapes: int64 [N,2], height and width of every picture.

    Raises:
        OSError: the folder cannot be written. The lock of the cache must be held.
    """

    def __init__(self, path: Path | None, shapes: NDArray[np.int64]) -> None:
        self.shapes = shapes
        self._file: int | None = None
        self._writes = False
        self._end, self._appending = 0, Lock()
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, self._file)
            self._writes = _taken(self._file)
            table = _ENTRY.size * len(shapes)
            if self._writes and os.fstat(self._file).st_size < table:
                _allocate(self._file, table)
            self._end = max(table, os.fstat(self._file).st_size)

    def pack(self, picture: Pixels) -> bytes:
        """A JPEG."""
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY, subsampling="4:4:4")
        return buffer.getvalue()

    def unpack(self, index: int, packed: bytes | memoryview) -> Pixels:
        """The decoded JPEG."""
        return whole_jpeg(bytes(packed))

    def _entry(self, index: int) -> tuple[int, int, int]:
        assert self._file is not None
        found = os.pread(self._file, _ENTRY.size, _ENTRY.size * index)
        offset, length, checksum = _ENTRY.unpack(found.ljust(_ENTRY.size, b"\0"))
        return offset, length, checksum

    def holds(self, index: int) -> bool:
        """Whether the table has the picture and its checksum holds."""
        if self._file is None:
            return False
        offset, length, checksum = self._entry(index)
        return length > 0 and zlib.crc32(os.pread(self._file, length, offset)) == checksum

    def store(self, index: int, packed: bytes | memoryview) -> bool:
        """Append the JPEG, then its line of the table; False where another process does that."""
        if self._file is None or not self._writes:
            return False
        with self._appending:
            offset = self._end
            self._end += len(packed)
        _write(self._file, packed, offset)
        _write(self._file, _ENTRY.pack(offset, len(packed), zlib.crc32(packed)), _ENTRY.size * index)
        return True

    def fetch(self, index: int) -> Pixels:
        """The decoded JPEG."""
        assert self._file is not None
        offset, length, _ = self._entry(index)
        return self.unpack(index, os.pread(self._file, length, offset))

    def pixels(self) -> None:
        """They are not kept as pixels."""

    def exclusive(self, *, wait: bool) -> AbstractContextManager[bool]:
        """Nothing is to be exclusive: the file is good at any time."""
        return nullcontext(True)

    def finish(self, stopped: Callable[[], bool]) -> None:
        """The file is good as it is."""


def growing_file(path: Path) -> Path:
    """The file that becomes the cache file `path`."""
    return path.with_suffix(".filling")


def _marks_file(path: Path) -> Path:
    return path.with_suffix(".filled")


def remove_growing(path: Path) -> None:
    """Remove what grew before `path` was whole; the lock of `path` must be held."""
    growing_file(path).unlink(missing_ok=True)
    _marks_file(path).unlink(missing_ok=True)


def _reserved(path: Path, size: int) -> int:
    """A file of `size` bytes, all of them on the disk, opened; what it held stays when it had that size already."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if os.fstat(file).st_size != size:
            path.unlink()
            os.close(file)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            _allocate(file, size)
    except BaseException:
        os.close(file)
        path.unlink(missing_ok=True)
        raise
    return file


def _allocate(file: int, size: int) -> None:
    """Make the file `size` bytes long, with room for them where the file system can promise it."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    os.ftruncate(file, size)


def _taken(file: int) -> bool:
    """Whether this process is now the only one that writes the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: int, content: bytes | memoryview, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
