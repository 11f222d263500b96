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


def step_of(line: str) -> int | None:
    """The update a line tells of."""
    return int(line.split()[1]) if line.startswith("step ") else None


def finish(run: Path, *arguments: str, least: int = 0) -> str:
    """To the end, going on from update `least` or later; the last line."""
    done = subprocess.run(command(run, *arguments), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert next((step for line in lines if (step := step_of(line))), least) >= least
    return lines[-1]


def kill_once(run: Path, draw: random.Random, *arguments: str, least: int = 0) -> tuple[bool, int]:
    """Start, going on from update `least` or later, and kill some moments after some update.

    Returns:
        Whether it was killed rather than done, and the last update it told of.
    """
    process = subprocess.Popen(command(run, *arguments), env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    wanted, told = draw.randrange(1, 8), list[int]()
    for line in process.stdout:
        if step := step_of(line):
            told.append(step)
        if len(told) == wanted:
            break
    time.sleep(draw.uniform(0.0, 0.02))  # also in the middle of an update, a checkpoint, a row
    process.send_signal(signal.SIGKILL)
    told += [step for line in process.stdout if line.endswith("\n") and (step := step_of(line))]
    process.stdout.close()
    assert min(told, default=least) >= least  # begun anew, it would come to the same weights
    return process.wait() == -signal.SIGKILL, max(told, default=least)


def killed_until_done(run: Path, draw: random.Random, kills: int, *arguments: str) -> str:
    killed, reached = 0, 0
    for _ in range(kills):
        was_killed, reached = kill_once(run, draw, *arguments, least=reached)
        killed += was_killed
    assert killed
    assert reached > 1
    return finish(run, *arguments, least=reached)


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
