"""Training on pictures that are decoded meanwhile: the same batches and weights as on decoded ones, also where a
picture vanishes and comes back."""

import threading
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import class_files, write_files
from tiny_training import tiny_network, tiny_recipe, weights_hash

from netsmith.data.audit import audit
from netsmith.data.items import Dataset
from netsmith.data.masters import Masters, masters
from netsmith.data.sources import open_source
from netsmith.errors import InputError
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.train.augment.pipeline import Augmentation
from netsmith.train.checkpoints import steps_saved
from netsmith.train.feed import Feed, TrainingData
from netsmith.train.trainer import Trainer

COUNT, BATCH = 42, 8


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = class_files({"cat": COUNT // 3, "cow": COUNT // 3, "dog": COUNT // 3})
    return write_files(tmp_path_factory.mktemp("pictures"), files)


@pytest.fixture(scope="module")
def dataset(source: Path) -> Dataset:
    return audit(open_source(source)).dataset


def opened(dataset: Dataset, folder: Path, *, filled: bool = False) -> Masters:
    found = masters(dataset, dataset.items, side=10, folder=folder)
    if filled:
        found.fill()
    return found


def feed(images: Masters) -> Feed:
    augmentation = Augmentation.of(tiny_recipe(crop_scale=(0.5, 1.0)), Preprocess(size=8))
    return Feed(images, images.labels, augmentation=augmentation, batch_size=BATCH, seed=0)


def trainer(images: Masters, run: Path) -> Trainer:
    run.mkdir(exist_ok=True)
    empty = np.zeros((0, 8, 8, 3), np.uint8)
    data = TrainingData(images, images.labels, empty, np.zeros(0, np.int64), Preprocess(size=8), "pictures")
    return Trainer(
        tiny_network(),
        data,
        tiny_recipe(crop_scale=(0.5, 1.0), epochs=2.0),
        plan=Plan(run / "plan.jsonl"),
        clock=SystemClock(),
        checkpoints=run / "checkpoints",
    )


@pytest.mark.parametrize(("workers", "start"), [(0, 0), (1, 0), (3, 0), (1, 2)])
def test_batches_are_the_same_and_the_cache_becomes_whole(
    workers: int, start: int, dataset: Dataset, tmp_path: Path
) -> None:
    expected = feed(opened(dataset, tmp_path / "filled", filled=True))
    with closing(feed(opened(dataset, tmp_path / "c")).batches(start, workers=workers)) as batches:
        for step, batch in enumerate(islice(batches, 9), start=start):
            other = expected.batch(step)
            assert torch.equal(batch.images, other.images)
            assert torch.equal(batch.targets, other.targets)
        until = time.monotonic() + 30
        while not list((tmp_path / "c").glob("*.pixels")):  # in the background, from any step on
            assert time.monotonic() < until, "the cache never became whole"
            time.sleep(0.01)
    (one,), (other,) = ((tmp_path / name).glob("*.pixels") for name in ("c", "filled"))
    assert one.read_bytes() == other.read_bytes()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("netsmith-f")]


def test_weights_are_the_same_also_where_a_picture_vanishes_and_comes_back(
    dataset: Dataset, source: Path, tmp_path: Path
) -> None:
    whole = trainer(opened(dataset, tmp_path / "filled", filled=True), tmp_path / "whole")
    whole.advance()
    meanwhile = trainer(opened(dataset, tmp_path / "c"), tmp_path / "meanwhile")
    meanwhile.advance()
    assert weights_hash(meanwhile.network) == weights_hash(whole.network)
    index = int(whole.feed.order(0)[30])  # of the fourth batch
    lost = source / dataset.items[index].name
    content = lost.read_bytes()
    stopped = trainer(opened(dataset, tmp_path / "d"), tmp_path / "stopped")
    lost.unlink()
    try:
        with pytest.raises(InputError, match="training needs it: put it back"):
            stopped.advance()
    finally:
        lost.write_bytes(content)
    assert stopped.step == 30 // BATCH
    assert steps_saved(tmp_path / "stopped" / "checkpoints") == [30 // BATCH]
    again = trainer(opened(dataset, tmp_path / "d"), tmp_path / "stopped")
    assert again.resume()
    again.advance()
    assert weights_hash(again.network) == weights_hash(whole.network)
