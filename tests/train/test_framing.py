"""Framing against plain references: one picture at a time, Pillow for resizing, numpy.pad for borders."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import tiny_recipe

from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.augment.framing import CROP_TRIES, Moves, random_boxes
from netsmith.train.augment.pipeline import Augmentation, Changes
from netsmith.train.feed import Feed

Array = np.ndarray


def picture(height: int, width: int, *, seed: int = 0) -> Array:
    """Smooth colours, so that resizing has something to get right."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(rows / (3 + seed + c)) * np.cos(columns / (5 + c)) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def augmentation(size: int, *, squash: bool = False, crop: float = 1.0, **recipe: object) -> Augmentation:
    values: dict[str, object] = {"model": "m", "img_size": size, "epochs": 1.0, "flip": False, "crop_scale": None}
    preprocess = Preprocess(size=size, resize="squash" if squash else "shorter", crop=crop)
    return Augmentation.of(Recipe(**(values | recipe)), preprocess)  # pyright: ignore[reportArgumentType]


def run(augment: Augmentation, sources: list[Array], **key: int) -> tuple[Array, Moves]:
    positions = np.arange(len(sources))
    shapes = np.array([source.shape[:2] for source in sources])
    changes = augment.draw(shapes, seed=key.get("seed", 0), epoch=key.get("epoch", 0), positions=positions)
    images = augment.render(sources, changes)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    return images.permute(0, 2, 3, 1).numpy(), changes.moves


def resized(image: Array, size: int) -> Array:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def box_by_rejection(
    height: int, width: int, tries: list[float], scale: tuple[float, float], ratio: tuple[float, float]
):
    """One box, written as the loop that the vectorised code replaces."""
    for n in range(CROP_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * tries[2 * n])
        aspect = math.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * tries[2 * n + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(tries[-2] * (height - h + 1)), int(tries[-1] * (width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.35, 1.0), (0.9, 1.0), (1.0, 1.0)])
def test_random_boxes_equal_the_loop(scale: tuple[float, float]) -> None:
    draw = np.random.default_rng(0)
    shapes = draw.integers(1, 60, (300, 2))
    shapes[:50, 0] = 200  # so long that no try fits and the centre is taken
    tries = draw.random((300, 2 * CROP_TRIES + 2))
    ratio = (0.75, 4 / 3)
    boxes = np.stack(random_boxes(shapes, tries, scale=scale, ratio=ratio), axis=1)
    expected = [
        box_by_rejection(h, w, t, scale, ratio) for (h, w), t in zip(shapes.tolist(), tries.tolist(), strict=True)
    ]
    assert boxes.tolist() == [list(box) for box in expected]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= shapes).all()
    assert (boxes[:, 2:] >= 1).all()


def test_random_resized_crop_cuts_and_resizes_as_pillow_does() -> None:
    sources = [picture(40 + 7 * n, 55 + 3 * n, seed=n) for n in range(12)]
    images, moves = run(augmentation(24, crop_scale=(0.2, 1.0), flip=True), sources)
    for n, (source, image) in enumerate(zip(sources, images, strict=True)):
        top, left = moves.top[n], moves.left[n]
        expected = resized(source[top : top + moves.height[n], left : left + moves.width[n]], 24)
        if moves.flip[n]:
            expected = expected[:, ::-1]
        assert np.abs(image.astype(int) - expected).max() <= 1
    assert 0 < moves.flip.sum() < len(sources)


@pytest.mark.parametrize(("pad", "shift", "flip"), [(3, 0.0, True), (0, 0.25, False), (2, 0.1, True), (0, 0.0, True)])
def test_translation_equals_cutting_from_a_padded_picture(pad: int, shift: float, flip: bool) -> None:
    size = 20
    augment = augmentation(size, pad=pad, shift=shift, flip=flip)
    sources = [picture(size, size, seed=n) for n in range(40)]
    images, moves = run(augment, sources)
    reach = pad + round(shift * size)
    assert int(np.abs(moves.down).max()) <= reach
    assert len(set(moves.down.tolist())) >= min(2 * reach + 1, 5)
    mean = [round(255 * value) for value in Preprocess(size=size).mean]
    for n, (source, image) in enumerate(zip(sources, images, strict=True)):
        canvas = np.empty((size + 2 * reach, size + 2 * reach, 3), dtype=np.uint8)
        canvas[:] = mean
        canvas[reach : reach + size, reach : reach + size] = source
        down, right = reach - moves.down[n], reach - moves.right[n]
        expected = canvas[down : down + size, right : right + size]
        assert (image == (expected[:, ::-1] if moves.flip[n] else expected)).all()


