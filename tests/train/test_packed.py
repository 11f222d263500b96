"""What a GPU does to pictures, done on a CPU: the same as the CPU's own way, to the level where nothing is resized.

`in_memory` says no here, so that the ways of a GPU are gone on tensors that numpy could reach.
"""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import tiny_recipe

from netsmith.run.preprocess import Preprocess
from netsmith.train.augment import blocks, colour, erasing, mixing
from netsmith.train.augment.framing import Moves, frame
from netsmith.train.augment.mixing import Mixture, mix
from netsmith.train.augment.packed import Packed, frame_packed
from netsmith.train.augment.pipeline import Augmentation

BORDER = (124, 116, 104)


def go_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blocks, colour, erasing, mixing):
        monkeypatch.setattr(module, "in_memory", lambda images: False)


def pictures(shapes: list[tuple[int, int]], *, seed: int = 0) -> list[np.ndarray]:
    """Smooth colours and some noise."""
    draw = np.random.default_rng(seed)
    found = []
    for number, (height, width) in enumerate(shapes):
        rows, columns = np.mgrid[0:height, 0:width]
        waves = [127 + 100 * np.sin(rows / (3 + number) + c) * np.cos(columns / (5 + c)) for c in range(3)]
        found.append(np.clip(np.stack(waves, -1) + draw.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8))
    return found


def packed(sources: list[np.ndarray], *, before: int = 7) -> Packed:
    """Pictures behind `before` pixels that belong to none of them."""
    flat = np.concatenate([np.full(3 * before, 99, np.uint8), *(source.reshape(-1) for source in sources)])
    counts = [source.shape[0] * source.shape[1] for source in sources]
    starts = before + np.concatenate([[0], np.cumsum(counts)[:-1]])
    return Packed(torch.from_numpy(flat).view(-1, 3), starts, np.array([source.shape[:2] for source in sources]))


def moves(shapes: list[tuple[int, int]], *, size: int, boxes: str, shift: int, seed: int) -> Moves:
    draw = np.random.default_rng(seed)
    full = np.array(shapes)
    if boxes == "exact":
        height = width = np.full(len(full), size)
    else:
        height, width = (draw.integers(1, full[:, axis] + 1) for axis in (0, 1))
    if boxes == "some":
        height, width = (np.where(np.arange(len(full)) % 2, size, side) for side in (height, width))
    top, left = draw.integers(0, full[:, 0] - height + 1), draw.integers(0, full[:, 1] - width + 1)
    down, right = (draw.integers(-shift, shift + 1, len(full)) for _ in range(2))
    return Moves(top, left, height, width, down, right, draw.random(len(full)) < 0.5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shift", [0, 3, 40])
def test_boxes_that_are_not_resized_come_out_the_same(shift: int, layout: torch.memory_format) -> None:
    shapes = [(24, 24), (30, 41), (25, 60), (24, 33), (50, 24)]
    sources = pictures(shapes)
    drawn = moves(shapes, size=24, boxes="exact", shift=shift, seed=shift)
    values: dict[str, Any] = {"size": 24, "mode": "bilinear", "border": BORDER, "layout": layout}
    found = frame_packed(packed(sources), drawn, **values)
    assert torch.equal(found, frame(sources, drawn, **values))
    assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest-exact"])
@pytest.mark.parametrize(("boxes", "shift"), [("all", 0), ("all", 5), ("some", 2)])
def test_resized_boxes_agree_to_one_level(mode: str, boxes: str, shift: int) -> None:
    shapes = [(40 + 7 * n, 90 - 3 * n) for n in range(12)] + [(24, 24), (24, 300)]
    sources = pictures(shapes)
    drawn = moves(shapes, size=24, boxes=boxes, shift=shift, seed=1)
    values: dict[str, Any] = {"size": 24, "mode": mode, "border": BORDER}
    found, expected = frame_packed(packed(sources), drawn, **values), frame(sources, drawn, **values)
    apart = (found.int() - expected.int()).abs()
    assert int(apart.max()) <= (0 if mode == "nearest-exact" else 1)
    assert float((apart > 0).double().mean()) < 0.02


def test_crops_are_resized_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(40 + n, 50) for n in range(9)]
    sources = pictures(shapes)
    drawn = moves(shapes, size=16, boxes="all", shift=0, seed=2)
    values: dict[str, Any] = {"size": 16, "mode": "bilinear", "border": BORDER}
    whole = frame_packed(packed(sources), drawn, **values)
    monkeypatch.setattr("netsmith.train.augment.packed.PIXELS_AT_ONCE", 5000)
    parts = frame_packed(packed(sources), drawn, **values)
    assert int((whole.int() - parts.int()).abs().max()) <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_augment": "randaugment", "ra_ops": 3},
        {"auto_augment": "trivialaugment"},
        {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
        {"rotate": 20.0, "random_erase": 0.6},
    ],
)
def test_changes_on_a_gpus_ways_are_the_cpus(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(20, 20)] * 60
    sources = pictures(shapes)
    augmentation = Augmentation.of(tiny_recipe(img_size=20, crop_scale=None, pad=2, **changes), Preprocess(size=20))
    drawn = augmentation.draw(np.array(shapes), seed=3, epoch=1, positions=np.arange(60))
    expected = augmentation.render(sources, drawn)
    go_as_on_a_gpu(monkeypatch)
    found = augmentation.render(packed(sources), drawn)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mixture", [Mixture(0.3, None), Mixture(0.75, (2, 3, 10, 9))])
def test_mixtures_are_the_cpus(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(np.stack(pictures([(12, 12)] * 9))).permute(0, 3, 1, 2)
    expected = mix(images.clone(), mixture)
    go_as_on_a_gpu(monkeypatch)
    assert torch.equal(mix(images.clone(), mixture), expected)


def test_nothing_is_written_to_the_pictures_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    go_as_on_a_gpu(monkeypatch)
    shapes = [(16, 16)] * 8
    sources = pictures(shapes)
    kept = packed(sources)
    before = kept.pixels.clone()
    recipe = tiny_recipe(img_size=16, crop_scale=None, pad=0, flip=False, random_erase=1.0, color_jitter=(0.5,) * 4)
    augmentation = Augmentation.of(recipe, Preprocess(size=16))
    augmentation.render(kept, augmentation.draw(np.array(shapes), seed=0, epoch=0, positions=np.arange(8)))
    assert torch.equal(kept.pixels, before)
