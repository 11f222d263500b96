"""Pictures that a device renders: where they are decides no bit, how they come to the training neither."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash

from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.train import batch as batches
from netsmith.train import rendering
from netsmith.train.augment.pipeline import Augmentation
from netsmith.train.batch import Batch, Delivery
from netsmith.train.feed import Feed
from netsmith.train.planning import Planner
from netsmith.train.rendering import Rendered, choose_rendering
from netsmith.train.trainer import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class ManySizes:
    """Pictures of many sizes, some more than others."""

    def __init__(self, count: int) -> None:
        draw = np.random.default_rng(0)
        shapes = draw.integers(9, 30, (count, 2))
        self.pictures = [draw.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self.pictures[index]


def feed(images: Any, rendered: Rendered | None, **changes: Any) -> Feed:
    augmentation = Augmentation.of(tiny_recipe(**changes), Preprocess(size=8))
    return Feed(images, np.arange(len(images)), augmentation=augmentation, batch_size=7, seed=0, rendered=rendered)


def test_kept_and_sent_pictures_give_the_same_batches() -> None:
    images = ManySizes(20)
    kept, sent = (Rendered(images, CPU, keep=keep) for keep in (True, False))
    one, other, host = (feed(images, each, auto_augment="randaugment") for each in (kept, sent, None))
    for step in range(6):
        assert torch.equal(one.batch(step).images, other.batch(step).images)
        assert torch.equal(one.batch(step).targets, host.batch(step).targets)
    assert kept.resident
    assert not sent.resident


def test_pictures_that_are_not_resized_are_the_cpus() -> None:
    data = tiny_data()
    kept = Rendered(data.images, CPU, keep=True)
    changes: dict[str, Any] = {"crop_scale": None, "pad": 2, "random_erase": 0.5}
    for step in range(8):
        found, expected = (feed(data.images, each, **changes).batch(step) for each in (kept, None))
        assert torch.equal(found.images, expected.images)


def test_they_are_kept_once_all_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    images = ManySizes(20)
    whole = np.concatenate([picture.reshape(-1) for picture in images.pictures])
    there: list[np.ndarray | None] = [None, None, whole]
    monkeypatch.setattr(rendering, "_flat", lambda images: there.pop(0))
    monkeypatch.setattr(rendering, "COPIED_AT_ONCE", 1000)
    growing = Rendered(images, CPU, keep=True)
    filled, plain = feed(images, growing), feed(images, Rendered(images, CPU, keep=False))
    states = []
    for step in (0, 1, 3):  # none of which begins in one epoch and ends in the next
        assert torch.equal(filled.batch(step).images, plain.batch(step).images)
        states.append(growing.resident)
    assert states == [False, False, True]


def test_trainings_of_the_same_pictures_share_them() -> None:
    images, others = ManySizes(20), ManySizes(20)
    one, other, apart = (
        Rendered(images, CPU, keep=True),
        Rendered(images, CPU, keep=True),
        Rendered(others, CPU, keep=True),
    )
    chosen = np.arange(4)
    pixels = one.take(chosen).pixels
    assert other.take(chosen).pixels is pixels
    assert apart.take(chosen).pixels is not pixels
    assert rendering._shared(images, CPU) is pixels
    del one, other, pixels  # and nothing keeps them when the trainings are over
    assert rendering._shared(images, CPU) is None
    assert Rendered([*images.pictures], CPU, keep=True).take(chosen).pixels.shape[1] == 3


def test_a_full_device_is_said_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(rendering, "_copied", full)
    images, said = ManySizes(20), []
    crowded, plain = Rendered(images, CPU, keep=True, warn=said.append), Rendered(images, CPU, keep=False)
    for step in range(3):
        assert torch.equal(feed(images, crowded).batch(step).images, feed(images, plain).batch(step).images)
    assert len(said) == 1
    assert "no room for the training pictures on cpu after all" in said[0]


def planner(path: Path) -> Planner:
    return Planner(Plan(path), cast(Any, SimpleNamespace(seconds=None)))


@pytest.mark.parametrize(("free", "place"), [(10**6, "resident"), (40_000, "streamed")])
def test_the_plan_says_where_pictures_are(
    free: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, said = ManySizes(20), []
    assert 0.4 * 40_000 < sum(picture.size for picture in images.pictures) < 40_000
    monkeypatch.setattr(rendering, "free_memory", lambda device: free)
    found = choose_rendering(images, CUDA, planner=planner(tmp_path / "plan"), warn=said.append)
    assert found is not None
    assert [(row.kind, row.value) for row in Plan(tmp_path / "plan").rows] == [("rendering", place)]
    assert len(said) == (place == "streamed")
    assert all("do not fit into 40% of what is free on cuda (0.00 GB): they are sent" in text for text in said)
    # Other memory on going on: the row stays, since no bit depends on it.
    monkeypatch.setattr(rendering, "free_memory", lambda device: 10**4)
    assert choose_rendering(images, CUDA, planner=planner(tmp_path / "plan"), warn=said.append) is not None
    assert len(Plan(tmp_path / "plan").rows) == 1
    # A run that began on the CPU goes on with its pictures rendered there.
    Plan(tmp_path / "host").record("rendering", "host", at=0, why="")
    assert choose_rendering(images, CUDA, planner=planner(tmp_path / "host"), warn=said.append) is None
    Plan(tmp_path / "begun").record("total_steps", 9, at=0, why="")
    assert choose_rendering(images, CUDA, planner=planner(tmp_path / "begun"), warn=said.append) is None


def test_a_cpu_has_no_row_and_obeys_one(tmp_path: Path) -> None:
    recipe = tiny_recipe(crop_scale=(0.3, 1.0), epochs=1.0)
    hashes = {}
    for place in (None, "resident", "streamed"):
        plan = Plan(tmp_path / f"{place}.jsonl")
        if place is not None:
            plan.record("rendering", place, at=0, why="")
        said: list[str] = []
        trainer = Trainer(tiny_network(), tiny_data(), recipe, plan=plan, clock=SystemClock(), warn=said.append)
        trainer.advance()
        hashes[place] = weights_hash(trainer.network)
        assert [row.value for row in plan.rows if row.kind == "rendering"] == ([place] if place else [])
        assert ["this run began on a GPU that renders pictures" in text for text in said] == [True] * bool(place)
    assert hashes["resident"] == hashes["streamed"]


class FakeStream:
    """CUDA's streams and events, noted instead of obeyed."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def __enter__(self) -> None:
        self.log.append(f"enter {self.name}")

    def __exit__(self, *_: object) -> None:
        self.log.append(f"leave {self.name}")

    def record_event(self) -> str:
        self.log.append(f"event on {self.name}")
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


