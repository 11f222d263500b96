"""The loop as a whole: repeats, pieces, time, replay, what stops it and what does not."""

import errno
import json
import os
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import Tensor, nn

from netsmith.errors import CheckError, InputError
from netsmith.fit.session import spent_before
from netsmith.run.clock import FakeClock, SystemClock
from netsmith.run.files import read_jsonl
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan
from netsmith.train import records as module
from netsmith.train.checkpoints import steps_saved
from netsmith.train.interrupt import Interrupted
from netsmith.train.loop import train
from netsmith.train.planning import Planner
from netsmith.train.timing import MARKS
from netsmith.train.trainer import Trainer


def make(folder: Path, *, network: nn.Module | None = None, **changes: Any) -> Trainer:
    options = {
        name: changes.pop(name)
        for name in ("clock", "show", "warn", "checkpoint_seconds", "seconds")
        if name in changes
    }
    folder.mkdir(exist_ok=True)
    return Trainer(
        network or tiny_network(),
        changes.pop("data", None) or tiny_data(),
        tiny_recipe(**changes),
        plan=Plan(folder / "plan.jsonl"),
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        **({"clock": SystemClock()} | options),
    )


def test_learns_and_records(tmp_path: Path) -> None:
    trainer = make(tmp_path, epochs=12.0, lr=0.2, pad=0)
    trainer.advance()
    evaluation = trainer.evaluate()
    assert evaluation is not None
    assert trainer.finished
    assert trainer.step == trainer.total_steps == 75
    assert evaluation.top1.value >= 0.95
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert len([row for row in rows if "val" in row]) == 12  # every epoch
    assert len(rows) >= 50
    assert rows[-1]["val"] == {
        "top1": evaluation.top1.value,
        "top5": evaluation.points["top5"],
        "loss": evaluation.loss,
    }
    assert rows[-1]["images_per_s"] > 0
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})


@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "muon"])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path, opt: str) -> None:
    def bits(name: str, **changes: Any) -> str:
        trainer = make(tmp_path / name, opt=opt, lr=0.02, **changes)
        trainer.advance()
        return weights_hash(trainer.network)

    first = bits("a")
    torch.rand(7)  # torch's generator plays no part
    assert bits("b") == first
    assert bits("c", workers=0) == first
    assert bits("d", seed=1) != first


@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "muon"])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_stopping_anywhere_and_going_on_changes_no_bit(tmp_path: Path, opt: str, ema: float | None) -> None:
    settings: dict[str, Any] = {"opt": opt, "ema": ema, "lr": 0.02, "dtype": "bfloat16", "epochs": 2.0}
    whole = make(tmp_path / "whole", **settings)
    whole.advance()
    for stop in (0, 1, 7, 12):
        folder = tmp_path / f"stopped{stop}"
        first = make(folder, **settings)
        first.advance(stop)
        first.save()
        second = make(folder, network=tiny_network(seed=99), **settings)
        assert second.resume()
        assert second.step == stop
        second.advance()
        assert weights_hash(second.network) == weights_hash(whole.network)
        assert weights_hash(second.state.network) == weights_hash(whole.state.network)


def test_pieces_are_the_whole(tmp_path: Path) -> None:
    whole, pieces = make(tmp_path / "a"), make(tmp_path / "b")
    whole.advance()
    for until in (1, 1, 5, 18, None):
        pieces.advance(until)
        pieces.evaluate()
    assert weights_hash(pieces.network) == weights_hash(whole.network)


class Costly(nn.Module):
    """Takes time on a fake clock: in training, for a batch of 8, by a pattern, in evaluation a third of it."""

    def __init__(self, clock: FakeClock, costs: list[float]) -> None:
        super().__init__()
        self.inner = tiny_network()
        self.clock, self.costs, self.calls = clock, costs, 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "Costly":
        twin = Costly(self.clock, self.costs)
        twin.inner.load_state_dict(self.inner.state_dict())
        return twin

    def forward(self, x: Tensor) -> Tensor:
        cost = self.costs[self.calls % len(self.costs)]
        self.calls += self.training
        self.clock.tick(cost * len(x) / 8 if self.training else cost / 3)
        return self.inner(x)


