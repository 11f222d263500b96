"""Two processes that measure on one machine take turns, and neither waits for ever."""

import os
import subprocess
import sys

import pytest

from netsmith.run import alone as module
from netsmith.run.alone import alone, lock_path
from netsmith.run.clock import FakeClock, SystemClock
from netsmith.run.progress import silent

HOLDER = """
import sys
from netsmith.run.alone import alone
from netsmith.run.clock import SystemClock
from netsmith.run.progress import silent
with alone(wait_s=20.0, clock=SystemClock(), progress=silent) as held:
    print("held" if held else "not held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """No measurement of anybody else on the machine plays a part."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(module.tempfile, "tempdir", None)


@pytest.fixture
def holder():
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


class Sooner(SystemClock):
    """A clock whose first sleep ends the other process."""

    def __init__(self, process):
        self.process, self.slept = process, 0

    def sleep(self, seconds):
        self.slept += 1
        self.process.kill()
        self.process.wait()


def test_it_waits_and_goes_on_when_the_other_dies(holder):
    said = []
    clock = Sooner(holder)
    with alone(wait_s=60.0, clock=clock, progress=lambda *row: said.append(row)) as held:
        assert held
    assert clock.slept == 1
    assert "waiting for another netsmith" in said[0][0]


def test_it_does_not_wait_for_ever(holder):
    clock, said = FakeClock(advance=1.0), []
    with alone(wait_s=10.0, clock=clock, progress=lambda *row: said.append(row)) as held:
        assert not held
    assert 10.0 <= clock.seconds <= 20.0
    assert said[-1][-1] == "measuring beside it now"
    assert all(row[-1] == "" for row in said[:-1])


def test_it_is_free_afterwards_and_while_nobody_measures():
    for _ in range(2):
        with alone(wait_s=0.0, clock=FakeClock(), progress=silent) as held:
            assert held
            with alone(wait_s=0.0, clock=FakeClock(), progress=silent) as second:
                assert not second


def test_a_pipe_in_the_place_of_the_lock_holds_nobody_up(monkeypatch):
    """Anybody may put one into a shared folder for temporary files; one that may only be read has no writer."""
    os.mkfifo(lock_path())
    opened = os.open

    def for_reading(path, flags, *mode):
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", path)
        return opened(path, flags, *mode)

    monkeypatch.setattr(module.os, "open", for_reading)
    with alone(wait_s=5.0, clock=FakeClock(), progress=silent) as held:
        assert held
