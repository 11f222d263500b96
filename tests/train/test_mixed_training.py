"""Training with everything that a recipe can do to pictures and classes: it learns, and stopping changes no bit."""

from pathlib import Path
from typing import Any

import pytest
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash

from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.train.trainer import Trainer

EVERYTHING: dict[str, Any] = {
    "rotate": 10.0,
    "auto_augment": "randaugment",
    "color_jitter": (0.3, 0.3, 0.3, 0.1),
    "random_erase": 0.3,
    "mixup": 0.2,
    "cutmix": 1.0,
}


def trainer(folder: Path, *, seed: int = 0, **changes: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    recipe = tiny_recipe(**EVERYTHING | changes)
    plan, checkpoints = Plan(folder / "plan.jsonl"), folder / "checkpoints"
    return Trainer(
        tiny_network(seed=seed), tiny_data(), recipe, plan=plan, clock=SystemClock(), checkpoints=checkpoints
    )


@pytest.mark.parametrize("balance", ["sampling", "loss"])
def test_stopping_anywhere_and_going_on_changes_no_bit(tmp_path: Path, balance: str) -> None:
    settings: dict[str, Any] = {"class_balance": balance, "epochs": 1.5}
    whole = trainer(tmp_path / "whole", **settings)
    whole.advance()
    first = trainer(tmp_path / "stopped", **settings)
    first.advance(4)
    first.save()
    second = trainer(tmp_path / "stopped", seed=99, workers=0, **settings)
    assert second.resume()
    assert second.step == 4
    second.advance()
    assert weights_hash(second.network) == weights_hash(whole.network)


def test_it_learns_from_mixtures_in_parts(tmp_path: Path) -> None:
    """The class is a colour, which nothing but a hue of its own would hide."""
    settings = {"color_jitter": (0.1, 0.1, 0.1, 0.0), "auto_augment": "none"}
    learner = trainer(tmp_path, epochs=20.0, lr=0.2, grad_accum=2, class_balance="loss", **settings)
    learner.advance()
    evaluation = learner.evaluate()
    assert evaluation is not None
    assert evaluation.top1.value >= 0.9
