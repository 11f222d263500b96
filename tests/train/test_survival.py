"""What a run outlives: memory that is too small for its batch, losses that are not finite."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import Tensor, nn

from netsmith.errors import CheckError, InputError
from netsmith.run.clock import FakeClock, SystemClock
from netsmith.run.files import read_jsonl
from netsmith.run.plan import Plan
from netsmith.train.evaluate import evaluate_network
from netsmith.train.shortage import says_out_of_memory
from netsmith.train.trainer import Trainer

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore lines of advice.")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 "
    "bytes. Error code 12 (Cannot allocate memory)"
)


class Fragile(nn.Module):
    """The tiny network with accidents in its forward call, behind layers that have already changed their statistics.

    Attributes:
        most: pictures that memory is large enough for, and the error where it is not.
        poisoned: numbers of training calls whose output is NaN.
    """

    def __init__(self, seed: int = 0, batch_norm: bool = True) -> None:
        super().__init__()
        inner = tiny_network(seed=seed)
        assert isinstance(inner, nn.Sequential)
        if not batch_norm:
            inner[1], inner[4] = nn.Identity(), nn.Identity()
        self.inner = inner
        self.most, self.error = 10**9, CUDA
        self.from_call = 0
        self.poisoned: set[int] = set()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        x = self.inner[:4](x)
        if self.training and len(x) > self.most and self.calls > self.from_call:
            raise self.error
        x = self.inner[4:](x)
        return x * float("nan") if self.training and self.calls in self.poisoned else x


class Crowded(Fragile):
    """Memory is large enough for one of its kind at a time, however many ways to compute are tried."""

    alive: ClassVar[WeakSet["Crowded"]] = WeakSet()

    def forward(self, x: Tensor) -> Tensor:
        Crowded.alive.add(self)
        if len(Crowded.alive) > 1:
            raise AssertionError("a second copy of the network is alive")
        return super().forward(x)


def make(folder: Path, network: nn.Module, *, said: list[str] | None = None, **changes: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    options = {name: changes.pop(name) for name in ("clock", "checkpoint_seconds", "seconds") if name in changes}
    return Trainer(
        network,
        tiny_data(),
        tiny_recipe(**changes),
        plan=Plan(folder / "plan.jsonl"),
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        warn=(said if said is not None else []).append,
        **({"clock": SystemClock()} | options),
    )


def rows(folder: Path, kind: str) -> list[tuple[int, Any]]:
    return [(row.at, row.value) for row in Plan(folder / "plan.jsonl").rows if row.kind == kind]


def replayed(folder: Path, target: Path, **changes: Any) -> Trainer:
    """The plan of a run obeyed by one that meets no accident."""
    target.mkdir()
    shutil.copy(folder / "plan.jsonl", target / "plan.jsonl")
    trainer = make(target, Fragile(), **changes)
    trainer.advance()
    assert (target / "plan.jsonl").read_bytes() == (folder / "plan.jsonl").read_bytes()
    return trainer


# Memory


@pytest.mark.parametrize("error", [CUDA, CPU, RuntimeError("std::bad_alloc"), MemoryError()])
@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_too_little_memory_divides_the_batch_and_replays_to_the_same_bits(
    tmp_path: Path, error: Exception, opt: str
) -> None:
    said: list[str] = []
    network = Fragile()
    network.most, network.error, network.from_call = 3, error, 5
    trainer = make(tmp_path / "a", network, said=said, opt=opt, lr=0.02)
    trainer.advance()
    assert trainer.finished
    assert rows(tmp_path / "a", "grad_accum") == [(5, 2), (5, 4)]
    assert len(said) == 2
    for part in ("memory ran out with 4 pictures at once at step 5", "2 pictures at once, in 4 parts", "batch of 8"):
        assert part in said[1], said
    assert weights_hash(replayed(tmp_path / "a", tmp_path / "b", opt=opt, lr=0.02).network) == weights_hash(
        trainer.network
    )
    whole = make(tmp_path / "c", Fragile(), opt=opt, lr=0.02)
    whole.advance()
    assert weights_hash(whole.network) != weights_hash(trainer.network)  # batch norm saw other batches


def test_without_batch_norm_the_divided_batch_is_the_whole_one(tmp_path: Path) -> None:
    def trained(name: str, most: int) -> list[Tensor]:
        network = Fragile(batch_norm=False)
        network.inner[6] = nn.Identity()  # dropout draws by the call
        network.most = most
        trainer = make(tmp_path / name, network, lr=0.02, epochs=1.0)
        trainer.advance()
        return list(trainer.network.state_dict().values())

    for one, other in zip(trained("a", 10**9), trained("b", 1), strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-6
    assert rows(tmp_path / "b", "grad_accum") == [(0, 2), (0, 4), (0, 8)]


def test_a_run_that_was_divided_goes_on_divided(tmp_path: Path) -> None:
    network = Fragile()
    network.most, network.from_call = 5, 9
    first = make(tmp_path / "a", network)
    first.advance(7)
    first.save()
    first.advance()
    again = make(tmp_path / "a", Fragile(seed=4))
    assert again.resume()  # before the row, which is obeyed when its step comes
    assert again.step == 7
    again.advance()
    assert weights_hash(again.network) == weights_hash(first.network)
    assert rows(tmp_path / "a", "grad_accum") == [(9, 2)]


def test_a_smaller_machine_divides_earlier_than_the_plan(tmp_path: Path) -> None:
    network = Fragile()
    network.most, network.from_call = 5, 9
    make(tmp_path / "a", network).advance()
    smaller = Fragile()
    smaller.most, smaller.from_call = 3, 4
    trainer = make(tmp_path / "a", smaller)
    trainer.advance()
    assert rows(tmp_path / "a", "grad_accum") == [(9, 2), (4, 2), (4, 4)]
    assert weights_hash(replayed(tmp_path / "a", tmp_path / "b").network) == weights_hash(trainer.network)


@pytest.mark.parametrize(("batch_norm", "fewest"), [(True, "2 pictures at once"), (False, "1 picture at once")])
def test_memory_for_nothing_is_one_sentence(tmp_path: Path, batch_norm: bool, fewest: str) -> None:
    network = Fragile(batch_norm=batch_norm)
    network.most = 0
    trainer = make(tmp_path, network)
    with pytest.raises(CheckError) as caught:
        trainer.advance()
    text = str(caught.value)
    assert fewest in text
    assert "CUDA out of memory. Tried to allocate 20.00 MiB." in text
    assert "advice" not in text
    assert "smaller --img-size or network" in text
    assert trainer.step == 0


def test_memory_for_the_optimizer_is_no_matter_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path, Fragile())

    def short(*args: object) -> None:
        raise CPU

    monkeypatch.setattr(trainer.state.optimizer, "step", short)
    with pytest.raises(CheckError, match=r"no memory for the optimizer's step .*--opt sgd"):
        trainer.advance()
    assert rows(tmp_path, "grad_accum") == []


def test_other_errors_of_the_forward_call_are_not_taken_for_memory(tmp_path: Path) -> None:
    network = Fragile()
    network.most, network.error = 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        make(tmp_path, network).advance()
    assert not says_out_of_memory(ValueError("out of memory"))


def test_parts_of_the_recipe_need_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--grad-accum 5 .* batch norm needs 2 in each; give at most 4"):
        make(tmp_path / "a", Fragile(), grad_accum=5)
    with pytest.raises(InputError, match=r"--grad-accum 9 is too many parts for a batch of 8 pictures; give at most 8"):
        make(tmp_path / "b", Fragile(batch_norm=False), grad_accum=9)
    divided = make(tmp_path / "c", Fragile(), grad_accum=4)
    divided.advance(3)
    assert divided.objective.network.calls == 12  # pyright: ignore
    assert rows(tmp_path / "c", "grad_accum") == []


def test_memory_too_small_for_measuring_is_no_matter_of_the_run(tmp_path: Path) -> None:
    network = Fragile()
    network.most = 3
    trainer = make(tmp_path / "a", network, epochs=None, time_s=2.0)
    assert rows(tmp_path / "a", "grad_accum") == []
    trainer.advance(3)
    assert rows(tmp_path / "a", "grad_accum") == [(0, 2), (0, 4)], "its own updates met the shortage"
    make(tmp_path / "b", Crowded(), epochs=None, time_s=2.0, clock=FakeClock(), threads=None).advance()
    assert rows(tmp_path / "b", "dtype")
    assert rows(tmp_path / "b", "grad_accum") == []


class Judged(nn.Module):
    """Answers with a picture's first pixel, and has memory for `most` pictures."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.most, self.error = most, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error
        return x[:, 0, 0, :1] * self.scale


