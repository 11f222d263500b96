"""What several processes do together, as a script that each of them runs, importable for what one process does alone.

python paired_training.py FOLDER
    with the variables of torchrun; every check in one go, since starting a process takes seconds. Each process writes
    what it found to FOLDER/RANK.pt.
"""

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixed_networks import layout
from numpy.typing import NDArray
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import Tensor, nn

from netsmith.errors import CheckError, InputError
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.world import World
from netsmith.train.feed import TrainingData
from netsmith.train.interrupt import Interrupted
from netsmith.train.ranks import ALONE, Ranks, joined
from netsmith.train.sync_norm import synchronise
from netsmith.train.trainer import Trainer

BATCH = 9  # odd: parts differ
MIXED = {"mixup": 0.4, "cutmix": 1.0, "grad_clip": 0.5, "grad_accum": 2, "opt": "adamw", "lr": 0.01}


def network_without_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def unlike_data(*, tags: bool) -> TrainingData:
    """Pictures of classes of unequal size; with `tags` of any number of them."""
    data = tiny_data(train=50, val=21)

    def labels(count: int, seed: int) -> NDArray[Any]:
        classes = np.where(np.arange(count) % 7 == 0, 2, np.arange(count) % 2)
        more = np.random.default_rng(seed).random((count, 3)) < 0.2
        return np.eye(3, dtype=np.bool_)[classes] | more if tags else classes.astype(np.int64)

    return replace(data, labels=labels(50, 0), val_labels=labels(21, 1))


def trainer(
    folder: Path,
    ranks: Ranks,
    network: nn.Module | None = None,
    data: TrainingData | None = None,
    warn: Callable[[str], None] = lambda text: None,
    **changes: Any,
) -> Trainer:
    if ranks.leads:
        folder.mkdir(exist_ok=True, parents=True)
    return Trainer(
        network or network_without_norm(),
        data or tiny_data(train=50, val=21),
        tiny_recipe(**({"epochs": 2.0, "batch_size": BATCH} | changes)),
        plan=Plan(folder / "plan.jsonl", share=ranks.once),
        clock=SystemClock(),
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        warn=warn,
        checkpoint_seconds=1e9,
        ranks=ranks,
    )


def trained(folder: Path, ranks: Ranks, network: nn.Module | None = None, **changes: Any) -> dict[str, Any]:
    done = trainer(folder, ranks, network, **changes)
    done.resume()
    done.advance()
    done.save()
    evaluation = done.evaluate()
    assert evaluation is not None
    network = done.state.plain()
    known = ranks.leads or not done.state.division.joint
    return {
        "weights": {name: tensor.clone() for name, tensor in network.state_dict().items()} if known else {},
        "hash": weights_hash(network) if known else "",
        "logits": torch.from_numpy(evaluation.logits),
        "steps": done.step,
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in done.state.tensors().values()),
    }


# A network that is divided

AUXILIARY = {"layer_decay": 0.7, "sync_bn": True, "epochs": 0.6}
SHARDED = {
    "mixed": MIXED,
    "rmsprop": {"opt": "rmsprop", "lr": 0.003, "momentum": 0.8, "epochs": 1.0},
    "bfloat16": {"dtype": "bfloat16", "grad_accum": 2, "epochs": 1.0},
    "lamb": {"opt": "lamb", "lr": 0.01, "head_first": 0.4, "weight_decay": 0.02, "epochs": 1.0},
}


def network_with_auxiliary() -> nn.Module:
    """Blocks with branches, and a second classifier beside them."""
    return build(layout("inception"), seed=0)


def divided(folder: Path, ranks: Ranks) -> dict[str, Any]:
    return {
        **{name: trained(folder / name, ranks, **recipe, sharded=True) for name, recipe in SHARDED.items()},
        "sync": trained(folder / "sync", ranks, tiny_network(dropout=0.0), sync_bn=True, sharded=True),
        "own": trained(folder / "own", ranks, tiny_network(dropout=0.5), sync_bn=False, sharded=True),
        "passed on": passed_on(folder / "passed on", ranks),
        "auxiliary": trained(folder / "auxiliary", ranks, network_with_auxiliary(), **AUXILIARY, sharded=True),
        "rewound": rewound(folder / "rewound", ranks),
    }


