import pytest
from pydantic import ValidationError

from netsmith.errors import InputError
from netsmith.run.clock import FakeClock
from netsmith.run.files import read_jsonl
from netsmith.run.ledger import Ledger, in_front

A, B = "a" * 64, "b" * 64


def test_rows_round_trip(tmp_path):
    clock = FakeClock()
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=clock)
    ledger.add("audit", verdict="done", reason="1797 pictures", inputs=[A])
    clock.tick(60)
    row = ledger.add(
        "race",
        verdict="refused",
        reason="below the best beyond noise",
        inputs=[A],
        output=B,
        before={"top1": 0.9},
        after={"top1": 0.8},
        splits_read=["train", "val"],
    )
    assert row.time == "2026-01-01T00:01:00.000Z"
    again = Ledger(ledger.path, clock=clock)
    assert again.rows == ledger.rows
    assert again.newest("race") == row
    assert again.newest("final") is None
    assert set(read_jsonl(ledger.path)[0]) == {
        *("time", "stage", "inputs", "output", "before", "after", "verdict", "reason", "splits_read")
    }


def test_the_test_split_is_sealed_per_artifact(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=FakeClock())
    ledger.add("select", verdict="done", reason="", inputs=[A], splits_read=["val"])
    assert ledger.test_reading(A) is None
    row = ledger.add("evaluate", verdict="done", reason="", inputs=[A], splits_read=["test"])
    assert ledger.test_reading(A) == row
    assert ledger.test_reading(B) is None


def test_a_run_that_begins_with_a_model_starts_with_its_rows_and_has_its_own(tmp_path):
    clock = FakeClock()
    first = Ledger(tmp_path / "first.jsonl", clock=clock)
    first.add("split", verdict="done", reason="of the first")
    first.add("test", verdict="done", reason="", inputs=[A], splits_read=["test"])
    path = tmp_path / "second.jsonl"
    for _ in range(2):  # made, and opened again
        second = Ledger.continued(path, first.rows, clock=clock, reason="begins with the first", artifact=A)
    assert second.rows[:2] == first.rows
    assert (second.rows[2].stage, second.rows[2].inputs) == ("parent", [A])
    assert second.own == ()
    assert second.newest("split") is None, "its own split is still to come"
    assert second.test_reading(A) is not None, "the seal holds for what was read before"
    row = second.add("prune", verdict="kept", reason="", inputs=[A], output=B)
    third = Ledger.continued(tmp_path / "third.jsonl", second.rows, clock=clock, reason="", artifact=B)
    assert (second.own, third.own, third.rows[3]) == ((row,), (), row)


@pytest.mark.parametrize(
    "wrong", [{"verdict": "perhaps"}, {"output": "abc"}, {"splits_read": ["tests"]}, {"after": {"top1": {1}}}]
)
def test_wrong_rows_are_not_written(tmp_path, wrong):
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=FakeClock())
    with pytest.raises((ValidationError, TypeError)):
        ledger.add("race", **{"verdict": "kept", "reason": "", **wrong})
    assert ledger.rows == ()
    assert read_jsonl(ledger.path) == []


def test_damaged_ledger(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"stage": "audit"}\n')
    with pytest.raises(InputError, match=r"ledger\.jsonl is not a ledger"):
        Ledger(path, clock=FakeClock())


def test_who_is_in_front(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=FakeClock())

    def rung(*kept, out=()):
        entries = [{"id": id_, "kept": True} for id_ in kept] + [{"id": id_, "kept": False} for id_ in out]
        ledger.add("race", verdict="done", reason="", after={"rung": 1, "entries": entries})

    def diverged(id_):
        ledger.add("diverged", verdict="refused", reason="", after={"id": id_})

    assert in_front(ledger.rows) is None
    rung("b", "a", "c", out=["d"])
    assert in_front(ledger.rows) == "b"
    rung("a", "b", out=["c"])
    assert in_front(ledger.rows) == "a"
    for gone, following in (("a", "b"), ("b", "c"), ("c", "d"), ("d", None)):
        diverged(gone)
        assert in_front(ledger.rows) == following


def test_rows_that_are_no_race_have_nobody_in_front(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=FakeClock())
    for entries in (None, 3, "abc", [3, {}, {"id": 4, "kept": True}, {"id": "a"}]):
        ledger.add("race", verdict="done", reason="", after={"entries": entries})
    assert in_front(ledger.rows) is None
