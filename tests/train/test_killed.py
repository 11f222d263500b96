"""Killed at random instants with SIGKILL and started again until it ends: the same bits as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("tiny_training.py")


def command(run: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), str(run), *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def finish(run: Path, *arguments: str) -> str:
    done = subprocess.run(command(run, *arguments), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def kill_once(run: Path, draw: random.Random, *arguments: str) -> bool:
    """Start, kill some moments after some step; whether it was killed rather than done."""
    process = subprocess.Popen(command(run, *arguments), env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    steps = draw.randrange(1, 8)
    for line in process.stdout:
        steps -= line.startswith("step")
        if steps <= 0:
            break
    time.sleep(draw.uniform(0.0, 0.02))  # also in the middle of an update, a checkpoint, a row
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


def killed_until_done(run: Path, draw: random.Random, kills: int, *arguments: str) -> str:
    killed = sum(kill_once(run, draw, *arguments) for _ in range(kills))
    assert killed
    return finish(run, *arguments)


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    expected = finish(tmp_path / "whole", "5")
    assert killed_until_done(tmp_path / "killed", random.Random(1), 2, "5") == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_killed_often(tmp_path: Path, seed: int) -> None:
    expected = finish(tmp_path / "whole", "8")
    assert killed_until_done(tmp_path / "killed", random.Random(seed), 5, "8") == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_timed_run_killed_often_equals_its_plan_replayed(tmp_path: Path, seed: int) -> None:
    got = killed_until_done(tmp_path / "killed", random.Random(seed), 4, "0", "6")
    (tmp_path / "replayed").mkdir()
    shutil.copy(tmp_path / "killed/plan.jsonl", tmp_path / "replayed/plan.jsonl")
    assert finish(tmp_path / "replayed", "0", "6") == got
