"""Threads are measured again where other programs take the cores and where they give them back; a plan is obeyed."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import Tensor, nn

from netsmith.run.clock import FakeClock
from netsmith.run.machine import machine
from netsmith.run.plan import Plan
from netsmith.train import precision
from netsmith.train.trainer import Trainer

SECONDS = 60.0


Cost = Callable[[float, int], float]
"""Seconds of a batch of 8 at a time with a number of threads."""


def taken(begin: float, end: float, *, alone: float = 0.05) -> Cost:
    """Two threads are faster than one, but where a core is taken far slower."""
    return lambda now, threads: alone if threads == 1 else 0.12 if begin <= now < end else 0.03


def both_taken(end: float) -> Cost:
    """Both cores are taken until then: one thread is a little faster, and both are slow."""
    return lambda now, threads: (0.09 if threads == 1 else 0.12) if now < end else taken(0.0, 0.0)(now, threads)


class OnTwoCores(nn.Module):
    """Takes time on a fake clock."""

    def __init__(self, clock: FakeClock, cost: Cost) -> None:
        super().__init__()
        self.inner = tiny_network()
        self.clock, self.cost = clock, cost

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnTwoCores":
        twin = OnTwoCores(self.clock, self.cost)
        twin.inner.load_state_dict(self.inner.state_dict())
        return twin

    def forward(self, x: Tensor) -> Tensor:
        self.clock.tick(self.cost(self.clock.now(), torch.get_num_threads()) * len(x) / 8)
        return self.inner(x)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before, here = torch.get_num_threads(), machine().model_copy(update={"cores_usable": 2, "flags": []})
    monkeypatch.setattr(precision, "machine", lambda: here)
    yield
    torch.set_num_threads(before)


def make(folder: Path, clock: FakeClock, cost: Cost, **more: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    warn: Any = more.pop("warn", None) or (lambda text: None)
    return Trainer(
        OnTwoCores(clock, cost),
        tiny_data(),
        tiny_recipe(**({"epochs": None, "time_s": SECONDS, "threads": None} | more)),
        plan=Plan(folder / "plan.jsonl"),
        clock=clock,
        checkpoints=folder / "checkpoints",
        checkpoint_seconds=1e9,
        warn=warn,
    )


def threads_planned(trainer: Trainer) -> list[int]:
    return [row.value for row in trainer._planner.plan.rows if row.kind == "threads"]


def test_threads_follow_the_cores_that_are_free(tmp_path: Path) -> None:
    clock, said = FakeClock(), list[str]()
    trainer = make(tmp_path / "a", clock, taken(18.0, 36.0), warn=said.append)
    trainer.advance()
    assert threads_planned(trainer) == [2, 1, 2]
    assert "other programs want the cores" in said[0]
    assert "cores are free again" in said[1]
    assert 57.0 <= clock.now() <= 61.2
    other = FakeClock()
    kept = make(tmp_path / "kept", other, taken(18.0, 36.0), threads=2)
    kept.advance()
    assert threads_planned(kept) == [2]
    assert trainer.step > 1.05 * kept.step
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/plan.jsonl", tmp_path / "b/plan.jsonl")
    replayed = make(tmp_path / "b", FakeClock(advance=0.01), taken(0.0, 1e9))
    replayed.advance(trainer.step - 1)
    assert torch.get_num_threads() == 2
    replayed.advance()
    assert weights_hash(replayed.network) == weights_hash(trainer.network)
    assert (tmp_path / "a/plan.jsonl").read_bytes() == (tmp_path / "b/plan.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("cost", "best", "again"),
    [(taken(0.0, 0.0), 2, 0), (taken(0.0, 0.0, alone=0.025), 1, 1), (taken(0.0, 1e9), 1, 3)],
    ids=["two are faster", "one suits the network", "a core is taken all the time"],
)
def test_a_steady_machine_is_asked_again_only_where_a_core_seems_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: Cost, best: int, again: int
) -> None:
    clock = FakeClock()
    trainer = make(tmp_path, clock, cost)
    made: list[int] = []
    timed = trainer._threads._timed
    monkeypatch.setattr(trainer._threads, "_timed", lambda step: made.append(step) or timed(step))
    trainer.advance()
    assert threads_planned(trainer) == [best]
    assert len(made) >= again if again > 1 else len(made) == again
    assert clock.now() <= 61.2


@pytest.mark.parametrize("cost", [taken(0.0, 20.0), both_taken(20.0)], ids=["one core was taken", "both were"])
def test_a_run_that_began_beside_others_takes_the_cores_when_they_are_free(tmp_path: Path, cost: Cost) -> None:
    clock, said = FakeClock(), list[str]()
    trainer = make(tmp_path, clock, cost, warn=said.append)
    trainer.advance()
    assert threads_planned(trainer) == [1, 2]
    assert "cores are free again" in said[0]
    assert 57.0 <= clock.now() <= 61.2


def test_measuring_again_has_its_share_of_the_time_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine seems to change whenever it is looked at, and no number of threads is better."""
    clock = FakeClock()
    trainer = make(tmp_path, clock, taken(0.0, 0.0))
    spent: list[float] = []

    def timed(step: int) -> Any:
        began = clock.now()
        found = original(step)
        spent.append(clock.now() - began)
        assert sum(spent) <= 0.06 * clock.now()
        return found

    original = trainer._threads._timed
    monkeypatch.setattr(trainer._threads, "_timed", timed)
    for step in range(20, 10_000, 20):
        trainer._pacing.costs.slowdown = 10.0
        trainer.advance(step)
        if trainer.finished:
            break
    assert len(spent) > 3
    assert sum(spent) > 0.03 * SECONDS
    assert not spent[-1], "with little time left it does not pay"
    assert threads_planned(trainer) == [2]
    assert clock.now() <= 61.2


def test_a_run_that_is_killed_and_gone_on_with_obeys_the_rows(tmp_path: Path) -> None:
    clock = FakeClock()
    first = make(tmp_path / "a", clock, taken(18.0, 36.0))
    first.advance(450)
    assert threads_planned(first) == [2]
    first.save()
    first.advance(900)  # beyond the row, then killed
    assert threads_planned(first)[:2] == [2, 1]
    rows = first._planner.plan.rows
    second = make(tmp_path / "a", FakeClock(), taken(0.0, 0.0))
    assert second.resume()
    assert second.step == 450
    second.advance(900)
    assert second._planner.plan.rows == rows
    assert weights_hash(second.network) == weights_hash(first.network)


@pytest.mark.parametrize("asked", [{"threads": 2}, {"epochs": 3.0, "time_s": None}])
def test_threads_that_were_asked_for_or_a_run_without_time_stay(tmp_path: Path, asked: dict[str, Any]) -> None:
    trainer = make(tmp_path, FakeClock(), taken(0.5, 1e9), **asked)
    trainer.advance()
    assert threads_planned(trainer) == [2]
