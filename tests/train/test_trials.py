"""Trials leave the network alone and fit into their time, and a run needs none of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import Tensor, nn

from netsmith.run.clock import Clock, FakeClock, SystemClock
from netsmith.run.plan import Plan
from netsmith.train import trials as module
from netsmith.train.feed import Batch
from netsmith.train.objectives import Classify
from netsmith.train.pacing import Pacing
from netsmith.train.precision import Precision
from netsmith.train.shortage import NoMemory
from netsmith.train.trainer import Trainer
from netsmith.train.trials import FEWEST, Trials

FP32, BF16 = Precision("float32", True), Precision("bfloat16", True)


class Timed(nn.Module):
    """Takes `seconds` per picture on a fake clock, half in bfloat16."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self.inner = tiny_network()
        self.clock, self.seconds = clock, seconds

    def __deepcopy__(self, memo: dict[int, object]) -> "Timed":
        return Timed(self.clock, self.seconds)

    def forward(self, x: Tensor) -> Tensor:
        self.clock.tick(len(x) * self.seconds * (0.5 if torch.is_autocast_enabled("cpu") else 1.0))
        return self.inner(x)


def batch() -> Batch:
    return Batch(torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64))


def trials(network: nn.Module, clock: Clock, *, per_step: float = 0.0, **more: Any) -> Trials:
    pacing = Pacing(clock, seconds=100.0, checkpoint_seconds=10.0, evaluation_steps=0.0)
    pacing.per_step = per_step
    objective = Classify(network, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Trials(objective, tiny_recipe(), batch, pacing=pacing, clock=clock, **more)


def test_the_network_and_torch_are_as_before() -> None:
    network = tiny_network()
    before, threads = weights_hash(network), torch.get_num_threads()
    found = trials(network, SystemClock())
    assert len(found.precisions([FP32, BF16], 1.0)) >= 1
    found.threads([threads, threads + 1], 0.5, precision=BF16)
    assert weights_hash(network) == before
    assert torch.get_num_threads() == threads
    assert not any("forward" in vars(module) for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("seconds", [0.0001, 0.005, 0.02])
def test_the_time_of_a_whole_batch_comes_out_whatever_was_timed(seconds: float) -> None:
    clock = FakeClock()
    found = trials(Timed(clock, seconds), clock).precisions([FP32, BF16], 2.0)
    assert [timing.way for timing in found] == [FP32, BF16]
    assert [timing.seconds for timing in found] == pytest.approx([64 * seconds, 32 * seconds])
    assert clock.now() <= 1.5 * 2.0 + 2 * FEWEST * seconds


class Threaded(Timed):
    """Three times as slow with several threads."""

    def __deepcopy__(self, memo: dict[int, object]) -> "Threaded":
        return Threaded(self.clock, self.seconds)

    def forward(self, x: Tensor) -> Tensor:
        self.clock.tick(len(x) * self.seconds * (1.0 if torch.get_num_threads() == 1 else 3.0))
        return self.inner(x)


def test_every_number_of_threads_is_timed_with_its_own() -> None:
    clock, threads = FakeClock(), torch.get_num_threads()
    try:
        found = trials(Threaded(clock, 0.001), clock, per_step=0.064).threads([2, 1], 5.0, precision=FP32)
    finally:
        torch.set_num_threads(threads)
    assert [timing.seconds for timing in found] == pytest.approx([3 * 0.064, 0.064])


def test_where_nothing_fits_the_default_stands_after_two_small_updates() -> None:
    clock = FakeClock()
    found = trials(Timed(clock, 1.0), clock).precisions([FP32, BF16], 2.0)
    assert [timing.way for timing in found] == [FP32]
    assert found[0].seconds == pytest.approx(64.0)
    assert clock.now() == pytest.approx(2 * FEWEST)


def test_a_known_pace_is_not_measured_again() -> None:
    clock = FakeClock()
    found = trials(Timed(clock, 1.0), clock, per_step=64.0).threads([1, 2], 1.0, precision=FP32)
    assert [timing.way for timing in found] == [1]
    assert clock.now() == 0.0


class Narrow(nn.Module):
    """Too little memory for more than `most` pictures at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.inner, self.most = tiny_network(), most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.inner(x)


def test_memory_that_runs_out_while_measuring_divides_what_is_timed() -> None:
    found = trials(Narrow(10), SystemClock()).precisions([FP32], 1.0)
    assert found[0].seconds > 0


class OnlyOnce(nn.Module):
    """Fits into memory once: its copy cannot be made, or cannot be updated; updates take their time on a fake clock."""

    def __init__(self, clock: FakeClock, short_of: str, *, copied: bool = False) -> None:
        super().__init__()
        self.inner, self.clock, self.short_of, self.copied = tiny_network(), clock, short_of, copied

    def __deepcopy__(self, memo: dict[int, object]) -> "OnlyOnce":
        if self.short_of == "copy":
            raise MemoryError
        return OnlyOnce(self.clock, self.short_of, copied=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.copied and self.short_of == "update":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.training:
            self.clock.tick(0.05)
        return self.inner(x)


@pytest.fixture(params=["copy", "update", "optimizer"])
def only_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OnlyOnce:
    build = module.build_optimizer

    def short(*of: Any) -> torch.optim.Optimizer:
        optimizer = build(*of)

        def step() -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

        monkeypatch.setattr(optimizer, "step", step)
        return optimizer

    if request.param == "optimizer":
        monkeypatch.setattr(module, "build_optimizer", short)
    return OnlyOnce(FakeClock(), request.param)


def test_no_room_for_a_copy_is_one_error_whatever_it_was(only_once: OnlyOnce) -> None:
    threads = torch.get_num_threads()
    found = trials(only_once, only_once.clock)
    with pytest.raises(NoMemory, match="there is no memory for|memory ran out"):
        found.precisions([FP32, BF16], 1.0)
    with pytest.raises(NoMemory):
        found.threads([threads, threads + 1], 1.0, precision=FP32)
    assert torch.get_num_threads() == threads
    if only_once.short_of == "copy":
        with pytest.raises(NoMemory, match="a copy of the network, on which ways to compute are timed"):
            found.precisions([FP32], 1.0)


def test_a_run_that_fits_once_trains_for_its_time_without_comparing(tmp_path: Path, only_once: OnlyOnce) -> None:
    said: list[str] = []
    plan, recipe = Plan(tmp_path / "plan.jsonl"), tiny_recipe(epochs=None, time_s=10.0, ema=None)
    trainer = Trainer(only_once, tiny_data(), recipe, plan=plan, clock=only_once.clock, warn=said.append)
    trainer.advance()
    trainer.evaluate()
    assert trainer.finished
    assert 0.93 * 10.0 < trainer.seconds <= 1.02 * 10.0
    assert {row.kind: row.value for row in plan.rows if row.kind in ("dtype", "channels_last", "grad_accum")} == {
        "dtype": "float32",
        "channels_last": True,
    }
    [told] = [text for text in said if "memory" in text]
    first = "dtype, layout and threads are the first of each and not the fastest; --amp and --threads choose others"
    assert told.endswith(first)


def test_other_errors_of_a_trial_are_no_matter_of_memory() -> None:
    class Broken(Timed):
        def __deepcopy__(self, memo: dict[int, object]) -> "Broken":
            return Broken(self.clock, self.seconds)

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trials(Broken(FakeClock(), 0.1), FakeClock()).precisions([FP32], 1.0)


def test_measuring_is_shown_with_its_share_of_the_time() -> None:
    clock, shown = FakeClock(), list[tuple[str, float, float | None]]()

    def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        shown.append((title, done, total))

    found = trials(Timed(clock, 0.001), clock, show=show)
    found.precisions([FP32, BF16], 2.0)
    assert len(shown) > 8
    assert {(title, total) for title, _, total in shown} == {("measuring dtypes and layouts", 2.0)}
    assert [done for _, done, _ in shown] == sorted(done for _, done, _ in shown)
    assert 0.1 < shown[-1][1] <= 2.0
    found.threads([torch.get_num_threads()], 1.0, precision=FP32)
    assert shown[-1][0] == "measuring threads"