@pytest.mark.parametrize(
    "costs", [[0.5], [0.5] * 60 + [1.5] * 60, [1.5] * 60 + [0.5] * 60, [0.2, 0.9, 0.5, 0.3, 1.2], [11.0]]
)
def test_a_timed_run_keeps_to_its_time_and_replays_to_the_same_bits(tmp_path: Path, costs: list[float]) -> None:
    clock = FakeClock()
    trainer = make(tmp_path / "a", network=Costly(clock, costs), clock=clock, epochs=None, time_s=100.0)
    trainer.advance()
    trainer.evaluate()
    assert trainer.seconds == pytest.approx(clock.now())
    assert clock.now() <= 102.0
    assert clock.now() >= (95.0 if max(costs) < 5 else 70.0)
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/plan.jsonl", tmp_path / "b/plan.jsonl")
    other = FakeClock(advance=0.01)
    replayed = make(tmp_path / "b", network=Costly(other, [3.0]), clock=other, epochs=None, time_s=100.0)
    replayed.advance()
    assert weights_hash(replayed.network) == weights_hash(trainer.network)
    assert (tmp_path / "a/plan.jsonl").read_bytes() == (tmp_path / "b/plan.jsonl").read_bytes()


def test_a_machine_that_becomes_twenty_times_slower_between_two_marks_is_noticed(tmp_path: Path) -> None:
    clock = FakeClock()
    costs = [0.1] * 560 + [2.0] * 1000
    trainer = make(tmp_path / "a", network=Costly(clock, costs), clock=clock, epochs=None, time_s=100.0)
    trainer.advance()
    trainer.evaluate()
    assert clock.now() <= 105.0
    assert trainer.progress == 1.0
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/plan.jsonl", tmp_path / "b/plan.jsonl")
    other = FakeClock(advance=0.01)
    replayed = make(tmp_path / "b", network=Costly(other, [3.0]), clock=other, epochs=None, time_s=100.0)
    replayed.advance()
    assert weights_hash(replayed.network) == weights_hash(trainer.network)
    assert (tmp_path / "a/plan.jsonl").read_bytes() == (tmp_path / "b/plan.jsonl").read_bytes()


def test_one_update_that_waits_long_changes_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    trainer = make(
        tmp_path, network=Costly(clock, [0.1] * 560 + [5.0] + [0.1] * 1000), clock=clock, epochs=None, time_s=100.0
    )
    trainer.advance()
    trainer.evaluate()
    assert clock.now() <= 105.0
    assert trainer.step > 900
    assert len(trainer._planner.lengths) == 1 + len(MARKS), "planned at marks alone"


@pytest.mark.parametrize("replayed", [True, False])
def test_a_replay_that_is_slow_plans_nothing_that_its_run_did_not(tmp_path: Path, *, replayed: bool) -> None:
    clock = FakeClock()
    first = make(tmp_path / "a", network=Costly(clock, [0.1]), clock=clock, epochs=None, time_s=100.0)
    first.advance(560)  # between two marks, as the loser of a race
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/plan.jsonl", tmp_path / "b/plan.jsonl")
    other = FakeClock(advance=0.01)
    again = make(
        tmp_path / "b", network=Costly(other, [0.1] * 530 + [3.0] * 1000), clock=other, epochs=None, time_s=100.0
    )
    again._planner.plan.replayed = replayed
    again.advance(560)
    same = (tmp_path / "a/plan.jsonl").read_bytes() == (tmp_path / "b/plan.jsonl").read_bytes()
    assert same == replayed


def test_a_first_measurement_that_was_far_off_does_not_end_training(tmp_path: Path) -> None:
    """A few pictures take thirty times as long as a whole batch, as where the machine was busy just then."""
    clock = FakeClock()

    class Disturbed(Costly):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and len(x) < 8:
                clock.tick(3.0)
            return super().forward(x)

        def __deepcopy__(self, memo: dict[int, Any]) -> "Disturbed":
            return Disturbed(self.clock, self.costs)

    network = Disturbed(clock, [0.1])
    trainer = make(tmp_path, network=network, clock=clock, epochs=None, time_s=15.0)
    assert trainer.total_steps == 1
    trainer.advance()
    trainer.evaluate()
    assert 14.0 <= clock.now() <= 15.3
    assert trainer.step > 50


