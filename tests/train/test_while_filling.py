"""Training on pictures that are decoded meanwhile: the same batches and weights as on decoded ones, also where a
picture vanishes and comes back."""

import threading
import time
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import class_files, write_files
from tiny_training import tiny_network, tiny_recipe, weights_hash

from netsmith.data import masters as module
from netsmith.data.audit import audit
from netsmith.data.items import Dataset
from netsmith.data.masters import Encoding, Masters, masters
from netsmith.data.prepare import Pixels
from netsmith.data.shrink import shrink
from netsmith.data.sources import open_source
from netsmith.errors import InputError
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.train import feed as feeding
from netsmith.train.augment.pipeline import Augmentation
from netsmith.train.batch import Delivery
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


def opened(dataset: Dataset, folder: Path, *, filled: bool = False, encoding: Encoding = "decoded") -> Masters:
    found = masters(dataset, dataset.items, side=10, folder=folder, encoding=encoding)
    if filled:
        found.fill()
    return found


def feed(images: Masters) -> Feed:
    augmentation = Augmentation.of(tiny_recipe(crop_scale=(0.5, 1.0)), Preprocess(size=8))
    return Feed(images, images.labels, augmentation=augmentation, batch_size=BATCH, seed=0)


def trainer(images: Masters, run: Path, **changes: object) -> Trainer:
    run.mkdir(exist_ok=True)
    empty = np.zeros((0, 8, 8, 3), np.uint8)
    data = TrainingData(images, images.labels, empty, np.zeros(0, np.int64), Preprocess(size=8), "pictures")
    return Trainer(
        tiny_network(),
        data,
        tiny_recipe(**({"crop_scale": (0.5, 1.0), "epochs": 2.0} | changes)),
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


# Pictures of which no pixels are kept


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))


def with_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(feeding, "machine", lambda: SimpleNamespace(cores_usable=count))


@pytest.mark.usefixtures("no_room")
def test_where_none_are_kept_several_threads_decode_and_batches_are_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [feed(opened(dataset, tmp_path / "c")).batch(step) for step in range(6)]
    with_cores(monkeypatch, 4)
    three, met = threading.Barrier(3), threading.Event()

    def shrunk(image: bytes | Pixels, *, side: int) -> Pixels:
        if not met.is_set():  # waits until three are at it at once
            with suppress(threading.BrokenBarrierError):
                three.wait(timeout=10)
                met.set()
        return shrink(image, side=side)

    monkeypatch.setattr(module, "shrink", shrunk)
    with closing(feed(opened(dataset, tmp_path / "c")).batches(0)) as batches:
        for batch, other in zip(islice(batches, 6), expected, strict=True):
            assert torch.equal(batch.images, other.images)
    assert met.is_set()


def test_one_thread_keeps_up_with_pictures_that_are_kept_as_pixels(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cores(monkeypatch, 8)
    growing, whole = opened(dataset, tmp_path / "c"), opened(dataset, tmp_path / "d", filled=True)
    assert [feed(images).own_workers() for images in (growing, whole)] == [1, 1]
    assert feed(opened(dataset, tmp_path / "e", encoding="re-encoded")).own_workers() == 7  # JPEGs
    growing.fill()
    assert feed(growing).own_workers() == 1


@pytest.mark.usefixtures("no_room")
@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [("cpu", 1, 1, 1), ("cpu", 8, 1, 7), ("cpu", 8, 2, 3), ("cpu", 64, 1, 16), ("meta", 8, 1, 8), ("meta", 64, 1, 16),
     ("meta", 64, 8, 8), ("meta", 4, 8, 1)],
)  # fmt: skip
def test_the_cores_that_decode(
    device: str, cores: int, processes: int, expected: int, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A device that is no CPU leaves all of them, and processes of one machine share them."""
    with_cores(monkeypatch, cores)
    world = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    for name, value in {**world, "MASTER_ADDR": "a", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    source = feed(opened(dataset, tmp_path / "c"))
    source.delivery = Delivery(torch.device(device))
    assert source.own_workers() == expected


@pytest.mark.usefixtures("no_room")
def test_a_training_takes_the_threads_that_were_asked_for(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cores(monkeypatch, 4)
    began: list[int] = []
    real = feeding.ThreadPoolExecutor

    def pool(workers: int, **settings: object) -> object:
        began.append(workers)
        return real(workers, **settings)  # pyright: ignore

    monkeypatch.setattr(feeding, "ThreadPoolExecutor", pool)
    for number, changes in enumerate(({}, {"workers": 1})):
        trainer(opened(dataset, tmp_path / "c"), tmp_path / f"run-{number}", **changes).advance()
    assert began == [3, 1]
