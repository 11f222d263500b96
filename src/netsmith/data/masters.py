"""Training masters: every training picture decoded once, larger than the crops cut from it.

Where they are kept is decided before anything is decoded, because the audit knows how large every picture is:

1. As pixels in a memory-mapped cache file, where the disk has room: the fastest.
2. Else re-encoded as JPEG in one file, where there is room for that. It changes pixels slightly, and so the weights:
   a choice that a run must record and obey (`encoding`).
3. Else nowhere: decoded from the source whenever they are needed, to the same pixels.

Both fallbacks are said aloud. Which of 1 and 3 it is changes no pixel, so a run may be gone on with on another disk.
"""

import errno
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version

from netsmith.data.cache import allocated, cache_root, room_to_make, shown_bytes, writing_to
from netsmith.data.filling import Filling
from netsmith.data.items import Dataset, Item, Progress, Targets
from netsmith.data.prepare import ImageError, Pixels
from netsmith.data.shelves import JpegShelf, PixelShelf, growing_file, remove_growing
from netsmith.data.shrink import master_shape, shrink
from netsmith.data.store import Store, locked, open_store
from netsmith.errors import InputError
from netsmith.run.files import FULL_DISK
from netsmith.run.machine import machine

Encoding = Literal["decoded", "re-encoded"]
"""What masters look like: exactly as decoded, or after one more JPEG of quality 95."""

KEPT_FREE = 256 << 20
"""Bytes, or a quarter of what is needed where that is more, that a cache leaves free for checkpoints, the validation
pictures and everything else on its disk."""
JPEG_SHARE = 0.35
"""Bytes of re-encoded masters over those of their pixels, at most as a rule: the smaller a photo, the larger its
share."""
_BY_THREADS = "by a thread for every core that can be spared (train: --workers)"


@dataclass(frozen=True)
class Masters:
    """Training pictures, upright RGB, larger than the crops cut from them.

    Attributes:
        pictures: the cache file they are in, or what fills one.
        labels: int64 [N], or bool [N,C] of tags.
        keys: content hashes of the N pictures.
        look: what pixels depend on beside them: side, decoders, encoding.
    """

    pictures: Store | Filling
    labels: Targets
    keys: tuple[str, ...]
    look: str

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Pixels:
        """uint8 [H,W,3] of one picture, not to be written to.

        Raises:
            InputError: it was not decoded yet and cannot be read any more.
        """
        return self.pictures[index]

    @property
    def shapes(self) -> NDArray[np.int64]:
        """int64 [N,2]: height and width of each picture."""
        return self.pictures.shapes

    @property
    def uniform(self) -> Pixels | None:
        """uint8 [N,H,W,3] read-only view of all pictures once they are decoded, when they have one shape, else None."""
        pixels = self.pictures.pixels
        if pixels is None or len(self) == 0 or (self.shapes != self.shapes[0]).any():
            return None
        return pixels.reshape(len(self), *(int(side) for side in self.shapes[0]), 3)

    def fill(self, *, progress: Progress | None = None, workers: int | None = None) -> None:
        """Decode now what is not decoded yet; see `Filling.fill`."""
        if isinstance(self.pictures, Filling):
            self.pictures.fill(progress=progress, workers=workers)


def filled_ahead(images: object, order: Iterable[int]) -> AbstractContextManager[None]:
    """While this is entered, masters that are not decoded yet are decoded in the background, in the order given."""
    if isinstance(images, Masters) and isinstance(images.pictures, Filling):
        return images.pictures.ahead(order)
    return nullcontext()


def decoded_at_every_use(images: object) -> bool:
    """Whether pictures are masters of which no pixels are kept, so that whoever needs one decodes it, every time."""
    return isinstance(images, Masters) and isinstance(images.pictures, Filling) and not images.pictures.keeps_pixels


