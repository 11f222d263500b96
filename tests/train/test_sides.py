"""Pictures that grow in training: which sides, which batches, and that time, resuming and replays keep their word."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import weights_hash
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.errors import InputError
from netsmith.models.build import build
from netsmith.models.network import Network
from netsmith.run.clock import FakeClock, SystemClock
from netsmith.run.files import read_jsonl
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.costs import Costs, Phase
from netsmith.train.feed import Feed, TrainingData
from netsmith.train.objectives import Classify, Outcome
from netsmith.train.sides import Sides, stride_of, takes
from netsmith.train.trainer import Trainer

SIDE = 32


def network(*, seed: int = 0) -> Network:
    return build(find_layout("resnet20_cifar@0.25", num_classes=3, img_size=SIDE), seed=seed)


def data(count: int = 60) -> TrainingData:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 255, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 3
    return TrainingData(pixels[10:], labels[10:], pixels[:10], labels[:10], Preprocess(size=SIDE), "growing")


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "model": "resnet20_cifar@0.25", "img_size": SIDE, "epochs": 4.0, "batch_size": 8, "pad": 4, "crop_scale": None,
        "threads": 1, "progressive": (0.5, 0.75),
    }  # fmt: skip
    return Recipe(**(values | changes))


def trainer(folder: Path, *, seed: int = 0, clock: Any = None, **changes: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(
        network(seed=seed),
        data(),
        recipe(**changes),
        plan=Plan(folder / "plan.jsonl"),
        clock=clock or SystemClock(),
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
    )


def sides_of(folder: Path) -> list[tuple[int, int]]:
    return [(row["at"], row["value"]) for row in read_jsonl(folder / "plan.jsonl") if row["kind"] == "train_size"]


def sides(**changes: Any) -> Sides | None:
    return Sides.of(recipe(**changes), network())


def test_sides_are_multiples_of_the_stride_below_the_full_one_for_equal_shares() -> None:
    found = sides()
    assert found is not None
    assert found.sizes == (16, 20, 24, 28, 32)
    assert found.starts == pytest.approx((0.0, 0.1875, 0.375, 0.5625, 0.75))
    assert [found.at(progress) for progress in (0.0, 0.1874, 0.1875, 0.7, 0.75, 1.0)] == [16, 16, 20, 28, 32, 32]
    assert [phase.prior for phase in found.phases] == [256, 400, 576, 784, 1024]
    assert sides(train_size=30, progressive=(0.7, 0.5)) == Sides((22, 26, 30), 0.5)
    assert sides(progressive=None) is None


def test_strides_and_least_sides_follow_from_the_layout() -> None:
    photos = find_layout("resnet18", num_classes=3, img_size=224)
    assert stride_of(photos) == 32
    assert [size for size in range(32, 224, 32) if takes(photos, size)] == [128, 160, 192]
    assert stride_of(find_layout("inception_v3", num_classes=3, img_size=299)) == 32


def test_a_network_that_cannot_change_its_side_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"vgg11 .* its classifier is made for maps of 7 x 7"):
        Sides.of(recipe(model="vgg11", img_size=224), Flat("vgg11"))
    with pytest.raises(InputError, match="inception_v3 .* its classifiers for training take no smaller maps"):
        Sides.of(recipe(model="inception_v3", img_size=299, progressive=(0.8, 0.5)), Flat("inception_v3"))
    with pytest.raises(InputError, match="at no side from 29 to 31 pixels; sides are 32 less multiples of 4"):
        sides(progressive=(0.9, 0.5))
    with pytest.raises(InputError, match="needs a network with a layout"):
        Sides.of(recipe(), nn.Sequential())


class Flat(Network):
    """The layout of a network whose weights are too many for a test."""

    def __init__(self, name: str) -> None:
        nn.Module.__init__(self)
        self.layout = find_layout(name, num_classes=3)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_have_the_side_of_their_step_also_when_it_was_thought_to_be_another(workers: int) -> None:
    feed = Feed.of(data(), recipe(mixup=0.2, auto_augment="randaugment"), batch_size=8)
    change = 9  # what is known until step 4 was made; then 6

    def side(step: int) -> int:
        return 16 if step < change else 24

    with closing(feed.batches(2, workers=workers, side=side)) as batches:
        for step in range(2, 14):
            if step == 5:
                change = 6
            batch, expected = next(batches), feed.batch(step, 16 if step < 6 else 24)
            assert batch.images.shape == (8, 3, *[16 if step < 6 else 24] * 2)
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.targets, expected.targets)


def test_what_moves_by_pixels_moves_by_the_same_share() -> None:
    full = Feed.of(data(), recipe(shift=0.25, auto_augment="trivialaugment"), batch_size=8).augmentation
    half = full.at(16)
    assert (half.size, half.pad, half.shift) == (16, 2, 4)
    assert full.policy is not None
    assert half.policy is not None
    assert half.policy.translate == full.policy.translate / 2
    assert full.at(SIDE) is full


def test_a_stopped_run_goes_on_to_the_same_bits_on_either_side_of_a_change(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.advance()
    rows = sides_of(tmp_path / "whole")
    assert rows == [(0, 16), (5, 20), (10, 24), (15, 28), (19, 32)]  # of 25 steps
    for stop in (4, 5, 20):
        first = trainer(tmp_path / f"{stop}")
        first.advance(stop)
        first.save()
        second = trainer(tmp_path / f"{stop}", seed=9)
        assert second.resume()
        second.advance()
        assert weights_hash(second.network) == weights_hash(whole.network)
        assert sides_of(tmp_path / f"{stop}") == rows


class Priced(FakeClock):
    """A clock on which an update takes as long as its pictures have pixels; remembers their sides."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def computed(self, images: torch.Tensor) -> None:
        self.seen.append(images.shape[-1])
        self.tick(1e-4 * images.shape[-1] ** 2)  # 0.0256 to 0.1024 s


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Priced:
    clock = Priced()
    compute = Classify.forward

    def forward(self: Classify, images: torch.Tensor, targets: torch.Tensor) -> Outcome:
        clock.computed(images)
        return compute(self, images, targets)

    monkeypatch.setattr(Classify, "forward", forward)
    return clock