class Recorded(torch.Tensor):
    """A tensor that notes which stream uses it."""

    def record_stream(self, stream: Any) -> None:
        stream.log.append(f"used on {stream.name}")


def test_batches_come_on_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    side, training = FakeStream(log, "side"), FakeStream(log, "training")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: training)
    monkeypatch.setattr(batches, "send", lambda tensor, device: log.append(f"send to {device}") or tensor)
    delivery = Delivery(CUDA)

    def make() -> Batch:
        log.append("make")
        return Batch(torch.zeros(2, 3, 4, 4).as_subclass(Recorded), torch.zeros(2).as_subclass(Recorded))

    sent = delivery.dispatch(make)
    assert log == ["enter side", "make", "send to cuda", "send to cuda", "event on side", "leave side"]
    log.clear()
    delivery.receive(sent)
    assert log == ["training waits for event of side", "used on training", "used on training"]


def test_other_devices_are_sent_to_by_the_thread_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(batches, "send", lambda tensor, device: log.append(f"{device} {tensor.stride()}") or tensor)
    images = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for kind, strides in (("mps", (48, 1, 12, 3)), ("xla", (48, 16, 4, 1))):
        delivery = Delivery(torch.device(kind))
        sent = delivery.dispatch(lambda: Batch(images, torch.zeros(2)))
        assert not log
        delivery.receive(sent)
        assert log == [f"{kind} {strides}", f"{kind} (1,)"]
        log.clear()
