"""A study on made pictures, small enough for tests."""

from pathlib import Path

import numpy as np
from study import Options, Study

SIDE = 8


def made_study(folder: Path, *, seeds: int = 2, name: str = "made") -> Study:
    """Noise with a bright square whose channel is the class: 3 classes, 90 pictures to train on and 30 to test."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "made.npz"
    if not data.exists():
        draw = np.random.default_rng(0)
        images = draw.integers(0, 120, (120, SIDE, SIDE, 3), dtype=np.uint8)
        labels = np.arange(120, dtype=np.int64) % 3
        for image, label in zip(images, labels, strict=True):
            image[2:6, 2:6, label] = 250
        np.savez(data, images=images, labels=labels, split=np.array(["train"] * 90 + ["test"] * 30))
    options = Options(seeds=seeds, data=folder, output=folder / "results", work=folder / "work", threads=1)
    return Study(name, options, say=lambda line: None)