def test_a_timed_run_that_is_resumed_has_only_the_time_that_was_left(tmp_path: Path) -> None:
    clock = FakeClock()
    settings: dict[str, Any] = {"epochs": None, "time_s": 100.0}
    first = make(tmp_path, network=Costly(clock, [0.5]), clock=clock, **settings)
    first.advance(first.total_steps // 2)
    first.save()
    clock.tick(5000.0)  # the night
    began = clock.now()
    second = make(tmp_path, network=Costly(clock, [0.5]), clock=clock, **settings)
    second.resume()
    second.advance()
    assert second.seconds <= 102.0
    assert 40.0 <= clock.now() - began <= 60.0


def test_time_given_to_a_run_that_had_none_is_kept(tmp_path: Path) -> None:
    clock = FakeClock()
    trainer = make(tmp_path, network=Costly(clock, [0.5]), clock=clock, epochs=100.0)
    trainer.advance(10)
    began = clock.now()
    trainer.plan_time(60.0)
    trainer.advance()
    assert 55.0 <= clock.now() - began <= 61.2


def test_a_longer_plan_bends_the_schedule_and_replays(tmp_path: Path) -> None:
    clock = FakeClock()
    trainer = make(tmp_path / "a", network=Costly(clock, [0.5]), clock=clock)
    trainer.advance(5)
    planned = trainer.total_steps
    trainer.plan_time(20.0)
    trainer.advance()
    assert trainer.step > 1.5 * planned
    assert trainer.progress == 1.0
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a/plan.jsonl", tmp_path / "b/plan.jsonl")
    other = FakeClock(advance=0.01)
    replayed = make(tmp_path / "b", network=Costly(other, [3.0]), clock=other)
    replayed.advance()
    assert weights_hash(replayed.network) == weights_hash(trainer.network)


def test_time_given_again_after_a_resume_obeys_the_rows_beyond(tmp_path: Path) -> None:
    clock = FakeClock()

    def run(folder: str) -> Trainer:
        return make(
            tmp_path / folder,
            network=Costly(clock, [0.5]),
            clock=clock,
            epochs=100.0,
            checkpoint_seconds=1e9,
        )

    first = run("a")
    first.advance(10)
    first.plan_time(60.0)
    first.advance(50)
    first.save()
    first.advance(110)  # marks beyond the checkpoint, then killed
    second = run("a")
    second.resume()
    rows = second._planner.plan.rows
    second.plan_time(5.0)
    assert second._planner.plan.rows == rows
    second.advance(110)
    assert weights_hash(second.network) == weights_hash(first.network)


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    trainer = make(tmp_path, ema=0.5)
    expected = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    for step in range(1, 6):
        trainer.advance(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in trainer.state.network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    assert trainer.network is not trainer.state.network
    for name, value in trainer.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_nan_in_the_data_path_stops_before_the_weights_and_says_where(tmp_path: Path) -> None:
    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float("nan") if self.training and armed else x

    armed = False
    network = tiny_network()
    network[4] = Bad()  # pyright: ignore
    trainer = make(tmp_path, network=network, checkpoint_seconds=0.0)
    trainer.advance(6)
    before = weights_hash(trainer.state.network)
    armed = True
    with pytest.raises(CheckError) as caught:
        trainer.advance()
    said = str(caught.value)
    for part in ("step 6", "epoch 0.96", "learning rate 0.0", "network.4", "checkpoint of step 6", "--lr"):
        assert part in said, said
    kept = {k: v for k, v in trainer.state.network.state_dict().items() if "running" not in k and "num_b" not in k}
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert steps_saved(tmp_path / "checkpoints")[0] == 6
    armed = False
    again = make(tmp_path, network=network)
    again.resume()
    assert weights_hash(again.state.network) == before


def test_weights_that_are_not_finite_are_named_and_never_saved(tmp_path: Path) -> None:
    trainer = make(tmp_path, checkpoint_seconds=0.0)
    trainer.advance(3)
    with torch.no_grad():
        trainer.state.network[0].weight[0, 0, 0, 0] = float("inf")  # pyright: ignore
    trainer.state.step = 4
    with pytest.raises(CheckError, match=r"network\.0\.weight is not finite after step 4 .*checkpoint of step 3"):
        trainer.save()
    with pytest.raises(CheckError, match=r"network\.0\.weight is the first that is not finite"):
        trainer.advance()
    assert steps_saved(tmp_path / "checkpoints")[0] == 3


def test_a_rate_that_diverges_is_a_failed_check(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="not finite"):
        trainer = make(tmp_path, lr=1e30, warmup=0.0, epochs=20.0)
        trainer.advance()
        trainer.save()


def test_a_full_disk_is_a_warning_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    trainer = make(tmp_path, checkpoint_seconds=0.0, warn=said.append)
    trainer.advance(4)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_checkpoint", full)
        patch.setattr(module, "append_jsonl", full)
        trainer.advance(8)
    assert steps_saved(tmp_path / "checkpoints")[0] == 4
    assert any("the checkpoint of step 4 stays" in text for text in said)
    trainer.advance()
    trainer.save()
    assert steps_saved(tmp_path / "checkpoints")[0] == trainer.step
    whole = make(tmp_path / "whole")
    whole.advance()
    assert weights_hash(trainer.network) == weights_hash(whole.network)


def test_other_errors_of_the_disk_are_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    trainer = make(tmp_path)
    monkeypatch.setattr(module, "save_checkpoint", broken)
    with pytest.raises(OSError, match="Input/output"):
        trainer.save()


def test_a_plan_that_cannot_be_written_stops_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, row: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("netsmith.run.plan.append_jsonl", full)
    with pytest.raises(InputError, match=r"no space left for .*plan.jsonl; free some and go on with --resume"):
        make(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_the_step_and_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    told: list[int] = []

    def outer(received: int, frame: object) -> None:
        told.append(received)
        raise KeyboardInterrupt

    def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        if note.startswith("step 5 "):
            os.kill(os.getpid(), number)

    previous = signal.signal(number, outer)
    try:
        trainer = make(tmp_path / "a", show=show)
        with pytest.raises(Interrupted, match="step 5 is in .*--resume"):
            trainer.advance()
        assert signal.getsignal(number) is outer
    finally:
        signal.signal(number, previous)
    assert told == [number]  # who handled it before has learnt of it
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("netsmith-feed")]
    resumed = make(tmp_path / "a", network=tiny_network(seed=3))
    assert resumed.resume()
    assert resumed.step == 5
    resumed.advance()
    whole = make(tmp_path / "b")
    whole.advance()
    assert weights_hash(resumed.network) == weights_hash(whole.network)


def test_a_signal_after_the_last_look_for_one_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(tmp_path)
    at_marks = Planner.at_marks

    def shot(self: Planner, step: int, **more: Any) -> None:
        at_marks(self, step, **more)
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Planner, "at_marks", shot)
    with pytest.raises(Interrupted, match="step 4 is in"):
        trainer.advance(until=4)


def test_metrics_that_find_no_room_are_written_later_and_before_any_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    trainer = make(tmp_path, warn=said.append)
    append = module.append_jsonl

    def full(path: Path, row: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module, "append_jsonl", full)
    for step in (2, 4):
        trainer.advance(until=step)
        trainer.evaluate()
        trainer.save()
    assert not list((tmp_path / "checkpoints").glob("*.json"))
    assert "no space left" in said[0]
    with pytest.raises(InputError, match=r"no space left for .*s.jsonl; free some and go on with --resume"):
        trainer.settle()
    monkeypatch.setattr(module, "append_jsonl", append)
    trainer.save()
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl") if "val" in row] == [2, 4]
    assert len(list((tmp_path / "checkpoints").glob("*.json"))) == 1


def test_training_in_another_thread_needs_no_signals(tmp_path: Path) -> None:
    trainer = make(tmp_path, epochs=1.0)
    thread = threading.Thread(target=trainer.advance)
    thread.start()
    thread.join()
    assert trainer.finished


@pytest.mark.parametrize("killed", [10, 14])
def test_metrics_of_a_resumed_run_have_one_row_per_evaluation(tmp_path: Path, killed: int) -> None:
    first = make(tmp_path / "a")
    first.advance(8)
    first.save()
    first.advance(killed)  # before or after the evaluation of step 13
    second = make(tmp_path / "a", network=tiny_network(seed=5))
    second.resume()
    second.advance()
    second.evaluate()
    whole = make(tmp_path / "b")
    whole.advance()
    whole.evaluate()

    def rows(name: str) -> list[dict[str, Any]]:
        measured = ("time", "seconds", "images_per_s")
        found = read_jsonl(tmp_path / name / "metrics.jsonl")
        return [{key: value for key, value in row.items() if key not in measured} for row in found]

    assert rows("a") == rows("b")


def test_another_recipe_is_refused_but_another_time_is_not(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.advance(3)
    first.save()
    with pytest.raises(InputError, match="with lr 0.1 and not 0.05"):
        make(tmp_path, lr=0.05).resume()
    with pytest.raises(InputError, match="is of another network"):
        make(tmp_path, network=tiny_network(width=16)).resume()
    said: list[str] = []
    assert make(tmp_path, workers=0, threads=2, warn=said.append).resume()
    assert "--threads 2 is not heeded: this run computes with 1" in said[0]


def test_a_checkpoint_from_before_a_field_of_the_recipe_was_there_counts_as_its_default(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.advance(3)
    first.save()
    path = tmp_path / "checkpoints/step-00000003.json"
    record = json.loads(path.read_text())
    for field in ("grad_accum", "crop_ratio"):
        del record["identity"]["recipe"][field]
    path.write_text(json.dumps(record))
    assert make(tmp_path).resume()
    with pytest.raises(InputError, match="with grad_accum 1 and not 2"):
        make(tmp_path, grad_accum=2).resume()


def test_batch_norm_and_one_picture_per_step_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--batch-size 1 cannot train tiny"):
        make(tmp_path, batch_size=1)
    few = make(tmp_path, data=tiny_data(train=1, val=0), epochs=2.0)
    few.advance()
    assert few.evaluate() is None


def test_train_gives_the_last_weights_in_evaluation_mode(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", command=["train", "x"]) as run:
        plan = Plan(run.plan)
        trained = train(tiny_network(), tiny_data(), tiny_recipe(), run=run, plan=plan, clock=SystemClock())
        assert trained.val is not None
        assert not trained.network.training
        assert trained.steps == 19
        assert trained.epochs == pytest.approx(3.04)
        assert json.loads(run.metrics.read_text().splitlines()[-1])["val"]["top1"] == trained.val.top1.value
        again = train(
            tiny_network(seed=4), tiny_data(), tiny_recipe(), run=run, plan=plan, clock=SystemClock(), resume=True
        )
        assert weights_hash(again.network) == weights_hash(trained.network)


def test_what_training_writes_tells_a_later_session_when_it_was_written(tmp_path: Path) -> None:
    clock = FakeClock(50.0)
    run, ledger = RunFolder(tmp_path), Ledger(tmp_path / "ledger.jsonl", clock=clock)
    ledger.add("session", verdict="done", reason="", after={"spent_s": 0.0})
    trainer = make(tmp_path, clock=clock)
    trainer.advance(2)
    clock.tick(10.0)
    trainer.evaluate()
    assert spent_before(run, ledger) == pytest.approx(10.0, abs=0.01)
    clock.tick(10.0)
    trainer.save()
    assert spent_before(run, ledger) == pytest.approx(20.0, abs=0.01)


def test_training_that_ended_learns_on_when_it_is_lengthened(tmp_path: Path) -> None:
    clock = FakeClock()
    trainer = make(tmp_path, network=Costly(clock, [0.5]), clock=clock, epochs=2.0)
    trainer.advance()
    assert (trainer.finished, trainer.progress) == (True, 1.0)
    ended = weights_hash(trainer.network)
    trainer.plan_time(8.0)
    assert (trainer.finished, trainer.progress) == (False, trainer.step / trainer.total_steps)
    trainer.advance()
    assert trainer.progress == 1.0
    assert weights_hash(trainer.network) != ended
    last = read_jsonl(tmp_path / "metrics.jsonl")[-1]
    assert 0 < last["lr"] < trainer.recipe.lr


def test_progress_tells_loss_pace_and_accuracy(tmp_path: Path) -> None:
    notes: list[str] = []

    def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        notes.append(note)

    trainer = make(tmp_path / "a", show=show)
    trainer.advance()
    whole = r"step (\d+) of \d+, epoch [\d.]+, loss (\d+\.\d+), top-1 [\d.]+ %(, val top-1 [\d.]+ %)?, [\d,]+ images/s"
    found = [re.fullmatch(whole, note) for note in notes[1:]]  # before the second update no pace is known
    assert [int(match[1]) for match in found if match] == list(range(2, trainer.total_steps + 1))
    assert all(match and 0.0 < float(match[2]) < 20.0 for match in found)
    assert found[-1]
    assert found[-1][3]