def passed_on(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Two processes that divide the network, then the first alone, then two that divide it, then two that do not."""
    for until, sharded, several in ((3, True, True), (5, False, False), (8, True, True)):
        if several or ranks.leads:
            run = trainer(folder, ranks if several else ALONE, **MIXED, sharded=sharded)
            assert run.resume() == (until > 3)
            run.advance(until)
            run.save()
        ranks.gathered(None)
    return trained(folder, ranks, **MIXED)


def rewound(folder: Path, ranks: Ranks) -> dict[str, Any]:
    second = ranks.world.rank == 1
    network = nn.Sequential(Trouble(lambda call, x: x / 0.0 if second and call == 4 else x), network_without_norm())
    warned: list[str] = []
    run = trainer(folder, ranks, network, sharded=True, on_nan="rewind", warn=warned.append)
    run.advance()
    return {"step": run.step, "warned": warned}


# Batch norm against itself


UNLIKE: dict[str, Callable[[], dict[str, Any]]] = {
    "tags": lambda: {"data": unlike_data(tags=True), "class_balance": "loss", "mixup": 0.4},
    "balanced": lambda: {"data": unlike_data(tags=False), "class_balance": "sampling"},
}
"""Trainings on pictures of unequal classes."""


def norm_and_batch() -> tuple[nn.Module, Tensor, Tensor]:
    """Two norms, pictures far from 0, and the gradient of the output."""
    generator = torch.Generator().manual_seed(3)
    network = nn.Sequential(nn.BatchNorm2d(5, momentum=0.3), nn.Flatten(2), nn.BatchNorm1d(5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator)
    x = 40.0 + torch.randn(7, 5, 4, 3, generator=generator)
    return network.train(), x, torch.randn(7, 5, 12, generator=generator)


def norm_answers(ranks: Ranks) -> dict[str, Any]:
    network, x, slope = norm_and_batch()
    if ranks.several:
        synchronise(network, ranks)
    ours = ranks.slice_of(len(x))
    x = x[ours].clone().requires_grad_()
    y: Tensor = network(x)
    (y * slope[ours]).sum().backward()
    assert x.grad is not None
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    ranks.add_up(gradients)
    return {
        "y": torch.cat(ranks.gathered(y.detach())),
        "dx": torch.cat(ranks.gathered(x.grad)),
        "gradients": torch.cat(gradients),
        "state": {name: tensor.double() for name, tensor in network.state_dict().items()},
        "names": list(network.state_dict()),
        "evaluated": network.eval()(x).detach()[:1],
    }


# What happens to one of them only


class Trouble(nn.Module):
    """Passes pictures on, and does something in this process from a call on."""

    def __init__(self, act: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.calls, self.act = 0, act

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.act(self.calls, x)


class Vanishing:
    """Pictures of which one process can read none from a time on."""

    def __init__(self, pixels: NDArray[np.uint8], left: int) -> None:
        self.pixels, self.left = pixels, left

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        self.left -= 1
        if self.left < 0:
            raise InputError("a.png is gone")
        return self.pixels[index]


def told(call: Callable[[], object]) -> str:
    try:
        call()
    except (InputError, CheckError, Interrupted) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@contextmanager
def quiet_signal() -> Generator[None]:
    previous = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, previous)


def troubles(folder: Path, ranks: Ranks) -> dict[str, Any]:
    second = ranks.world.rank == 1
    found: dict[str, Any] = {}

    data = tiny_data(train=50, val=21)
    gone = TrainingData(
        Vanishing(np.asarray(data.images), 14 if second else 10**9), data.labels, data.val_pixels, data.val_labels,
        data.preprocess, "gone",
    )  # fmt: skip
    run = trainer(folder / "gone", ranks, data=gone, workers=0)
    found["gone"] = told(run.advance), run.step

    def infinite(call: int, x: Tensor) -> Tensor:
        return x / 0.0 if second and call == 4 else x

    run = trainer(folder / "nan", ranks, nn.Sequential(Trouble(infinite), network_without_norm()))
    found["nan"] = told(run.advance), run.step

    def short(call: int, x: Tensor) -> Tensor:
        if second and run.step >= 3 and len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 MiB")
        return x

    run = trainer(folder / "memory", ranks, nn.Sequential(Trouble(short), network_without_norm()))
    run.advance()
    found["memory"] = [row.model_dump() for row in run._planner.plan.rows if row.kind == "grad_accum"]
    found["memory hash"] = weights_hash(run.network)

    def interrupting(call: int, x: Tensor) -> Tensor:
        if second and call == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return x

    with quiet_signal():
        run = trainer(folder / "signal", ranks, nn.Sequential(Trouble(interrupting), network_without_norm()))
        found["signal"] = told(run.advance), run.step
    run = trainer(folder / "signal", ranks, nn.Sequential(Trouble(lambda call, x: x), network_without_norm()))
    found["resumed"] = run.resume(), run.step
    run.advance()
    found["resumed hash"] = weights_hash(run.network)
    run = trainer(folder / "whole", ranks, nn.Sequential(Trouble(lambda call, x: x), network_without_norm()))
    run.advance()
    found["whole hash"] = weights_hash(run.network)

    found["each"] = told(lambda: ranks.each(lambda: _refuse() if second else 1))
    found["once"] = told(lambda: ranks.once(_refuse)), ranks.once(lambda: ranks.world.rank)
    found["same"] = told(lambda: ranks.same(str(ranks.world.rank), "the same"))
    found["few"] = told(lambda: trainer(folder / "few", ranks, batch_size=3, grad_accum=2))
    found["timed"] = _timed(folder / "timed", ranks)
    return found


def _refuse() -> int:
    raise InputError("no")


def _timed(folder: Path, ranks: Ranks) -> tuple[int, str]:
    run = trainer(folder, ranks, tiny_network(dropout=0.5), epochs=None, time_s=1.0, sync_bn=False)
    run.advance()
    return run.step, weights_hash(run.network)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(World.here()) as ranks:
        torch.save(
            {
                "norm": norm_answers(ranks),
                "mixed": trained(folder / "mixed", ranks, **MIXED),
                **{name: trained(folder / name, ranks, **UNLIKE[name]()) for name in UNLIKE},
                "sync": trained(folder / "sync", ranks, tiny_network(dropout=0.0), sync_bn=True),
                "own": trained(folder / "own", ranks, tiny_network(dropout=0.5), sync_bn=False),
                "sharded": divided(folder / "sharded", ranks),
                **troubles(folder, ranks),
            },
            folder / f"{ranks.world.rank}.pt",
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
