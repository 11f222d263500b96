"""What a replay lays down, and what it says when the weights are others."""

from types import SimpleNamespace

import pytest

from netsmith.errors import CheckError
from netsmith.fit import replay as module
from netsmith.fit.replay import JOB, Replay
from netsmith.run.budget import Budget
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan


@pytest.fixture
def record(tmp_path):
    """A run with rows of its own and of a candidate."""
    run = RunFolder(tmp_path / "recorded")
    (run.candidates / "one").mkdir(parents=True)
    plan = Plan(run.plan)
    plan.record(JOB, {"data": "there"}, at=0, why="")
    plan.record("fit.entries", ["one"], at=0, why="promising")
    plan.record("race.1.one", 40, at=0, why="")
    Plan(run.candidates / "one" / "plan.jsonl").record("threads", 1, at=0, why="")
    return Replay(run=run, budget=Budget(), time_s=60.0, seed=0)


def test_rows_are_laid_down_once_beside_the_new_job(record, tmp_path):
    run = RunFolder(tmp_path / "new")
    run.path.mkdir()
    plan = Plan(run.plan)
    plan.record(JOB, {"data": "here"}, at=0, why="")
    record.lay_down(run, plan)
    whole = run.plan.read_bytes()
    assert [(row.kind, row.value) for row in plan.rows] == [
        (JOB, {"data": "here"}),
        ("fit.entries", ["one"]),
        ("race.1.one", 40),
    ]
    copied = run.candidates / "one" / "plan.jsonl"
    assert Plan(copied).rows == Plan(record.run.candidates / "one" / "plan.jsonl").rows
    Plan(copied).record("total_steps", 9, at=0, why="")  # training went on
    record.lay_down(run, Plan(run.plan))
    assert run.plan.read_bytes() == whole
    assert len(Plan(copied).rows) == 2


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_laying_down_goes_on_where_it_was_killed(record, tmp_path, cut):
    run = RunFolder(tmp_path / "new")
    run.path.mkdir()
    plan = Plan(run.plan)
    record.lay_down(run, plan)
    lines = run.plan.read_bytes().splitlines(keepends=True)
    run.plan.write_bytes(b"".join(lines[:cut]))
    record.lay_down(run, Plan(run.plan))
    assert run.plan.read_bytes() == b"".join(lines)


def test_other_weights_are_a_failed_check(record, tmp_path, monkeypatch):
    def bundle(digest):
        return SimpleNamespace(config=SimpleNamespace(files={"model.safetensors": digest}))

    monkeypatch.setattr(module, "load_bundle", lambda folder: bundle("a" * 64))
    monkeypatch.setattr(Replay, "_difference", lambda self: "the same plan came to other weights")
    for digest, holds in (("a" * 64, True), ("b" * 64, False)):
        ledger = Ledger(tmp_path / f"{holds}.jsonl", clock=FakeClock())
        record.compare(bundle(digest), ledger)
        record.compare(bundle(digest), ledger)
        assert len(ledger.rows) == 1
        if holds:
            record.demand(ledger)
        else:
            with pytest.raises(CheckError, match="other weights"):
                record.demand(ledger)
