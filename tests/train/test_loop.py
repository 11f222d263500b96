"""Training in a run folder: what is said of its time, and memory that is too small to begin."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe

from netsmith.errors import CheckError
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.train import trainer as module
from netsmith.train.loop import Trained, train
from netsmith.train.objectives import Classify, Outcome


class Place:
    """A run whose updates take as long as `cost` says, on a fake clock; all else takes no time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, cost: Callable[[float], float]) -> None:
        self.folder, self.clock, self.said = folder, FakeClock(), list[str]()
        compute = Classify.forward

        def forward(objective: Classify, images: torch.Tensor, targets: torch.Tensor) -> Outcome:
            self.clock.tick(cost(self.clock.seconds))
            return compute(objective, images, targets)

        monkeypatch.setattr(Classify, "forward", forward)

    def train(self) -> Trained:
        settings = {"epochs": None, "time_s": 3.0, "dtype": "float32", "channels_last": False, "ema": None}
        resume = self.folder.exists()
        with RunFolder.create(self.folder, command=["train", "x"], resume=resume) as run:
            return train(
                tiny_network(),
                tiny_data(),
                tiny_recipe(**settings),
                run=run,
                plan=Plan(run.plan),
                clock=self.clock,
                resume=resume,
                warn=self.said.append,
            )

    @property
    def overruns(self) -> list[str]:
        return [text for text in self.said if text.startswith("training took ")]


def test_a_time_that_is_kept_is_not_spoken_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "run", monkeypatch, lambda now: 0.01)
    trained = place.train()
    assert trained.seconds == pytest.approx(3.0, rel=0.05)
    assert trained.seconds <= 1.05 * 3.0
    assert place.overruns == []


def test_a_time_in_which_one_update_does_not_fit_is_said_with_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "run", monkeypatch, lambda now: 5.0)
    trained = place.train()
    assert trained.steps == 1
    assert trained.seconds == place.clock.seconds == 15.0  # two updates to measure by, and one that counts
    assert place.overruns == [
        "training took 15s, and 3.0s were given: one update and the answers at its end are the least that a training "
        "makes; give --time 18s or more, or a smaller network, --img-size or --batch-size"
    ]
    again = place.train()  # killed after its end, and gone on with
    assert again.steps == 1
    assert len(place.overruns) == 1


def test_a_machine_that_slows_down_at_the_end_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "run", monkeypatch, lambda now: 0.01 if now < 2.9 else 1.0)
    assert place.train().seconds > 1.05 * 3.0
    [told] = place.overruns
    assert "took longer than was known when its length was planned; give more --time" in told


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.\nAdvice.")])
def test_memory_that_does_not_suffice_to_begin_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def short(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "State", short)
    with pytest.raises(CheckError, match=r"^there is no memory for the network .*; take a smaller network") as caught:
        Place(tmp_path / "run", monkeypatch, lambda now: 0.01).train()
    assert "Advice" not in str(caught.value)


def test_what_is_no_matter_of_memory_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2")

    monkeypatch.setattr(module, "State", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        Place(tmp_path / "run", monkeypatch, lambda now: 0.01).train()
