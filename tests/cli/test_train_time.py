"""`--time` as a person types it: the schedule comes to its end in that time, and the record says how long it took."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netsmith.run.clock import SystemClock
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan

SECONDS = 12.0


@pytest.mark.slow
def test_training_takes_the_time_that_it_is_given(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "netsmith", "train", "digits", "--model", "resnet8_cifar"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--time", f"{SECONDS:g}s", "-o", "run"],
        cwd=tmp_path,
        env=os.environ | {"NETSMITH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    wall = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    [row] = [row for row in Ledger(tmp_path / "run/ledger.jsonl", clock=SystemClock()).own if row.stage == "train"]
    spent = row.after["seconds"]
    print(f"{spent:.2f} s of training for --time {SECONDS:g}s, {wall:.1f} s for the whole command")
    assert 0.9 * SECONDS <= spent <= 1.05 * SECONDS
    assert spent < wall
    assert row.after["steps"] == Plan(tmp_path / "run/plan.jsonl").value("total_steps", row.after["steps"])
    assert "training took" not in done.stderr
