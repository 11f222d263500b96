"""Decoded pixels on disk: where all of them are, and exact `prepare` outputs to evaluate on.

A cache file is named by the hash of what it holds (item keys in order, settings, versions of the decoders), so a
cache is found again or is another file, never out of date. Labels are not in it: they come from the items. How a file
stays whole is `store`'s business.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version

from netsmith.data.items import Dataset, Item, Progress, Targets, printable
from netsmith.data.pool import cpu_count, in_order
from netsmith.data.prepare import ImageError, Pixels, prepare
from netsmith.data.store import Store, locked, open_store, write_store
from netsmith.errors import InputError
from netsmith.run.files import FULL_DISK
from netsmith.run.preprocess import Preprocess

OnMissing = Callable[[Item, str], None]
"""Called as on_missing(item, reason) for a picture that cannot be read any more and is dropped."""


def cache_root() -> Path:
    """Folder of all caches: `NETSMITH_CACHE`, by default ~/.cache/netsmith; it may be deleted when no command runs."""
    return Path(os.environ.get("NETSMITH_CACHE") or Path.home() / ".cache" / "netsmith")


@dataclass(frozen=True)
class Prepared:
    """Evaluation pictures, exact outputs of `prepare`. Pickles without pixels.

    Attributes:
        store: the file they are in.
        size: R.
        labels: int64 [N], or bool [N,C] of tags.
        keys: content hashes of the N pictures.
    """

    store: Store
    size: int
    labels: Targets
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def pixels(self) -> Pixels:
        """uint8 [N,R,R,3], mapped read-only."""
        return self.store.pixels.reshape(-1, self.size, self.size, 3)


def prepared(
    dataset: Dataset,
    items: Sequence[Item],
    preprocess: Preprocess,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    on_missing: OnMissing | None = None,
    workers: int | None = None,
) -> Prepared:
    """`prepare` of every item, computed once and verified on every opening.

    Args:
        dataset: reads them.
        items: N pictures.
        preprocess: of the network.
        folder: of the cache files, by default `pixels` in the cache root.
        progress: called as progress(done, total) while building.
        on_missing: told of pictures that cannot be read any more, which are then dropped; without it they raise
            InputError.
        workers: threads, by default one per CPU.
    """
    settings = {
        "kind": "prepared",
        "preprocess": preprocess.model_dump(mode="json", exclude={"mean", "std"}),
        "decoder": f"pillow {pillow_version}",
    }
    builder = _Builder(dataset, items, settings, lambda image: prepare(image, preprocess))
    store = builder.store(folder, progress, on_missing, workers)
    kept = [items[position] for position in store.kept]
    return Prepared(store, preprocess.size, dataset.targets(kept), tuple(item.key for item in kept))


def room_to_make(folder: Path) -> str:
    """What to do where the folder of a cache has no room, as the end of a sentence."""
    held = sum(allocated(path) for path in folder.glob("*"))
    there = f" (what it holds already, {shown_bytes(held)}, may be deleted when no command runs)" if held else ""
    return f"make room{there} or set NETSMITH_CACHE to another disk"


def allocated(path: Path) -> int:
    """Bytes that a file has on its disk, none where there is no file."""
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0


def shown_bytes(count: int) -> str:
    """Such as 1.3 GB or 20.5 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


_UNWRITABLE = frozenset({*FULL_DISK, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})


@contextmanager
def writing_to(place: Path) -> Generator[None]:
    """Raise InputError where the folder of a cache has no room, is none, or may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise InputError(
            f"decoded pictures cannot be kept in {place} ({error.strerror}); {room_to_make(place)}"
        ) from None


@dataclass(frozen=True)
class _Builder:
    dataset: Dataset
    items: Sequence[Item]
    settings: dict[str, Any]
    transform: Callable[[bytes | Pixels], Pixels]

    @cached_property
    def name(self) -> str:
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        for item in self.items:
            digest.update(bytes.fromhex(item.key))
        return digest.hexdigest()

    def load(self, item: Item) -> Pixels | str:
        """The picture as it is stored, or the reason why there is none."""
        try:
            content = self.dataset.read(item)
        except ImageError as error:
            return str(error)
        try:
            return self.transform(content)
        except ImageError as error:
            return f"{printable(item.name)} {error}"

    def store(
        self,
        folder: Path | None,
        progress: Progress | None,
        on_missing: OnMissing | None,
        workers: int | None,
    ) -> Store:
        """The cache opened, and built first when there is none that holds or a picture it lacks is back."""
        place = folder if folder is not None else cache_root() / "pixels"
        path = place / f"{self.name}.pixels"
        with writing_to(place), locked(path):
            store = open_store(path, self.name, asked=len(self.items), whole=True)
            if store is None or any(not isinstance(self.load(self.items[at]), str) for at, _ in store.dropped):
                write_store(path, self.name, self.pictures(progress, workers, refuse=on_missing is None))
                store = open_store(path, self.name, asked=len(self.items), whole=False)
        assert store is not None, f"{path} does not hold what was just written"
        for at, reason in store.dropped:
            if on_missing is None:
                raise InputError(reason)
            on_missing(self.items[at], reason)
        return store

    def pictures(self, progress: Progress | None, workers: int | None, *, refuse: bool) -> Iterator[Pixels | str]:
        """Every item's picture or the reason why there is none, in order; with `refuse` the first reason raises."""
        loaded = in_order(self.load, self.items, workers=workers if workers is not None else cpu_count())
        for done, picture in enumerate(loaded, start=1):
            if refuse and isinstance(picture, str):
                raise InputError(picture)
            yield picture
            if progress is not None:
                progress(done, len(self.items))