@pytest.mark.parametrize("error", [CUDA, CPU])
def test_an_evaluation_that_runs_out_of_memory_goes_on_with_fewer_pictures(error: Exception) -> None:
    data = tiny_data(val=23)
    mean, std = data.preprocess.mean, data.preprocess.std

    def logits(most: int) -> NDArray[np.float32]:
        found = evaluate_network(Judged(most, error), data.val_pixels, data.val_labels, mean=mean, std=std)
        return found.logits

    assert np.array_equal(logits(3), logits(99))
    with pytest.raises(CheckError, match="too small to evaluate one picture"):
        logits(0)
    with pytest.raises(RuntimeError, match="shapes"):
        evaluate_network(Judged(0, RuntimeError("shapes")), data.val_pixels, data.val_labels, mean=mean, std=std)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's size as Linux gives it")
def test_memory_that_is_really_too_small(tmp_path: Path) -> None:
    def run(name: str, mebibytes: int) -> list[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NETSMITH_KEEP_MEMORY": "0"}
        script = Path(__file__).with_name("starved_training.py")
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / name), str(mebibytes)],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    *said, weights = run("starved", 150)
    assert rows(tmp_path / "starved", "grad_accum")
    assert all(text.startswith("memory ran out with") for text in said)
    (tmp_path / "fed").mkdir()
    shutil.copy(tmp_path / "starved/plan.jsonl", tmp_path / "fed/plan.jsonl")
    assert run("fed", 8000) == [weights]


