"""What a plan says of the way to compute is obeyed, whatever machine reads it."""

from pathlib import Path

import pytest
from tiny_training import tiny_data, tiny_network, tiny_recipe

from netsmith.run.clock import FakeClock
from netsmith.run.machine import machine
from netsmith.run.plan import Plan
from netsmith.train import precision
from netsmith.train.depthwise import Float32Parts
from netsmith.train.precision import Precision
from netsmith.train.trainer import Trainer


def test_a_plan_of_a_machine_with_bfloat16_is_obeyed_by_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine().model_copy(update={"flags": ["avx2"]})
    monkeypatch.setattr(precision, "machine", lambda: here)
    plan, kinds = Plan(tmp_path / "plan.jsonl"), Float32Parts(frozenset({(3, 1)}), frozenset())
    assert kinds != Float32Parts.by_rule(tiny_network())
    rows = {"depthwise": kinds.to_plan(), "dtype": "bfloat16", "channels_last": True, "threads": 1, "total_steps": 5}
    for kind, value in rows.items():
        plan.record(kind, value, at=0, why="")
    recipe = tiny_recipe(epochs=None, time_s=9.0)
    trainer = Trainer(tiny_network(), tiny_data(), recipe, plan=plan, clock=FakeClock())
    assert trainer.precision == Precision("bfloat16", channels_last=True, depthwise=kinds)
    assert len(plan.rows) == len(rows)