def test_a_timed_run_is_over_in_time_and_its_plan_replays(tmp_path: Path, priced: Priced) -> None:
    settings: dict[str, Any] = {"epochs": None, "time_s": 4.0, "batch_size": 4, "ema": None, "dtype": "float32"}
    settings |= {"channels_last": False}
    timed = trainer(tmp_path / "a", clock=priced, **settings)
    timed.advance()
    assert 0.93 * 4.0 < timed.seconds <= 4.0 * 1.02
    changes = sides_of(tmp_path / "a")
    assert [side for _, side in changes] == [16, 20, 24, 28, 32]
    trained = priced.seen[-timed.step :]
    assert trained == sorted(trained)
    assert [trained.index(side) for side in (16, 20, 24, 28, 32)] == [at for at, _ in changes]
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/plan.jsonl", tmp_path / "b/plan.jsonl")
    before = len(priced.seen)
    again = trainer(tmp_path / "b", clock=FakeClock(), **settings)
    again.advance()
    assert priced.seen[before:][-again.step :] == trained
    assert weights_hash(again.network) == weights_hash(timed.network)
    assert (tmp_path / "a/plan.jsonl").read_text() == (tmp_path / "b/plan.jsonl").read_text()


def test_a_run_that_goes_on_at_a_change_keeps_what_each_kind_of_update_took() -> None:
    phases = (Phase(0.0, "small", 0.25), Phase(0.5, "full", 1.0))
    first, second = Costs(phases), Costs(phases)
    first.measure("small", 1.0)
    second.load(first.numbers(), progress=0.5, per_step=1.0)  # the pace is that of the update before
    assert (second.seconds("small"), second.seconds("full")) == (1.0, 4.0)


def test_a_resumed_timed_run_knows_what_each_side_costs(tmp_path: Path, priced: Priced) -> None:
    settings: dict[str, Any] = {"epochs": None, "time_s": 4.0, "batch_size": 4, "dtype": "float32"}
    settings |= {"channels_last": False}
    first = trainer(tmp_path, clock=priced, **settings)
    first.advance(30)
    first.save()
    second = trainer(tmp_path, clock=priced, **settings)
    assert second.resume()
    second.advance()
    assert 0.93 * 4.0 < second.seconds <= 4.0 * 1.02
