"""A training that runs into a limit on its memory, as a process: the limit is this process's and cannot be taken back.

python starved_training.py RUN MEBIBYTES
    trains a few updates in RUN with so much memory beyond what it has at the start; prints what it is warned of, and
    the weights' hash
"""

import resource
import sys
from pathlib import Path

import numpy as np
import torch
from tiny_training import tiny_recipe, weights_hash
from torch import nn

from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer

SIDE, WIDTH = 64, 64  # 1 MiB of activations per picture and layer


def main(run: Path, mebibytes: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if not place else WIDTH, WIDTH, 3, padding=1) for place in range(4)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.arange(64, dtype=np.int64) % 3
    run.mkdir(exist_ok=True)
    data = TrainingData(
        images=pixels,
        labels=labels,
        val_pixels=pixels[:0],
        val_labels=labels[:0],
        preprocess=Preprocess(size=SIDE),
        fingerprint="starved",
    )
    recipe = tiny_recipe(img_size=SIDE, batch_size=64, epochs=3.0, ema=None, workers=0, lr=0.01)
    trainer = Trainer(
        network,
        data,
        recipe,
        plan=Plan(run / "plan.jsonl"),
        clock=SystemClock(),
        warn=lambda text: print(text, flush=True),
    )
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    trainer.advance()
    print(f"weights {weights_hash(trainer.network)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
