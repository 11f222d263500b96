"""A training small enough for tests, importable by them and runnable as a process that can be killed.

python tiny_training.py RUN EPOCHS [SECONDS]
    trains into RUN, going on from what is there; prints "step N of M" after each update, at the end the weights' hash
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer

SIZE = 8


def tiny_network(*, classes: int = 3, width: int = 8, dropout: float = 0.1, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def tiny_data(*, train: int = 50, val: int = 20, classes: int = 3) -> TrainingData:
    """Noise with a coloured square whose channel is the class."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 120, (train + val, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(train + val, dtype=np.int64) % classes
    for image, label in zip(pixels, labels, strict=True):
        image[2:6, 2:6, label] = 250
    return TrainingData(
        images=pixels[:train],
        labels=labels[:train],
        val_pixels=pixels[train:],
        val_labels=labels[train:],
        preprocess=Preprocess(size=SIZE),
        fingerprint="tiny",
    )


EVERY_CHANGE: Mapping[str, Any] = {
    "crop_scale": (0.3, 1.0),
    "shift": 0.2,
    "rotate": 20.0,
    "auto_augment": "randaugment",
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "random_erase": 0.5,
    "mixup": 0.4,
    "cutmix": 1.0,
}
"""All that a recipe can do to pictures."""


def tiny_recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "model": "tiny",
        "img_size": SIZE,
        "epochs": 3.0,
        "batch_size": 8,
        "lr": 0.1,
        "pad": 1,
        "ema": 0.9,
        "threads": 1,
    }
    return Recipe(**(values | changes))


def weights_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def main(run: Path, epochs: str, seconds: str | None = None) -> None:
    def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        print(note.split(",")[0], flush=True)

    torch.set_num_threads(1)
    run.mkdir(exist_ok=True)
    recipe = tiny_recipe(epochs=None, time_s=float(seconds)) if seconds else tiny_recipe(epochs=float(epochs))
    trainer = Trainer(
        tiny_network(),
        tiny_data(),
        recipe,
        plan=Plan(run / "plan.jsonl"),
        clock=SystemClock(),
        checkpoints=run / "checkpoints",
        metrics=run / "metrics.jsonl",
        show=show,
        checkpoint_seconds=0.0,
    )
    trainer.resume()
    trainer.advance()
    trainer.save()
    trainer.evaluate()
    print(f"weights {weights_hash(trainer.network)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
