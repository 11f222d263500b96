import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netsmith.errors import InputError
from netsmith.run.folder import RunFolder

COMMAND = ["train", "my photos", "--time", "1m"]


def test_life_of_a_run(tmp_path):
    path = tmp_path / "runs" / "a"
    with RunFolder.create(path, command=COMMAND) as run:
        assert run.state == "new"
        assert run.command == COMMAND
        run.plan.write_text("")
        assert run.state == "interrupted"
    with RunFolder.create(path, command=["train", "my photos", "--resume"], resume=True) as run:
        assert run.command == COMMAND, "the first command stays"
        run.results.write_text("{}")
    assert RunFolder(path).state == "finished"


def test_names():
    run = RunFolder(Path("r"))
    named = {
        *(run.model, run.candidates, run.report, run.results, run.ledger, run.plan, run.recipe, run.metrics, run.data),
        *(run.checkpoints, run.predictions("val"), run.predictions("test")),
    }
    assert {path.relative_to("r").as_posix() for path in named} == {
        *("model", "candidates", "report.html", "results.json", "ledger.jsonl", "plan.jsonl", "recipe.yaml"),
        *("metrics.jsonl", "data.json", "checkpoints", "predictions/val.npz", "predictions/test.npz"),
    }


@pytest.mark.parametrize("finished", [True, False])
def test_another_run_is_not_overwritten(tmp_path, finished):
    with RunFolder.create(tmp_path / "a", command=COMMAND) as run:
        if finished:
            run.results.write_text("{}")
    before = {entry: entry.read_bytes() for entry in (tmp_path / "a").iterdir()}
    kind = "a finished" if finished else "an interrupted"
    mend = "name" if finished else "go on with --resume or name"
    with pytest.raises(InputError, match=f"holds {kind} run of `netsmith train 'my photos' --time 1m`; {mend} another"):
        RunFolder.create(tmp_path / "a", command=COMMAND)
    with pytest.raises(InputError, match="holds a run of `netsmith train .*another folder with -o"):
        RunFolder.create(tmp_path / "a", command=["fit", "x"], resume=True)
    assert {entry: entry.read_bytes() for entry in (tmp_path / "a").iterdir()} == before


@pytest.mark.parametrize("resume", [True, False])
def test_foreign_files_are_left_alone(tmp_path, resume):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(InputError, match=r"is not a run of netsmith but holds 'notes.txt' and 1 more"):
        RunFolder.create(tmp_path, command=COMMAND, resume=resume)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["notes.txt", "photo.jpg"]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="is a file"):
        RunFolder.create(tmp_path / "a", command=COMMAND)
    with pytest.raises(InputError, match="cannot be made"):
        RunFolder.create(tmp_path / "a" / "b", command=COMMAND)


def test_resume_before_anything_was_written_starts_anew(tmp_path):
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / ".run.json.0123abcd.tmp").write_text('{"for')
    with RunFolder.create(tmp_path, command=COMMAND, resume=True) as run:
        assert run.command == COMMAND
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "run.json"]


def test_resume_removes_what_a_kill_left_half_written(tmp_path):
    with RunFolder.create(tmp_path / "a", command=COMMAND) as run:
        run.checkpoints.mkdir()
    half = run.checkpoints / ".step-00000010.safetensors.0123abcd.tmp"
    half.write_text("half")
    kept = run.checkpoints / ".hidden.tmp"
    kept.write_text("not of netsmith's making")
    with RunFolder.create(tmp_path / "a", command=COMMAND, resume=True):
        pass
    assert (half.exists(), kept.exists()) == (False, True)


HOLD = """
import sys
from pathlib import Path
from netsmith.run.folder import RunFolder
with RunFolder.create(Path(sys.argv[1]), command=["train"]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_ends_with_the_process_that_holds_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
            RunFolder.create(tmp_path, command=["train"], resume=True)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with RunFolder.create(tmp_path, command=["train"], resume=True) as run:
        assert run.state == "new"


def test_damaged_marker(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        RunFolder.create(tmp_path, command=COMMAND, resume=True)
    with pytest.raises(InputError, match="is not a run folder"):
        _ = RunFolder(tmp_path / "none").command
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "command": ["train"]}))
    assert RunFolder(tmp_path).command == ["train"]


def test_a_stop_says_how_to_go_on(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt, match="--resume to go on"),
        RunFolder.create(tmp_path / "run", command=["fit", "digits"]),
    ):
        raise KeyboardInterrupt
    with (
        pytest.raises(KeyboardInterrupt, match="^step 5"),
        RunFolder.create(tmp_path / "other", command=["train", "digits"]),
    ):
        raise KeyboardInterrupt("step 5 was saved")


def test_a_link_for_a_lock_is_not_written_through(tmp_path):
    """A run folder from elsewhere may hold one."""
    (tmp_path / "mine.txt").write_text("years of work")
    run = tmp_path / "run"
    with RunFolder.create(run, command=COMMAND):
        pass
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder.create(run, command=COMMAND, resume=True)
    assert (tmp_path / "mine.txt").read_text() == "years of work"


def test_words_that_no_file_can_record_are_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(InputError, match=r"caf\\udce9 is no UTF-8, so a run cannot record it; rename it"):
        RunFolder.create(tmp_path / "run", command=["train", os.fsdecode(b"caf\xe9")])
    assert not list(tmp_path.iterdir())
