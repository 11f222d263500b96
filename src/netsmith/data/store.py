"""The file of a pixel cache: a header page, the pixels of all pictures one after the other, an index. Memory-mapped
when read.

Safety: a file appears under its name only when it is complete and synced; one process builds while others wait (a lock
that the system drops when its holder dies); the temporary file of a killed build is removed by the next one; header,
size and checksums are verified on opening, and what does not hold is no cache. A file that grows while it is read
already (`shelves`) comes to the same bytes.
"""

import fcntl
import json
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.data.prepare import Pixels
from netsmith.run.files import make_folder, replacing

PAGE = 4096
"""Bytes of the header; the pixels begin after them."""
_MAGIC = "netsmith pixels 1"
_BLOCK = 1 << 26


@dataclass(frozen=True)
class Store:
    """An opened cache file. Pickles as its path and index; pixels are mapped on first use.

    Attributes:
        path: the file.
        kept: int64 [N], positions of the stored pictures among those asked for.
        shapes: int64 [N,2], height and width of each stored picture.
        dropped: position and reason of each picture that could not be read.
    """

    path: Path
    kept: NDArray[np.int64]
    shapes: NDArray[np.int64]
    dropped: tuple[tuple[int, str], ...]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [N+1], where each picture begins in `pixels`."""
        return offsets_of(self.shapes)

    @cached_property
    def pixels(self) -> Pixels:
        """uint8 [bytes of all pictures], mapped read-only."""
        total = int(self.offsets[-1])
        return np.memmap(self.path, np.uint8, "r", PAGE, (total,)) if total else np.zeros(0, np.uint8)

    def __getitem__(self, index: int) -> Pixels:
        """uint8 [H,W,3] view of one picture."""
        return self._views[index]

    @cached_property
    def _views(self) -> "Views":
        return Views(self.pixels, self.shapes)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "kept": self.kept, "shapes": self.shapes, "dropped": self.dropped}


def offsets_of(shapes: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [N+1], where each picture of int64 [N,2] heights and widths begins when they lie one after the other."""
    return np.concatenate([[0], np.cumsum(shapes.prod(axis=1) * 3)]).astype(np.int64)


class Views:
    """Pictures that lie one after the other, by index; made for batches, where a microsecond a picture counts.

    Args:
        pixels: uint8 [bytes of all pictures].
        shapes: int64 [N,2], height and width of each.
    """

    def __init__(self, pixels: Pixels, shapes: NDArray[np.int64]) -> None:
        self._pixels = np.asarray(pixels)  # slices of a memmap cost several times those of an array
        self._alike: Pixels | None = None
        if len(shapes) and (shapes == shapes[0]).all():
            self._alike = self._pixels.reshape(len(shapes), *(int(side) for side in shapes[0]), 3)
            return
        self._offsets: list[int] = offsets_of(shapes).tolist()
        self._shapes = [(height, width, 3) for height, width in shapes.tolist()]

    def __getitem__(self, index: int) -> Pixels:
        """uint8 [H,W,3] view of one picture."""
        if self._alike is not None:
            return self._alike[index]
        return self._pixels[self._offsets[index] : self._offsets[index + 1]].reshape(self._shapes[index])


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Generator[bool]:
    """Be the only process that opens or builds the cache `path`; what a killed build left behind is removed.

    Gives whether it is so; without `wait` it may not be, and nothing is removed then.
    """
    make_folder(path.parent)
    with open(path.with_suffix(".lock"), "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        for stale in path.parent.glob(f".{path.name}.*.tmp"):
            stale.unlink(missing_ok=True)
        yield True


def write_store(path: Path, name: str, pictures: Iterable[Pixels | str]) -> None:
    """Write a cache file. `pictures`: in order, uint8 [H,W,3], or the reason why one is missing."""
    kept: list[int] = []
    shapes: list[tuple[int, int]] = []
    dropped: list[tuple[int, str]] = []
    total = checksum = 0
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        handle.write(bytes(PAGE))
        for position, picture in enumerate(pictures):
            if isinstance(picture, str):
                dropped.append((position, picture))
                continue
            content = np.ascontiguousarray(picture).data
            handle.write(content)
            checksum = zlib.crc32(content, checksum)
            total += content.nbytes
            kept.append(position)
            shapes.append((picture.shape[0], picture.shape[1]))
        index = encoded_index(kept, shapes, dropped)
        handle.write(index)
        handle.seek(0)
        handle.write(encoded_header(name, index, (len(kept), len(dropped)), pixel_bytes=total, pixel_crc32=checksum))


def encoded_index(
    kept: Sequence[int] | NDArray[np.int64],
    shapes: Sequence[tuple[int, int]] | NDArray[np.int64],
    dropped: Sequence[tuple[int, str]] = (),
) -> bytes:
    """The index of a cache file; see `Store` for the arguments."""
    tables = [np.array(kept, "<i8").tobytes(), np.array(shapes, "<i8").tobytes(), json.dumps(list(dropped)).encode()]
    return b"".join(tables)


def encoded_header(name: str, index: bytes, counts: tuple[int, int], *, pixel_bytes: int, pixel_crc32: int) -> bytes:
    """What the header page of a cache file begins with; `counts` are the pictures that are kept and dropped."""
    header = {
        "magic": _MAGIC,
        "name": name,
        "asked": sum(counts),
        "kept": counts[0],
        "pixel_bytes": pixel_bytes,
        "pixel_crc32": pixel_crc32,
        "index_bytes": len(index),
        "index_crc32": zlib.crc32(index),
    }
    return json.dumps(header).encode()


def open_store(path: Path, name: str, *, asked: int, whole: bool) -> Store | None:
    """The cache at `path`, or None where there is none that holds.

    Args:
        name: what the header must say it holds.
        asked: number of pictures it was built for.
        whole: verify the pixels' checksum too, not only the index's.
    """
    try:
        with open(path, "rb") as handle:
            header = json.loads(handle.read(PAGE).rstrip(b"\0"))
            count, pixel_bytes, index_bytes = header["kept"], header["pixel_bytes"], header["index_bytes"]
            if (header["magic"], header["name"], header["asked"]) != (_MAGIC, name, asked):
                return None
            if path.stat().st_size != PAGE + pixel_bytes + index_bytes:
                return None
            handle.seek(PAGE + pixel_bytes)
            index = handle.read(index_bytes)
            if zlib.crc32(index) != header["index_crc32"]:
                return None
            kept = np.frombuffer(index, "<i8", count)
            shapes = np.frombuffer(index, "<i8", 2 * count, 8 * count).reshape(count, 2)
            dropped = tuple((int(position), str(reason)) for position, reason in json.loads(index[24 * count :]))
            store = Store(path, kept.astype(np.int64), shapes.astype(np.int64), dropped)
            if store.offsets[-1] != pixel_bytes:
                return None
            if whole:
                handle.seek(PAGE)
                checksum, left = 0, pixel_bytes
                while left and (block := handle.read(min(_BLOCK, left))):
                    checksum, left = zlib.crc32(block, checksum), left - len(block)
                if left or checksum != header["pixel_crc32"]:
                    return None
            return store
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError):  # a damaged header is any JSON, or none
        return None
