"""`benchmarks/results.py`: what is kept says at which commit it was made, and so do its rows."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import results
from results import UNKNOWN, append, begun, made, now, origin_of


@pytest.fixture(autouse=True)
def commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETSMITH_COMMIT", "one")


def at(commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETSMITH_COMMIT", commit)


def test_a_kept_measurement_stays_of_the_commit_it_was_made_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "run"
    assert begun(place, finished=False) == [now()]
    place.mkdir()
    at("two", monkeypatch)
    assert made(place)["commit"] == "one"
    assert [each["commit"] for each in begun(place, finished=False)] == ["one", "two"]  # gone on with
    at("three", monkeypatch)
    assert made(place)["commit"] == "one two"
    assert made(place, place)["commit"] == "one two"


def test_what_is_gone_is_made_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "run", finished=False)  # which failed before anything was kept
    at("two", monkeypatch)
    assert [each["commit"] for each in begun(tmp_path / "run", finished=False)] == ["two"]


def test_what_does_not_say_its_commit_is_not_of_todays(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    assert made(place) == UNKNOWN
    assert not list(tmp_path.glob("*.begun"))
    assert [each["commit"] for each in begun(place, finished=False)] == ["unknown", "one"]
    assert made(place)["commit"] == "unknown one"


def test_conditions_that_are_not_in_the_name_are_held_against(tmp_path: Path) -> None:
    begun(tmp_path / "run", finished=False, asked={"batch": "8"})
    (tmp_path / "run").mkdir()
    begun(tmp_path / "run", finished=True, asked={"batch": "8"})
    with pytest.raises(SystemExit, match="was begun with batch 8, not 16"):
        begun(tmp_path / "run", finished=True, asked={"batch": "16"})
    (tmp_path / "other").mkdir()
    with pytest.raises(SystemExit, match="does not say how it was measured"):
        begun(tmp_path / "other", finished=True, asked={"batch": "8"})


def test_the_newest_day_and_all_commits_count() -> None:
    days = [{"date": "2026-11-22", "commit": "one"}, {"date": "2026-11-21", "commit": "two"}]
    assert origin_of([*days, days[0]]) == {"date": "2026-11-22", "commit": "one two"}


def test_rows_are_added_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept runs of an unknown commit are those of a row with the same numbers."""
    path = tmp_path / "results.csv"

    def row(**change: Any) -> dict[str, Any]:
        return {"date": "today", "commit": "one", "benchmark": "b", "subject": "s", "test_top1": 0.5, **change}

    append(path, [row(note="a,\nb"), row(test_top1=0.75)])
    append(path, [row(note="a,\nb", date="tomorrow"), row(note="a,\nb", **UNKNOWN)])
    assert capsys.readouterr().out.count("b, s: there already, of today, commit one") == 2
    append(path, [row(test_top1=0.25), row(test_top1=0.75, commit="two"), row(test_top1=0.6, **UNKNOWN)])
    with path.open(newline="") as handle:
        found = [(each["test_top1"], each["commit"]) for each in csv.DictReader(handle)]
    assert found == [("0.5", "one"), ("0.75", "one"), ("0.25", "one"), ("0.75", "two"), ("0.6", "unknown")]


def test_a_finished_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same function for every benchmark; what it is given reaches the process."""
    ran: list[Any] = []

    def process(command: list[str], *, check: bool, env: dict[str, str]) -> None:
        ran.append((command[1:], env["MORE"]))
        (tmp_path / "runs" / "it").mkdir()
        (tmp_path / "runs" / "it" / "results.json").write_text(json.dumps("found"))

    monkeypatch.setattr(results.subprocess, "run", process)
    monkeypatch.setattr(results.Result, "load", lambda path: json.loads(path.read_text()))
    for commit in ("one", "two"):
        at(commit, monkeypatch)
        folder = tmp_path / "runs" / "it"
        assert results.run(["train", "digits"], folder, program=("script.py",), MORE="said") == "found"
        assert made(folder)["commit"] == "one"
    assert ran == [(["script.py", "train", "digits", "-o", str(folder), "--quiet", "--resume"], "said")]
