"""The time of earlier sessions, from what the run recorded and from nothing else."""

import json
import os

import pytest

from netsmith.fit.session import Session, commands, spent_before
from netsmith.run.clock import FakeClock, seconds_of
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger


@pytest.fixture
def begun(tmp_path):
    """A run at its beginning, with the clock it lives by."""
    clock = FakeClock(100.0)
    run = RunFolder(tmp_path)
    ledger = Ledger(run.ledger, clock=clock)
    session = Session(data="digits", output=tmp_path, command=["fit", "digits"], clock=clock)
    assert session.enter(run, ledger) == 0.0
    return run, ledger, session, clock


def test_each_session_counts_until_the_newest_time_it_recorded(begun):
    run, ledger, session, clock = begun
    clock.tick(7.0)
    ledger.add("split", verdict="done", reason="")
    assert spent_before(run, ledger) == pytest.approx(7.0)
    clock.tick(5.0)
    metrics = run.candidates / "one" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"time": clock.wall(), "step": 3}) + '\n{"time": "torn')
    assert spent_before(run, ledger) == pytest.approx(12.0)
    clock.tick(20.0)
    checkpoints = run.candidates / "one" / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "step-00000004.json").write_text(json.dumps({"state": {"time": seconds_of(clock.wall())}}))
    (checkpoints / "step-00000005.json").write_text('{"state": {"ti')
    assert spent_before(run, ledger) == pytest.approx(32.0)
    clock.tick(1000.0)  # nobody works
    assert session.enter(run, ledger) == pytest.approx(32.0)
    assert spent_before(run, ledger) == pytest.approx(32.0)
    clock.tick(3.0)
    ledger.add("candidates", verdict="done", reason="")
    assert spent_before(run, ledger) == pytest.approx(35.0)
    assert commands(ledger) == ("netsmith fit digits",) * 2


def test_times_of_files_do_not_count(begun):
    run, ledger, _, clock = begun
    clock.tick(4.0)
    ledger.add("split", verdict="done", reason="")
    (run.path / "copied").write_text("later")
    os.utime(run.ledger, (4e9, 4e9))
    assert spent_before(run, ledger) == pytest.approx(4.0)
