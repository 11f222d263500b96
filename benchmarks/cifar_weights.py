"""Published CIFAR-10 weights as artifacts, with the pictures to judge what is made of them.

The weights were trained on all 50,000 training images, so the test batch has to do for two: a fixed, stratified half
of it selects (split "val"), and the other half reports (split "test"). Fine-tuning and calibration use the training
images.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from make_npz import Sums, cifar10

from netsmith.run.files import replacing

FILES = {"resnet20_cifar": "resnet20-12fca82f.th", "resnet56_cifar": "resnet56-4bfd9763.th"}


def halves_npz(data: Path, work: Path, *, train: int | None = None) -> Path:
    """CIFAR-10 with the test batch in two halves, made once.

    Args:
        data: the data folder.
        work: where the file goes.
        train: keep so many training images only, the first of each class alike.
    """
    path = work / ("cifar10-halves.npz" if train is None else f"cifar10-halves-{train}.npz")
    if path.exists():
        return path
    work.mkdir(parents=True, exist_ok=True)
    arrays = cifar10(Sums(data))
    labels, split = arrays["labels"], arrays["split"].astype("<U5")
    rng = np.random.default_rng(0)
    for label in range(len(arrays["classes"])):
        own = rng.permutation(np.flatnonzero((labels == label) & (split == "test")))
        split[own[: len(own) // 2]] = "val"
    kept = np.ones(len(labels), bool)
    if train is not None:
        each = train // len(arrays["classes"])
        for label in range(len(arrays["classes"])):
            kept[np.flatnonzero((labels == label) & (split == "train"))[each:]] = False
    arrays = {
        "images": arrays["images"][kept],
        "labels": labels[kept],
        "split": split[kept],
        "classes": arrays["classes"],
    }
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)
    return path


def published(model: str, data: Path, work: Path) -> Path:
    """The artifact of a network of `FILES`, made once."""
    folder = work / model
    if not (folder / "config.json").exists():
        classes = ",".join((data / "cifar10" / "classes.txt").read_text().split())
        weights = str(data / "weights-cifar10-resnet" / FILES[model])
        words = [
            "import-weights",
            weights,
            "--model",
            model,
            "--labels",
            classes,
            "--num-classes",
            "10",
            "-o",
            str(folder),
        ]
        subprocess.run([sys.executable, "-m", "netsmith", *words, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return folder
