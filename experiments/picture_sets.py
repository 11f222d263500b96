"""The pictures of the experiments: a data set at one resolution, prepared once by netsmith's evaluation path.

Sets are read as `netsmith fit` reads them: audited, duplicates kept on one side of a split, a tenth of the training
pictures cut off for validation. Fewer pictures are always the same ones, those with the smallest content hashes, so a
small run sees a part of what a large one sees.
"""

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netsmith.data.audit import audit
from netsmith.data.items import Dataset, Item, Split
from netsmith.data.prepare import prepare
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.errors import InputError
from netsmith.run.files import replacing
from netsmith.run.preprocess import Preprocess
from netsmith.train.feed import TrainingData

ROOT = Path(__file__).resolve().parent.parent
PACKED = ("cifar10", "fashion-mnist")
"""Sets that benchmarks/make_npz.py unpacks."""
VALIDATION = 0.1


@dataclass(frozen=True, kw_only=True)
class Part:
    """Pictures of one split: uint8 [N,R,R,3] and int64 [N], classes in turn, so that any first part is balanced."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One data set at one resolution.

    Attributes:
        name: of the set.
        classes: how many.
        train, val, test: the splits; the published test pictures where the set has them.
        preprocess: how the pixels were made and are normalised.
        fingerprint: equal only for the same pixels and labels in the same order.
    """

    name: str
    classes: int
    train: Part
    val: Part
    test: Part
    preprocess: Preprocess
    fingerprint: str

    @property
    def data(self) -> TrainingData:
        """For a trainer, which validates nothing itself: the cells say when a network is looked at."""
        size = self.preprocess.size
        nothing = np.empty((0, size, size, 3), np.uint8), np.empty(0, np.int64)
        return TrainingData(self.train.pixels, self.train.labels, *nothing, self.preprocess, self.fingerprint)


def load_pictures(name: str, *, side: int, most: Mapping[Split, int | None], data: Path, work: Path) -> Pictures:
    """A data set, prepared once by netsmith's evaluation path and kept in `work`.

    Args:
        name: of a set in `data`: `NAME.npz`, `NAME/NAME.zip`, or the packed CIFAR-10 or Fashion-MNIST.
        side: R, pixels.
        most: of train, val and test, that many pictures at most (None: all): those with the smallest content hashes.
        data: folder of the sets.
        work: folder of what can be computed again.

    Raises:
        InputError: no such set.
    """
    limits = "-".join(str(most[part] or "all") for part in ("train", "val", "test"))
    path = work / "pictures" / f"{name}-{side}-{limits}.npz"
    preprocess = Preprocess(size=side)
    if not path.exists():
        dataset = divided(find_source(name, data=data, work=work))
        arrays = {"classes": np.array(len(dataset.classes))}
        for which in ("train", "val", "test"):
            items = balanced(dataset, which, most=most[which])
            arrays[which] = np.stack([prepare(dataset.read(item), preprocess) for item in items])
            arrays[f"{which}_labels"] = np.array([item.label for item in items], np.int64)
        with replacing(path) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, allow_pickle=False, **arrays)
    with np.load(path) as found:
        arrays = dict(found)
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].shape}\n".encode() + arrays[key].tobytes())
    train, val, test = (
        Part(pixels=arrays[which], labels=arrays[f"{which}_labels"]) for which in ("train", "val", "test")
    )
    return Pictures(
        name=name, classes=int(arrays["classes"]), train=train, val=val, test=test, preprocess=preprocess,
        fingerprint=digest.hexdigest(),
    )  # fmt: skip


@cache
def divided(source: Path) -> Dataset:
    """A source, audited and split; once a process, whatever the resolutions it is prepared at."""
    return split(audit(open_source(source)).dataset, seed=0, val=VALIDATION)


def find_source(name: str, *, data: Path, work: Path) -> Path:
    """Where a set lies; a packed one is unpacked into `work` first."""
    for path in (data / f"{name}.npz", data / name / f"{name}.zip"):
        if path.exists():
            return path
    if name not in PACKED or not (data / name).is_dir():
        raise InputError(f"there is no data set {name} in {data}; name the folder that holds it with --data")
    unpacked = work / "sets" / f"{name}.npz"
    if not unpacked.exists():
        script = ROOT / "benchmarks" / "make_npz.py"
        command = [sys.executable, str(script), "-o", str(unpacked.parent), "--data", str(data), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(done.stderr.strip().removeprefix("error: "))
    return unpacked


def balanced(dataset: Dataset, which: Split, *, most: int | None) -> list[Item]:
    """Pictures of a split, one of each class in turn, by content hash within a class."""
    classes: dict[int, list[Item]] = {}
    for item in sorted(dataset.subset(which), key=lambda item: (item.key, item.name)):
        classes.setdefault(item.label, []).append(item)
    turns = max(len(items) for items in classes.values())
    in_turn = [items[turn] for turn in range(turns) for _, items in sorted(classes.items()) if turn < len(items)]
    return in_turn[:most]