# Losses that are not finite


def test_a_rewound_run_goes_on_at_half_the_rate_and_replays_to_the_same_bits(tmp_path: Path) -> None:
    said: list[str] = []
    network = Fragile()
    network.poisoned = {12, 17}  # the first time at step 11, the second on the way there from step 6
    trainer = make(tmp_path / "a", network, said=said, on_nan="rewind", checkpoint_seconds=1e9)
    trainer.advance(6)
    trainer.save()
    trainer.advance()
    assert trainer.finished
    assert rows(tmp_path / "a", "lr_factor") == [(6, 0.5), (6, 0.25)]
    assert "going on from step 6 at 0.25 of the learning rate (rewind 2 of 3)" in said[1]
    other = replayed(tmp_path / "a", tmp_path / "b", on_nan="rewind", checkpoint_seconds=1e9)
    assert weights_hash(other.network) == weights_hash(trainer.network)
    told = [
        [(row["step"], row["lr"], row["loss"], row.get("val")) for row in read_jsonl(tmp_path / name / "metrics.jsonl")]
        for name in "ab"
    ]
    assert told[0] == told[1]  # nothing of the ways that were given up
    plain = make(tmp_path / "c", Fragile())
    plain.advance()
    assert weights_hash(plain.network) != weights_hash(trainer.network)


def test_a_rewound_run_that_is_stopped_goes_on_with_its_rows(tmp_path: Path) -> None:
    def run(name: str, *stops: int) -> str:
        network = Fragile()
        network.poisoned = {9}
        trainer = make(tmp_path / name, network, on_nan="rewind", checkpoint_seconds=1e9)
        for stop in stops:
            trainer.advance(stop)
            trainer.save()
            trainer = make(tmp_path / name, Fragile(seed=stop), on_nan="rewind", checkpoint_seconds=1e9)
            trainer.resume()
        trainer.advance()
        return weights_hash(trainer.network)

    assert run("a", 10, 14) == run("b")


def test_a_loss_before_the_first_checkpoint_goes_back_to_the_start(tmp_path: Path) -> None:
    network = Fragile()
    network.poisoned = {1}
    trainer = make(tmp_path, network, on_nan="rewind")
    trainer.advance(4)
    assert rows(tmp_path, "lr_factor") == [(0, 0.5)]


def test_three_rewinds_and_no_more(tmp_path: Path) -> None:
    said: list[str] = []
    network = Fragile()
    network.poisoned = set(range(5, 1000))
    trainer = make(tmp_path, network, said=said, on_nan="rewind")
    with pytest.raises(CheckError, match="the run was rewound 3 times, try a smaller --lr or --clip-grad 1$"):
        trainer.advance()
    assert rows(tmp_path, "lr_factor") == [(0, 0.5), (0, 0.25), (0, 0.125)]
    assert len(said) == 3


def test_without_rewinding_the_sentence_says_what_is_known(tmp_path: Path) -> None:
    network = Fragile()
    network.poisoned = {5, 6, 7}
    trainer = make(tmp_path, network)
    with pytest.raises(CheckError) as caught:
        trainer.advance()
    text = str(caught.value)
    for part in (
        "the loss is not finite at step 4 (epoch 0.64, learning rate 0.0",
        "its logits are finite",
        "largest gradient norms ",
        "inner.9 ",
        "--on-nan rewind",
    ):
        assert part in text, text


def test_a_rewound_timed_run_keeps_its_time(tmp_path: Path) -> None:
    class Slow(Fragile):
        def forward(self, x: Tensor) -> Tensor:
            clock.tick(0.5 if self.training else 0.0)
            return super().forward(x)

        def __deepcopy__(self, memo: dict[int, Any]) -> "Slow":
            return Slow()

    clock = FakeClock()
    network = Slow()
    network.poisoned = {150}
    settings: dict[str, Any] = {"epochs": None, "time_s": 100.0, "on_nan": "rewind", "checkpoint_seconds": 20.0}
    trainer = make(tmp_path / "a", network, clock=clock, **settings)
    trainer.advance()
    assert len(rows(tmp_path / "a", "lr_factor")) == 1
    assert 90.0 <= clock.now() <= 102.0
    other = replayed(tmp_path / "a", tmp_path / "b", **(settings | {"clock": FakeClock()}))
    assert weights_hash(other.network) == weights_hash(trainer.network)
