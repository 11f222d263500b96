"""What a training tells and records of itself: rows, the sample of its own pictures, gradients by layer, time left."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe
from torch import nn
from torch.nn import functional as F

from netsmith.run.clock import FakeClock, SystemClock
from netsmith.run.files import read_jsonl
from netsmith.run.plan import Plan
from netsmith.train.batch import Batch
from netsmith.train.feed import Feed
from netsmith.train.metrics import Metrics
from netsmith.train.objectives import Outcome
from netsmith.train.trainer import Trainer


def make(
    folder: Path, *, network: nn.Module | None = None, clock: Any = None, show: Any = None, **changes: Any
) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(
        network or tiny_network(dropout=0.0),
        tiny_data(),
        tiny_recipe(**({"ema": None} | changes)),
        plan=Plan(folder / "plan.jsonl"),
        clock=clock or SystemClock(),
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        **({"show": show} if show else {}),
    )


def test_a_row_holds_the_means_of_the_updates_since_the_row_before(tmp_path: Path) -> None:
    """Against a plain loop over the same batches."""
    changes: dict[str, Any] = {"epochs": 2.0, "smoothing": 0.1, "nesterov": False, "momentum": 0.0, "weight_decay": 0.0}
    trainer = make(tmp_path, **changes)
    feed = Feed.of(tiny_data(), tiny_recipe(**changes), batch_size=8)
    network = tiny_network(dropout=0.0)
    losses, right = [], []
    trainer.advance()
    trainer.evaluate()
    rates = [trainer._updates.rate(step + 0.5) for step in range(trainer.total_steps)]
    for step in range(trainer.total_steps):
        batch = feed.batch(step)
        mean, std = (
            torch.tensor(each)[:, None, None] for each in (trainer.data.preprocess.mean, trainer.data.preprocess.std)
        )
        logits = network.train()((batch.images / 255 - mean) / std)
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=0.1)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(network.parameters(), gradients, strict=True):
                weight -= rates[step] * gradient
        losses.append(loss.item())
        right.append((logits.argmax(1) == batch.targets).float().mean().item())
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    before = 0
    for row in {row["step"]: row for row in rows}.values():
        assert row["loss"] == pytest.approx(np.mean(losses[before : row["step"]]), rel=1e-3)
        assert row["top1"] == pytest.approx(np.mean(right[before : row["step"]]), abs=0.05)
        assert row["side"] == 8
        before = row["step"]
    assert before == trainer.total_steps


def test_mixed_pictures_count_by_the_share_of_the_label_they_were_given(tmp_path: Path) -> None:
    metrics = Metrics(make(tmp_path).state)
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.6, 0.4]])
    logits = torch.tensor([[0.0, 5.0, 0.0], [0.0, 5.0, 0.0]])
    metrics.add(Outcome(torch.tensor(1.5), logits), Batch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), targets))
    assert metrics.top1 == pytest.approx((0.3 + 0.6) / 2)
    assert metrics.row() == {"side": 8, "loss": 1.5, "top1": pytest.approx(0.45), "grad_norm": None}
    assert metrics.row()["loss"] is None


def test_numbers_of_a_device_are_read_twenty_updates_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: (reads.append(len(self)), read(self))[1])
    monkeypatch.setattr("netsmith.train.metrics.waits_for_numbers", lambda device: True)
    metrics = Metrics(make(tmp_path).state)
    batch = Batch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    for step in range(45):
        metrics.add(Outcome(torch.tensor(float(step)), torch.eye(2)), batch)
    assert reads == [20, 20]
    assert metrics.row()["loss"] == 22.0
    assert reads == [20, 20, 5]


def test_the_end_has_answers_on_training_pictures_as_they_are(tmp_path: Path) -> None:
    trainer = make(tmp_path, epochs=12.0, lr=0.2, pad=0)
    trainer.advance()
    trainer.evaluate()
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "train" in row] == [trainer.step]
    assert rows[-1]["train"]["n"] == 20  # as many as there are validation pictures
    assert rows[-1]["train"]["top1"] >= 0.95
    assert rows[-1]["val"]["top1"] >= 0.95
    count = len(rows)
    trainer.evaluate()
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == count


def test_gradients_are_recorded_by_layer_at_marks_and_are_those_of_the_update(tmp_path: Path) -> None:
    network = tiny_network(dropout=0.0)
    trainer = make(tmp_path, network=network, epochs=4.0)
    first = trainer.feed.batch(0)
    trainer.objective.train()
    trainer.objective(first.images, first.targets).loss.backward()
    kernel = network[3].weight
    expected = kernel.grad.norm().item(), kernel.norm().item()
    trainer.objective.zero_grad()
    trainer.advance()
    rows = read_jsonl(tmp_path / "gradients.jsonl")
    assert [row["step"] for row in rows] == [0, 2, 6, 12, 18, 24]  # of 25: 1 % and the first are the same
    assert [layer["name"] for layer in rows[0]["layers"]] == ["0", "3", "9"]
    found = rows[0]["layers"][1]
    assert (found["gradient"], found["weight"]) == pytest.approx(expected, rel=1e-5)
    norms = [row["grad_norm"] for row in read_jsonl(tmp_path / "metrics.jsonl") if row["grad_norm"] is not None]
    assert min(norms) > 0


def test_a_resumed_training_records_what_the_undisturbed_one_does(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    whole.advance()
    whole.evaluate()
    first = make(tmp_path / "cut")
    first.advance(7)
    first.save()
    first.advance(11)  # rows beyond the checkpoint stay and are not written twice
    second = make(tmp_path / "cut", network=tiny_network(seed=4, dropout=0.0))
    assert second.resume()
    second.advance()
    second.save()
    third = make(tmp_path / "cut", network=tiny_network(seed=5, dropout=0.0))
    assert third.resume()  # after the last update, before its evaluation
    third.evaluate()

    def rows(name: str, file: str) -> list[dict[str, Any]]:
        measured = ("time", "seconds", "images_per_s")
        found = read_jsonl(tmp_path / name / file)
        return [{key: value for key, value in row.items() if key not in measured} for row in found]

    for file in ("metrics.jsonl", "gradients.jsonl"):
        assert rows("cut", file) == rows("whole", file)


@pytest.mark.parametrize("timed", [False, True])
def test_time_left_is_that_of_the_run(tmp_path: Path, timed: bool) -> None:
    clock = FakeClock(advance=0.01)
    told: list[tuple[float, float | None, str]] = []

    def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        told.append((clock.now(), left, note))

    length = {"epochs": None, "time_s": 30.0} if timed else {"epochs": 3.0}
    trainer = make(tmp_path, clock=clock, show=show, dtype="float32", channels_last=False, workers=0, **length)
    began = clock.now()
    trainer.advance()
    trainer.evaluate()
    for at, left, _ in told[len(told) // 3 :]:
        assert left is not None
        expected = 30.0 - (at - began) if timed else clock.now() - at
        assert left == pytest.approx(expected, abs=0.5 if timed else 0.35 * expected + 0.5)
    assert "top-1" in told[-1][2]
    assert "images/s" in told[-1][2]


def test_vanishing_gradients_are_told_while_there_is_time_to_stop(tmp_path: Path) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.Sigmoid()) for _ in range(10)))
            self.first, self.last = nn.Linear(3 * 8 * 8, 16), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.layers(self.first(x.flatten(1)).sigmoid()))

    said: list[str] = []
    trainer = Trainer(
        Deep(),
        tiny_data(),
        tiny_recipe(epochs=4.0),
        plan=Plan(tmp_path / "plan.jsonl"),
        clock=SystemClock(),
        warn=said.append,
    )
    trainer.advance(4)
    assert len(said) == 1
    assert said[0].startswith("vanishing gradients: against their weights the first layers get 1/")
    trainer.advance()
    assert len(said) == 1
