"""The allocator's settings and their switch, and that a training begins with them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import tiny_data, tiny_network, tiny_recipe

from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.train import trainer
from netsmith.train.feed import Feed

COMMAND = "from netsmith.train import memory; print(memory.keep_large_blocks(), memory.give_back_large_blocks())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings are glibc's")
@pytest.mark.parametrize(("value", "expected"), [("1", "True True"), ("0", "False False")])
def test_glibc_takes_the_settings_unless_switched_off(value: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env=os.environ | {"NETSMITH_KEEP_MEMORY": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_a_training_begins_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first batch: what lies in mapped blocks by then stays there."""
    order: list[str] = []
    real = Feed.batch

    def batch(self: Feed, step: int, side: int | None = None) -> object:
        order.append("batch")
        return real(self, step, side)

    monkeypatch.setattr(Feed, "batch", batch)
    monkeypatch.setattr(trainer, "keep_large_blocks", lambda: order.append("kept"))
    made = trainer.Trainer(
        tiny_network(), tiny_data(), tiny_recipe(epochs=1.0), plan=Plan(tmp_path / "plan.jsonl"), clock=SystemClock()
    )
    made.advance()
    assert order.count("kept") == 1
    assert order[0] == "kept"
    assert "batch" in order
