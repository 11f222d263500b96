"""Changes of colour against Pillow, to the level; the hue against torchvision and colorsys."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from reference_transforms import as_pillow, as_tensor, largest_difference, photos, torchvision_transforms
from torch import Tensor

from netsmith.train.augment import blocks, colour
from netsmith.train.augment.jitter import JITTER_DRAWS, Jitter, apply_jitter, draw_jitter

FACTORS = torch.tensor([0.0, 0.01, 0.1, 0.37, 0.5, 0.73, 0.999, 1.0, 1.001, 1.27, 1.5, 1.9, 1.99, 2.6])

Change = Callable[[Tensor, Tensor], Tensor]
Reference = Callable[[Image.Image, float], Image.Image]

PILLOW: dict[str, tuple[Change, Tensor, Reference]] = {
    "brightness": (colour.brightness, FACTORS, lambda image, f: ImageEnhance.Brightness(image).enhance(f)),
    "contrast": (colour.contrast, FACTORS, lambda image, f: ImageEnhance.Contrast(image).enhance(f)),
    "saturation": (colour.saturation, FACTORS, lambda image, f: ImageEnhance.Color(image).enhance(f)),
    "sharpness": (colour.sharpness, FACTORS, lambda image, f: ImageEnhance.Sharpness(image).enhance(f)),
    "posterize": (colour.posterize, torch.arange(1, 9), lambda image, bits: ImageOps.posterize(image, int(bits))),
    "solarize": (colour.solarize, torch.linspace(0, 255, 14), lambda image, first: ImageOps.solarize(image, first)),
    "autocontrast": (
        lambda images, _: colour.autocontrast(images),
        FACTORS,
        lambda image, _: ImageOps.autocontrast(image),
    ),
    "equalize": (lambda images, _: colour.equalize(images), FACTORS, lambda image, _: ImageOps.equalize(image)),
}


@pytest.mark.parametrize("side", [5, 31, 64])
@pytest.mark.parametrize("name", PILLOW)
def test_levels_are_pillows(name: str, side: int) -> None:
    change, amounts, reference = PILLOW[name]
    images = photos(len(amounts), side, seed=side)
    before = images.clone()
    changed = change(images, amounts)
    assert changed.dtype == torch.uint8
    assert torch.equal(images, before)
    for image, ours, amount in zip(images, changed, amounts.tolist(), strict=True):
        assert torch.equal(ours, as_tensor(reference(as_pillow(image), amount))), amount


def test_all_levels_of_grey_are_pillows() -> None:
    """Every colour of a coarse grid and its neighbours: the sums of 24 bits are exact in float32."""
    levels = np.array([0, 1, 2, 3, 84, 85, 127, 128, 170, 200, 201, 252, 253, 254, 255], dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, levels.size, 3)
    square = np.resize(grid, (1, 60, 60, 3))
    images = torch.from_numpy(square).permute(0, 3, 1, 2)
    grey = colour.saturation(images, torch.zeros(1))
    assert torch.equal(grey[0], as_tensor(as_pillow(images[0]).convert("L").convert("RGB")))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 2 * 12 * 12)
    images, amounts, members = photos(9, 12), torch.linspace(0.2, 1.8, 9), np.array([0, 2, 3, 5, 8])
    for change in (colour.brightness, colour.contrast, colour.saturation, colour.sharpness, colour.hue):
        expected = images.clone()
        expected[members] = change(images[members], amounts[members])
        changed = images.clone()
        blocks.change_some(change, changed, members, amounts)
        assert torch.equal(changed, expected)


def test_hue_is_that_of_colorsys() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    pixels[0, 0] = [
        (0, 0, 0),
        (255, 255, 255),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (9, 9, 9),
        (255, 255, 0),
        (0, 1, 1),
    ]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for turn in (-0.5, -0.123, 0.0, 1 / 3, 0.25, 0.5):
        ours = colour.hue(images, torch.tensor([turn]))[0].permute(1, 2, 0).reshape(-1, 3)
        for pixel, got in zip(pixels.reshape(-1, 3).tolist(), ours.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in pixel))
            exact = [255 * level for level in colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)]
            assert max(abs(a - b) for a, b in zip(got, exact, strict=True)) <= 0.51, (turn, pixel)


@pytest.mark.reference
def test_hue_is_torchvisions_but_for_its_rounding() -> None:
    functional = torchvision_transforms().functional
    turns = torch.linspace(-0.5, 0.5, 11)
    images = photos(11, 24)
    for image, ours, turn in zip(images, colour.hue(images, turns), turns.tolist(), strict=True):
        assert largest_difference(ours, functional.adjust_hue(image, turn)) <= 1


@pytest.mark.reference
def test_jitter_is_torchvisions_one_picture_at_a_time() -> None:
    functional = torchvision_transforms().functional
    images = photos(60, 20)
    jitter = draw_jitter(np.random.default_rng(1).random((60, JITTER_DRAWS)), (0.4, 0.8, 0.7, 0.0))
    ours = images.clone()
    apply_jitter(ours, jitter)
    parts = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for image, got, order, amount in zip(images, ours, jitter.order, jitter.amount, strict=True):
        expected = as_pillow(image)
        for part in order.tolist():
            expected = parts[part](expected, amount[part]) if part < 3 else expected
        assert torch.equal(got, as_tensor(expected))
    assert len({tuple(order) for order in jitter.order.tolist()}) > 12


def test_jitter_turns_the_hue_in_its_place() -> None:
    images = photos(8, 16)
    amounts = np.tile([1.5, 1.0, 1.0, 0.3], (8, 1))
    turned_first = images.clone()
    apply_jitter(turned_first, Jitter(np.tile([3, 1, 0, 2], (8, 1)), amounts))
    by_hand = colour.brightness(colour.hue(images, torch.full((8,), 0.3)), torch.full((8,), 1.5))
    assert torch.equal(turned_first, by_hand)


@pytest.mark.reference
def test_jitter_draws_from_torchvisions_ranges() -> None:
    strongest = (0.4, 1.0, 0.2, 0.1)
    theirs = torchvision_transforms().ColorJitter(*strongest)
    low, high = zip(*(getattr(theirs, name) for name in ("brightness", "contrast", "saturation", "hue")), strict=True)
    jitter = draw_jitter(np.random.default_rng(0).random((4000, JITTER_DRAWS)), strongest)
    np.testing.assert_allclose(jitter.amount.min(axis=0), low, atol=0.01)
    np.testing.assert_allclose(jitter.amount.max(axis=0), high, atol=0.01)
    np.testing.assert_allclose(jitter.amount.mean(axis=0), np.add(low, high) / 2, atol=0.02)
    orders, counts = np.unique(jitter.order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 100
    off = draw_jitter(np.random.default_rng(0).random((50, JITTER_DRAWS)), (0.0, 0.0, 0.0, 0.1))
    assert (off.amount[:, :3] == 1.0).all()
