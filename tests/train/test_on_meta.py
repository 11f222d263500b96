"""Training on the device "meta", which stands for a GPU where there is none: its tensors have no numbers, so whatever
reads one, and on a GPU would make Python wait, raises; and so does every operation that mixes devices."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import EVERY_CHANGE, tiny_recipe
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.run.preprocess import Preprocess
from netsmith.train.augment import blocks, colour, erasing, mixing
from netsmith.train.batch import Batch
from netsmith.train.feed import Feed, TrainingData
from netsmith.train.metrics import Metrics
from netsmith.train.objectives import objective_of
from netsmith.train.precision import Precision
from netsmith.train.rendering import Rendered
from netsmith.train.state import State
from netsmith.train.step import update

META, SIDE, CLASSES = torch.device("meta"), 32, 5
COPIES = ("aten::_to_copy", "aten::copy_")


class OneDevice(TorchDispatchMode):
    """Raises where an operation has tensors of several devices; counts copies from one to another.

    On a GPU too a number may stand on the CPU (a tensor without axes).
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        result = found if func._schema.name in COPIES else ()
        devices = set(_devices([args, kwargs, result]))
        if len(devices) > 1:
            assert func._schema.name in COPIES, f"{func} of {devices}"
            self.sent += 1
        return found


def _devices(values: Any) -> Iterable[torch.device]:
    tensors = (each for each in tree_leaves(values) if isinstance(each, Tensor))
    return (each.device for each in tensors if each.ndim or each.device == META)


@pytest.mark.parametrize(
    "changes",
    [
        {"opt": "sgd", "grad_clip": 1.0, "ema": 0.9},
        {"opt": "adamw", "class_balance": "loss"},
        {"opt": "rmsprop", "bce_loss": True},
        {"opt": "lamb"},
        {"opt": "muon", "drop_path": 0.2},
    ],
)
def test_an_update_reads_no_number_and_sends_nothing(changes: dict[str, Any]) -> None:
    recipe = tiny_recipe(img_size=SIDE, **changes)
    network = build(find_layout("mobilenet_v2@0.25", num_classes=CLASSES, img_size=SIDE), drop_path=recipe.drop_path)
    objective = objective_of(network, recipe, Preprocess(size=SIDE), labels=np.arange(20) % CLASSES).to(META).train()
    state = State(network, recipe, Precision())
    metrics = Metrics(state)
    images = torch.zeros((8, 3, SIDE, SIDE), dtype=torch.uint8, device=META).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.zeros(8, dtype=torch.int64, device=META)
    with OneDevice() as devices:
        for parts, targets in ((1, labels), (2, torch.zeros((8, CLASSES), device=META))):
            batch = Batch(images, targets)
            restore = state.statistics()
            outcome = update(
                objective,
                state.optimizer,
                batch,
                rate=0.1,
                precision=Precision(),
                grad_clip=recipe.grad_clip,
                parts=parts,
                check=False,
            )
            state.step += 1
            state.average()
            metrics.add(outcome, batch)
            restore()
    assert devices.sent == 0


@pytest.mark.parametrize("sizes", [(32, 33), (40, 60)])
def test_rendering_reads_no_number(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blocks, colour, erasing, mixing):
        monkeypatch.setattr(module, "in_memory", lambda images: False)
    draw = np.random.default_rng(0)
    shapes = draw.integers(*sizes, (16, 2)).tolist()
    images: Any = [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in shapes]
    recipe = tiny_recipe(**EVERY_CHANGE, img_size=SIDE)
    none, preprocess = np.zeros((0, SIDE, SIDE, 3), np.uint8), Preprocess(size=SIDE)
    data = TrainingData(images, np.arange(16) % CLASSES, none, np.zeros(0, np.int64), preprocess, "meta")
    feed = Feed.of(data, recipe, batch_size=8, rendered=Rendered(images, META, keep=True))
    with OneDevice():
        for step in range(4):
            batch = feed.batch(step)
            assert batch.images.device == META
            assert batch.images.shape == (8, 3, SIDE, SIDE)
