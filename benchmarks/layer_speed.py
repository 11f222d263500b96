"""What this project's own layers are worth: `python benchmarks/layer_speed.py [--layers norm] [--repeats 9]`.

Forward and backward passes of whole networks on one made-up batch, as a training step makes them (channels_last,
bfloat16 autocast or float32, the allocator settings of training), with netsmith's layers and with torch's in turn;
medians.

- `norm`: batch norm that folds maps whose rows end within a line of the cache: networks of published widths, and scaled
  ones;
- `rectifiers`: ReLU and ReLU6 of bfloat16 maps by their bits.

Nothing else may run on the machine: threads that wait for each other's lines are what is measured.
"""

import argparse
import itertools
import os
import statistics
from collections.abc import Callable
from pathlib import Path

from netsmith.run.waiting import waiting

os.environ.update(waiting(os.environ))  # as the command line does, before torch is there

import torch
from results import RESULTS, Row, append, origin
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.nn import norm, rectifiers
from netsmith.run.clock import SystemClock
from netsmith.train.memory import keep_large_blocks

NETWORKS = {
    "resnet20_cifar": (32, 128),
    "resnet56_cifar": (32, 128),
    "resnet56_cifar@0.5": (32, 128),
    "resnet56_cifar@0.7": (32, 128),
    "mobilenet_v2": (32, 128),
    "resnet18@0.35": (96, 64),
    "efficientnet_b0": (224, 32),
}
"""Side of the pictures and their number in a batch, by network."""
OURS = {"norm": norm.fold, "rectifiers": rectifiers.by_bits}
DTYPES = {"norm": (torch.bfloat16, torch.float32), "rectifiers": (torch.bfloat16,)}
WAYS = ("netsmith", "torch")


def use(layer: str, way: str) -> None:
    """Let networks compute with netsmith's layers but, where the way says so, with torch's form of one."""
    norm.fold = (lambda _: 1) if (layer, way) == ("norm", "torch") else OURS["norm"]
    rectifiers.by_bits = (lambda _: False) if (layer, way) == ("rectifiers", "torch") else OURS["rectifiers"]


def pass_over(name: str, dtype: torch.dtype) -> Callable[[], None]:
    """Loss and gradients of one batch."""
    side, batch = NETWORKS[name]
    network = build(find_layout(name, num_classes=10, img_size=side), seed=0).to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(10, (batch,))

    def work() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(network(images).float(), targets)
        loss.backward()
        network.zero_grad(set_to_none=True)

    return work


def measured(layer: str, name: str, dtype: torch.dtype, repeats: int) -> dict[str, list[float]]:
    """Seconds of a pass by way, in turn."""
    clock, work = SystemClock(), pass_over(name, dtype)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(-2, repeats):
        for way in WAYS if turn % 2 else reversed(WAYS):  # whoever comes second has warmer memory
            use(layer, way)
            began = clock.now()
            work()
            if turn >= 0:  # the first build and cache kernels
                seconds[way].append(clock.now() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV file to append a row per network to")
    options = parser.parse_args()
    keep_large_blocks()
    rows: list[Row] = []
    for layer, name in itertools.product(options.layers, options.networks):
        for dtype in DTYPES[layer]:
            seconds = measured(layer, name, dtype, options.repeats)
            ours, torchs = (1e3 * statistics.median(found) for found in seconds.values())
            kind = str(dtype).removeprefix("torch.")
            note = f"forward and backward {ours:.1f} ms, with torch's {layer} {torchs:.1f}: {torchs / ours:.2f} times"
            print(f"{name}, {kind}: {note}", flush=True)
            side, batch = NETWORKS[name]
            asked = f"--layers {layer} --networks {name} --repeats {options.repeats}"
            rows.append(
                origin("layer_speed") | {
                    "subject": kind, "model": f"{name} r{side} b{batch}", "note": f"{note}; {options.repeats} in turn",
                    "command": f"python benchmarks/layer_speed.py {asked}",
                }
            )  # fmt: skip
    append(options.results, rows)


if __name__ == "__main__":
    main()
