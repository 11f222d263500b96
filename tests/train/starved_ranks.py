"""A network that is larger than the memory of one of its processes, as a script that each of them runs.

python starved_ranks.py FOLDER whole|divided MEBIBYTES
    with the variables of torchrun; trains two updates, in which the second process may take so much memory beyond what
    it has when they begin. The limit is the kernel's. The first has none: it gathers the trained network, and writes
    its weights to FOLDER/weights.pt.

The allocator has one arena: those that it reserves for every thread would meet the limit before training does.
"""

import ctypes
import resource
import sys
from pathlib import Path

import torch
from paired_training import trainer
from torch import nn

from netsmith.errors import CheckError
from netsmith.run.world import World
from netsmith.train.ranks import joined

WIDTH, DEPTH = 2048, 16
"""A quarter of a gigabyte of weights, a sixteenth of them in each layer."""
M_ARENA_MAX = -8  # malloc.h


def large_network() -> nn.Module:
    torch.manual_seed(0)
    layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3, WIDTH), nn.ReLU(), *layers, nn.Linear(WIDTH, 3))


def main(folder: Path, sharded: bool, mebibytes: int) -> None:
    torch.set_num_threads(1)
    with joined(World.here()) as ranks:
        recipe = {"opt": "adamw", "lr": 1e-4, "epochs": 0.4, "ema": None, "workers": 0, "pad": 0, "flip": False}
        training = trainer(folder, ranks, large_network(), **recipe, sharded=sharded)
        if not ranks.leads:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (mebibytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        training.advance()
        plain = training.state.plain()
        if ranks.leads:
            torch.save(plain.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    try:
        main(Path(sys.argv[1]), sys.argv[2] == "divided", int(sys.argv[3]))
    except CheckError as error:
        sys.exit(f"refused: {error}")