def masters(
    dataset: Dataset,
    items: Sequence[Item],
    *,
    side: int,
    encoding: Encoding = "decoded",
    folder: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> Masters:
    """Training masters of `items`, see `shrink`: shorter side at most `side`, never enlarged, longer side at most
    twice the shorter. Nothing is decoded yet, unless an earlier run did.

    Args:
        dataset: reads them.
        items: N pictures.
        side: pixels, about 1.15 R.
        encoding: what they look like.
        folder: of the cache files, by default `pixels` in the cache root.
        warn: told when they cannot be kept, or not as pixels.

    Raises:
        InputError: the folder cannot be written.
    """
    assert items, "no pictures"
    tell = warn if warn is not None else _unheard
    place = _Place.of(items, side=side, folder=folder)

    def load(index: int) -> Pixels:
        try:
            return shrink(dataset.read(items[index]), side=side)
        except ImageError as error:  # the audit decoded it, so it is reading that fails and names the picture
            what = str(error).rpartition(";")[0]
            raise InputError(
                f"{what}, and training needs it: put it back as it was and type the command again, a run that was "
                "begun goes on (all but fit: with --resume)"
            ) from None

    def opened() -> Store | Filling:
        if encoding == "re-encoded":
            return Filling(place.shapes, load, place.jpegs(tell), tell)
        store = place.whole()
        if store is not None:  # of one that was killed, or will not need them, since it finds the whole file too
            remove_growing(place.path)
        return store if store is not None else Filling(place.shapes, load, place.pixels(tell), tell)

    labels = dataset.targets(items)
    with writing_to(place.path.parent), locked(place.path):
        look = f"{_settings(side)} {encoding}"
        found = Masters(opened(), labels, tuple(item.key for item in items), look)
    if not decoded_at_every_use(found):
        place.say_if_larger_than_memory(tell)
    return found


def encoding_that_fits(items: Sequence[Item], *, side: int, folder: Path | None = None) -> Encoding:
    """How masters can be kept: decoded where there is room, re-encoded where there is room for that only; decoded
    where there is room for neither, since what is decoded at every use need not be re-encoded. Arguments as `masters`.
    """
    place = _Place.of(items, side=side, folder=folder)
    with writing_to(place.path.parent), locked(place.path):
        pixels = place.whole() is not None or place.has_room(place.pixel_bytes, taken_by=growing_file(place.path))
        jpegs = place.has_room(place.jpeg_bytes, taken_by=place.jpeg_path)
    return "re-encoded" if jpegs and not pixels else "decoded"


@dataclass(frozen=True)
class _Place:
    """Where the masters of certain pictures are kept.

    Attributes:
        path: of the whole cache file.
        name: that its header has.
        shapes: int64 [N,2] of the masters.
    """

    path: Path
    name: str
    shapes: NDArray[np.int64]

    @staticmethod
    def of(items: Sequence[Item], *, side: int, folder: Path | None) -> "_Place":
        digest = hashlib.sha256(_settings(side).encode())
        for item in items:
            digest.update(bytes.fromhex(item.key))
        name = digest.hexdigest()
        shapes = [master_shape(item.height, item.width, side=side) for item in items]
        path = (folder if folder is not None else cache_root() / "pixels") / f"{name}.pixels"
        return _Place(path, name, np.array(shapes, np.int64).reshape(-1, 2))

    @property
    def pixel_bytes(self) -> int:
        """Of all pixels."""
        return int(self.shapes.prod(axis=1).sum()) * 3

    @property
    def jpeg_bytes(self) -> int:
        """Of all pictures re-encoded, about."""
        return round(JPEG_SHARE * self.pixel_bytes)

    @property
    def jpeg_path(self) -> Path:
        """File of the re-encoded pictures."""
        return self.path.with_suffix(".jpegs")

    def whole(self) -> Store | None:
        """The cache file, if there is one that holds."""
        store = open_store(self.path, self.name, asked=len(self.shapes), whole=False)
        return None if store is None or store.dropped else store

    def pixels(self, tell: Callable[[str], None]) -> PixelShelf | None:
        """The growing cache file, or None where there is no room for it."""
        if self.has_room(self.pixel_bytes, taken_by=growing_file(self.path)):
            try:
                return PixelShelf(self.path, self.name, self.shapes)
            except OSError as error:
                if error.errno not in (*FULL_DISK, errno.EFBIG):  # too big: `ulimit -f`
                    raise
        tell(
            f"{self.path.parent} has no room for the decoded training pictures ({shown_bytes(self.pixel_bytes)}, and "
            f"some to spare): they are decoded anew whenever they are needed, {_BY_THREADS}, which is slower and gives "
            f"the same weights; {room_to_make(self.path.parent)}"
        )
        return None

    def jpegs(self, tell: Callable[[str], None]) -> JpegShelf:
        """The file of re-encoded pictures, or what does as if where there is no room for it."""
        fits = self.has_room(self.jpeg_bytes, taken_by=self.jpeg_path)
        tell(
            f"{self.path.parent} had no room for the decoded training pictures ({shown_bytes(self.pixel_bytes)}, and "
            "some to spare) when the run began: they are re-encoded as JPEG of quality 95, which changes pixels "
            f"slightly, and {'decoded' if fits else 'not even kept as that but made anew'} whenever they are needed, "
            f"{_BY_THREADS}; for a new run {room_to_make(self.path.parent)}"
        )
        return JpegShelf(self.jpeg_path if fits else None, self.shapes)

    def say_if_larger_than_memory(self, tell: Callable[[str], None]) -> None:
        """Say that the pixels, which are kept, will not all stay in memory."""
        memory = machine().memory_bytes
        if 0 < memory < self.pixel_bytes:
            tell(
                f"the decoded training pictures ({shown_bytes(self.pixel_bytes)}) are more than this machine's memory "
                f"({shown_bytes(memory)}): every epoch reads them from {self.path.parent} again, which a fast local "
                "disk keeps up with; where it is none, set NETSMITH_CACHE to one"
            )

    def has_room(self, needed: int, *, taken_by: Path) -> bool:
        """Whether the disk has that many bytes for a file, which may have some of them, and some to spare."""
        free = shutil.disk_usage(self.path.parent).free
        return needed + max(KEPT_FREE, needed // 4) <= free + allocated(taken_by)


def _unheard(text: str) -> None:
    """Says nothing."""


def _settings(side: int) -> str:
    """What masters depend on beside the pictures."""
    settings = {"kind": "masters", "side": side, "decoder": _decoders(), "scaling": "powers of two"}
    return json.dumps(settings, sort_keys=True)


def _decoders() -> str:
    """What decodes masters; its versions are part of a cache's name because pixels depend on them."""
    try:
        return f"pillow {pillow_version}, simplejpeg {importlib.metadata.version('simplejpeg')}"
    except importlib.metadata.PackageNotFoundError:
        return f"pillow {pillow_version}"
