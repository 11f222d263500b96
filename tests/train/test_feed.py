"""Batches are a function of the step, hold every picture once per epoch, and their threads end."""

import threading
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from tiny_training import EVERY_CHANGE, tiny_data, tiny_recipe

from netsmith.run.preprocess import Preprocess
from netsmith.train.augment.mixing import Mixing
from netsmith.train.augment.pipeline import Augmentation
from netsmith.train.feed import Batch, Feed


def feed(count: int, batch_size: int, *, seed: int = 0, images: object = None, mixing: Mixing | None = None) -> Feed:
    pixels = np.zeros((count, 8, 8, 3), dtype=np.uint8) if images is None else images
    augmentation = Augmentation.of(tiny_recipe(), Preprocess(size=8))
    return Feed(pixels, np.arange(count), augmentation=augmentation, batch_size=batch_size, seed=seed, mixing=mixing)  # pyright: ignore


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 7), (3, 8), (100, 32), (5, 1)])
def test_every_picture_once_per_epoch_and_every_batch_full(count: int, batch_size: int) -> None:
    source = feed(count, batch_size)
    batches = [source.batch(step).targets for step in range(-(-3 * count // batch_size))]
    assert all(len(batch) == batch_size for batch in batches)
    stream = torch.cat(batches)[: 3 * count].reshape(3, count)
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in stream)
    if count > 5:
        assert not torch.equal(stream[0], stream[1])


def test_pictures_stay_with_their_labels_across_an_epoch_boundary() -> None:
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), dtype=np.uint8)
    source = Feed(
        pixels,
        np.arange(6),
        augmentation=Augmentation.of(tiny_recipe(pad=0, crop_scale=None), Preprocess(size=8)),
        batch_size=4,
        seed=0,
    )
    for step in range(5):
        batch = source.batch(step)
        assert batch.images[:, 0, 0, 0].tolist() == batch.targets.tolist()


def everything() -> Feed:
    """All that a recipe can do to pictures, on pictures of all classes of unequal size."""
    data = tiny_data()
    recipe = tiny_recipe(**EVERY_CHANGE, class_balance="sampling")
    few = data.labels + (np.arange(len(data.labels)) % 5 > 1)
    return Feed.of(replace(data, labels=few), recipe, batch_size=8)


def test_a_recipe_reaches_the_batches() -> None:
    plain = Feed.of(tiny_data(), tiny_recipe(crop_scale=None, pad=0, flip=False), batch_size=8)
    batch = plain.batch(1)
    chosen = plain.order(0)[8:16]
    assert (batch.images.permute(0, 2, 3, 1).numpy() == np.asarray(plain.images)[chosen]).all()
    assert batch.targets.tolist() == plain.labels[chosen].tolist()
    for change in (
        {"rotate": 30.0},
        {"auto_augment": "trivialaugment"},
        {"color_jitter": (0.4, 0.0, 0.0, 0.0)},
        {"random_erase": 1.0},
        {"mixup": 1.0},
        {"cutmix": 1.0},
        {"class_balance": "sampling"},
    ):
        other = Feed.of(tiny_data(), tiny_recipe(crop_scale=None, pad=0, flip=False, **change), batch_size=8)
        assert not torch.equal(other.batch(1).images, batch.images), change


@pytest.mark.parametrize("workers", [0, 2])
def test_all_that_is_random_is_a_function_of_the_step(workers: int) -> None:
    expected = [everything().batch(step) for step in range(3, 11)]
    with closing(everything().batches(3, workers=workers)) as batches:
        assert all(same(got, wanted) for got, wanted in zip(islice(batches, 8), expected, strict=True))
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in expected)


def test_mixed_labels_keep_every_picture_once_as_itself_and_once_as_partner() -> None:
    count = 24
    source = feed(count, 8, mixing=Mixing(mixup=1.0, cutmix=0.0))
    alone = feed(count, 8)
    shares = torch.zeros(count)
    for step in range(3):
        targets, labels = source.batch(step).targets, alone.batch(step).targets
        assert targets.shape == (8, count)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
        share = targets[0, labels[0]]
        torch.testing.assert_close(targets[torch.arange(8), labels], share.expand(8))
        torch.testing.assert_close(targets[torch.arange(8), labels.roll(1)], (1 - share).expand(8))
        shares += targets.sum(dim=0)
    torch.testing.assert_close(shares, torch.ones(count))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_do_not_depend_on_workers_or_where_one_starts(workers: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 11, 3), dtype=np.uint8)
    expected = [feed(20, 8, images=pixels).batch(step) for step in range(12)]
    for start in (0, 5):
        with closing(feed(20, 8, images=pixels).batches(start, workers=workers)) as batches:
            got = list(islice(batches, 7))
        assert all(same(a, b) for a, b in zip(got, expected[start:], strict=False))


def test_seeds_give_other_orders() -> None:
    assert not torch.equal(feed(50, 50, seed=0).batch(0).targets, feed(50, 50, seed=1).batch(0).targets)


class Broken:
    """Pictures of which one cannot be read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> np.ndarray:
        if index == 17:
            raise OSError("the disk is gone")
        return np.zeros((8, 8, 3), dtype=np.uint8)


def threads() -> int:
    return sum(thread.name.startswith("netsmith-feed") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_in_a_thread_is_raised_at_its_step(workers: int) -> None:
    source = feed(40, 4, images=Broken())
    bad = source.order(0).tolist().index(17) // 4
    with closing(source.batches(0, workers=workers)) as batches:
        assert len(list(islice(batches, bad))) == bad
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)
    assert threads() == 0


def test_closing_ends_the_threads_also_after_an_exception_outside() -> None:
    with pytest.raises(KeyboardInterrupt), closing(feed(40, 4).batches(0, workers=2)) as batches:
        next(batches)
        assert threads() > 0
        raise KeyboardInterrupt
    assert threads() == 0


class Asking:
    """Pictures that note with how many threads whoever reads them computes."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> np.ndarray:
        self.threads.add(torch.get_num_threads())
        return np.zeros((8, 8, 3), dtype=np.uint8)


@pytest.mark.skipif("OpenMP" not in torch.__config__.parallel_info(), reason="torch is built without OpenMP")
def test_workers_compute_alone_and_leave_training_its_threads() -> None:
    before = torch.get_num_threads()
    asking = Asking()
    try:
        torch.set_num_threads(2)
        with closing(feed(40, 4, images=asking).batches(0, workers=1)) as batches:
            next(batches)
        assert asking.threads == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
