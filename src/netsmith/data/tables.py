"""Sources that are arrays: `.npz` files with pictures and labels, and scikit-learn's digits."""

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.data.archives import LIMITS, Limits, open_zip, refuse_bomb
from netsmith.data.arrays import read_arrays
from netsmith.data.csv_table import read_split
from netsmith.data.items import Entry, Source, Split, encodable, listed, printable
from netsmith.data.layout import settle_splits
from netsmith.data.prepare import ImageError, Pixels
from netsmith.errors import InputError


class ArrayReader:
    """Reads pictures of an `.npz` file by their position. Pickles as its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = threading.Lock()
        self._images: Pixels | None = None

    @property
    def images(self) -> Pixels:
        """uint8 [N,H,W] or [N,H,W,C], read on first use."""
        with self._open:
            if self._images is None:
                self._images = _arrays(self.path, ("images",))["images"]
            return self._images

    def read(self, name: str) -> Pixels:
        """Pixels [H,W] or [H,W,C] of "images[INDEX]"."""
        return self.images[_index(name, len(self.images))]

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrayReader, (self.path,)


class DigitsReader:
    """Reads scikit-learn's digits. Pickles as nothing."""

    def __init__(self) -> None:
        self._images, self.labels = _load_digits()

    def read(self, name: str) -> Pixels:
        """Pixels [8,8] of "digits[INDEX]"."""
        return self._images[_index(name, len(self._images))]

    def __reduce__(self) -> tuple[Any, ...]:
        return DigitsReader, ()


def _index(name: str, count: int) -> int:
    index = int(name[name.index("[") + 1 : -1])
    if index >= count:
        raise ImageError("is not there any more", "unreadable")
    return index


def _load_digits() -> tuple[Pixels, list[int]]:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError:
        raise InputError("the data set 'digits' comes with scikit-learn: pip install 'netsmith[train]'") from None
    digits = datasets.load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), [int(label) for label in digits.target]


def open_digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 grey, scaled from 0..16 to 0..255.

    Raises InputError when scikit-learn is not installed.
    """
    reader = DigitsReader()
    entries = tuple(Entry(f"digits[{index}]", (label,), None) for index, label in enumerate(reader.labels))
    return Source("digits", tuple(map(str, range(10))), entries, reader)


def open_npz(path: Path, *, limits: Limits = LIMITS) -> Source:
    """An `.npz` file with `images` uint8 [N,H,W] or [N,H,W,C], `labels` [N] ints or strings, and optionally `split`
    [N] and `classes` [K].

    Integer labels index `classes` where it is given; otherwise each distinct label is a class. Nothing is unpickled.
    Raises InputError naming the array that does not fit.
    """
    with open_zip(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        refuse_bomb(path, path.stat().st_size, sum(info.file_size for info in archive.infolist()), limits)
    for needed in ("images", "labels"):
        if needed not in names:
            raise InputError(
                f"{path} has no array '{needed}' (it has {', '.join(sorted(map(printable, names))) or 'none'})"
            )
    reader = ArrayReader(path)
    images = reader.images
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise InputError(
            f"'images' in {path} is {images.dtype} {list(images.shape)}; "
            "it must be uint8 [N,H,W], [N,H,W,1] or [N,H,W,3]"
        )
    if images.size == 0:
        raise InputError(f"'images' in {path} is empty")
    small = _arrays(path, tuple(names & {"labels", "split", "classes"}))
    for key in ("labels", "split"):
        if key in small and small[key].shape != (len(images),):
            raise InputError(
                f"'{key}' in {path} has the shape {list(small[key].shape)}; it must be [{len(images)}] as 'images' is"
            )
    classes, labels = _labels(small["labels"], small.get("classes"), path)
    splits: list[Split | None] = [None] * len(images)
    if "split" in small:
        splits = [
            read_split(text, f"'split'[{index}] in {path}")
            for index, text in enumerate(_texts(small["split"], "split", path))
        ]
    entries = [
        Entry(f"images[{index}]", (label,), side)
        for index, (label, side) in enumerate(zip(labels, splits, strict=True))
    ]
    settled, notes = settle_splits(entries, where=str(path))
    return Source(str(path), classes, settled, reader, notes)


def _arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path, names)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); write it again with numpy.savez, without Python objects"
        ) from None


def _texts(values: NDArray[Any], name: str, path: Path) -> list[str]:
    if values.ndim != 1 or values.dtype.kind not in "US":
        wanted = "whole numbers or strings" if name == "labels" else "a list of strings"
        raise InputError(f"'{name}' in {path} is {values.dtype} {list(values.shape)}; it must be {wanted}")
    return [
        value.decode(errors="backslashreplace") if isinstance(value, bytes) else encodable(str(value))
        for value in values.tolist()
    ]


def _labels(labels: NDArray[Any], classes: NDArray[Any] | None, path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Class names in label order, and the label of each picture."""
    names = None if classes is None else _texts(classes, "classes", path)
    if names is not None and len({*names, ""}) <= len(names):
        raise InputError(f"'classes' in {path} has an empty name or one twice; name every class once")
    if labels.dtype.kind in "iu":
        values = [int(value) for value in labels]
        if names is None:
            distinct = sorted(set(values))
            position = {value: index for index, value in enumerate(distinct)}
            return tuple(map(str, distinct)), [position[value] for value in values]
        if min(values) < 0 or max(values) >= len(names):
            raise InputError(
                f"'labels' in {path} goes from {min(values)} to {max(values)} but 'classes' has {len(names)} names"
            )
        return tuple(names), values
    texts = _texts(labels, "labels", path)
    known = names if names is not None else sorted(set(texts))
    if "" in known:
        raise InputError(f"'labels' in {path} has an empty name; name every class")
    position = {name: index for index, name in enumerate(known)}
    if unknown := sorted(set(texts) - set(known)):
        raise InputError(f"'labels' in {path} has classes that 'classes' lacks: {listed(unknown)}")
    return tuple(known), [position[text] for text in texts]