def test_a_shift_beyond_the_picture_leaves_the_border_colour() -> None:
    augment = augmentation(8)
    one = np.ones(1, dtype=np.int64)
    moves = Moves(0 * one, 0 * one, 8 * one, 8 * one, 9 * one, 0 * one, one == 0)
    image = augment.render([picture(8, 8)], Changes(moves))
    assert image[0, :, 0, 0].tolist() == list(augment.border)
    assert (image == image[:, :, :1, :1]).all()


def test_without_a_crop_the_framing_is_that_of_evaluation() -> None:
    source = picture(40, 60)
    whole, _ = run(augmentation(32, squash=True), [source])
    assert np.abs(whole[0].astype(int) - resized(source, 32)).max() <= 1
    centre, moves = run(augmentation(32, crop=0.8), [source])
    assert (moves.top[0], moves.left[0], moves.height[0], moves.width[0]) == (4, 14, 32, 32)
    assert (centre[0] == source[4:36, 14:46]).all()
    untouched, _ = run(augmentation(40), [source[:, :40]])
    assert (untouched[0] == source[:, :40]).all()


def test_draws_are_a_function_of_seed_epoch_and_position_alone() -> None:
    augment = augmentation(16, crop_scale=(0.2, 1.0), pad=2, flip=True)
    shapes = np.full((64, 2), 30)
    whole = augment.draw(shapes, seed=1, epoch=2, positions=np.arange(64)).moves
    part = augment.draw(shapes[:9], seed=1, epoch=2, positions=np.arange(20, 29)).moves
    for name in ("top", "left", "height", "width", "down", "right", "flip"):
        assert (getattr(whole, name)[20:29] == getattr(part, name)).all(), name
    other = augment.draw(shapes, seed=1, epoch=3, positions=np.arange(64)).moves
    assert (whole.down != other.down).any()
    other_augment = augmentation(16, crop_scale=(0.2, 1.0), pad=2)
    without_flip = other_augment.draw(shapes, seed=1, epoch=2, positions=np.arange(64)).moves
    assert (without_flip.top == whole.top).all()
    assert (without_flip.down == whole.down).all()
    assert not without_flip.flip.any()


def test_flips_that_alternate_show_both_sides_of_every_picture_in_two_epochs() -> None:
    """Whatever order epochs have, through a feed, whose pictures say which way they are shown."""
    images = np.zeros((40, 8, 8, 3), np.uint8)
    images[:, :, :4, 0] = 255  # the left half is red
    images[:, 0, 0, 1] = np.arange(40)  # its number, in a corner
    images[:, 0, 7, 1] = np.arange(40)
    augment = Augmentation.of(tiny_recipe(crop_scale=None, pad=0, flip="alternating"), Preprocess(size=8))
    feed = Feed(images, np.arange(40) % 3, augmentation=augment, batch_size=10, seed=3)
    mirrored = np.zeros((4, 40), np.bool_)
    for epoch in range(4):
        for step in range(4 * epoch, 4 * epoch + 4):
            shown = feed.batch(step).images.numpy()
            mirrored[epoch, shown[:, 1, 0, 0]] = shown[:, 0, 4, 0] == 0
    assert 10 < mirrored[0].sum() < 30
    assert (mirrored[0] != mirrored[1]).all()
    assert (mirrored[0] == mirrored[2]).all()
    assert (mirrored[1] == mirrored[3]).all()


@pytest.mark.parametrize(("side", "size"), [(32, 16), (28, 20), (8, 16), (20, 20)])
def test_small_pictures_resized_together_are_those_resized_alone(side: int, size: int) -> None:
    sources = [picture(side, side, seed=seed) for seed in range(6)]
    augment = augmentation(size, pad=2)
    together, moves = run(augment, sources)
    for index, source in enumerate(sources):
        changes = Changes(Moves(**{name: column[index : index + 1] for name, column in vars(moves).items()}))
        other = picture(side + 1, side)  # of another shape, so that each is resized by itself
        twice = Changes(Moves(**{name: np.concatenate([column] * 2) for name, column in vars(changes.moves).items()}))
        alone = augment.render([source, other], twice).permute(0, 2, 3, 1).numpy()[0]
        assert np.array_equal(together[index], alone)


def test_sources_may_be_read_only_and_are_not_changed() -> None:
    source = picture(30, 30)
    source.setflags(write=False)
    before = source.copy()
    run(augmentation(20, crop_scale=(0.5, 1.0), flip=True, pad=2), [source] * 4)
    assert (source == before).all()
