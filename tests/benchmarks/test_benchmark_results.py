"""`benchmarks/results.py`: what is kept says at which commit it was made, and so do its rows."""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import results
from results import UNKNOWN, append, begun, head_of, made, now, origin_of, wording


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
    with pytest.raises(SystemExit, match=r"does not say how it was measured \(batch\)"):
        begun(tmp_path / "other", finished=True, asked={"batch": "8"})
    with pytest.raises(SystemExit, match=r"does not say how it was measured \(device\)"):
        begun(tmp_path / "run", finished=True, asked={"batch": "8", "device": "cpu"})


def test_what_was_measured_on_another_machine_is_not_reported_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    begun(place, finished=False)
    place.mkdir()
    monkeypatch.setattr(results, "host", lambda: "Example 9000, 2 cores")
    for finished in (True, False):
        with pytest.raises(SystemExit, match="was begun with machine .*, not Example 9000, 2 cores: name another"):
            begun(place, finished=finished)
    with pytest.raises(SystemExit, match="Example 9000"):
        made(place)


def test_the_record_that_came_before_records_is_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "begun.json").write_text('{"batch": "8", "commits": ["old", "older"]}')
    assert made(tmp_path / "run")["commit"] == "old older"
    begun(tmp_path / "run", finished=True, asked={"batch": "8"})
    with pytest.raises(SystemExit, match="was begun with batch 8, not 16"):
        begun(tmp_path / "run", finished=True, asked={"batch": "16"})


TYPED = ["train", "/data/photos.zip", "-o", "/runs/it", "--resume", "--model", "resnet18@0.35", "--epochs", "10.0"]


@pytest.mark.parametrize("record", [None, {"asked": {}, "made": [{"date": "2026-11-01", "commit": "old"}]}])
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_is_held_against_the_command_it_was_begun_with(
    record: dict[str, Any] | None, finished: bool, tmp_path: Path
) -> None:
    """netsmith's own record of it, where ours does not say: flags in its order, numbers and places as it has them."""
    place = tmp_path / "it"
    place.mkdir()
    if record is not None:
        place.with_name("it.begun").write_text(json.dumps(record))
    (place / "run.json").write_text(json.dumps({"format": 1, "command": TYPED}))
    asked = ["train", "elsewhere/photos.zip", "--epochs", "10", "--model", "resnet18@0.35"]
    for other in (["--epochs", "20"], ["--seed", "1"], ["--no-baseline"]):
        with pytest.raises(SystemExit, match=r"it was begun with command train photos\.zip --epochs 10 .*, not train"):
            begun(place, finished=finished, asked={"command": wording([*asked, *other])})
    found = begun(place, finished=finished, asked={"command": wording(asked)})
    assert found[0] == (UNKNOWN if record is None else record["made"][0])
    assert len(found) == (1 if finished else 2)


def test_a_finished_run_of_another_command_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "results.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"does not say how it was measured \(command\)"):
        results.run(["train", "digits"], tmp_path / "it")
    (tmp_path / "it" / "run.json").write_text(json.dumps({"command": ["train", "digits", "--epochs", "2"]}))
    with pytest.raises(SystemExit, match="begun with command train digits --epochs 2, not train digits: name another"):
        results.run(["train", "digits"], tmp_path / "it")


def test_the_commit_says_where_code_is_not_as_committed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    for name in ("benchmarks/it.py", "benchmarks/results.csv", "src/it.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    git("init")
    git("add", ".")
    git("commit", "-m", "it")
    (tmp_path / "benchmarks" / "results.csv").write_text("a row")
    clean = head_of(tmp_path)
    assert clean.isalnum()
    for changed in ("benchmarks/new.py", "src/it.py"):
        head_of.cache_clear()
        (tmp_path / changed).write_text("changed")
        assert head_of(tmp_path) == f"{clean}-dirty"
        git("stash", "--include-untracked")


def test_the_newest_day_and_all_commits_count() -> None:
    days = [{"date": "2026-11-22", "commit": "one"}, {"date": "2026-11-21", "commit": "two"}]
    assert origin_of([*days, days[0]]) == {"date": "2026-11-22", "commit": "one two"}
    joined = [{"date": "2026-11-22", "commit": "one two"}, {"date": "2026-11-22", "commit": "two three"}]
    assert origin_of(joined)["commit"] == "one two three"


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
