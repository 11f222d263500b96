"""Pictures and names that are odd, and a machine that fails: the run goes on in spite of what can be left out, a full
disk and Ctrl-C are one sentence."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import bad_input
import pytest
from artifact_models import colour_picture, write_colours
from bad_input import GOOD, check_refused, contents
from pictures import class_files, encoded, noise, write_files
from typed import fresh, here

from netsmith.cli import main as cli


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("place")
    bad_input.make_folders(root)
    bad_input.make_tables(root)
    return root


def audited(data: str, *, cwd: Path) -> dict:
    done = fresh("audit", data, "--json", cwd=cwd, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("data", "left_out"),
    [
        ("some", {"cat/torn.png": "truncated", "dog/none.png": "empty"}),
        ("huge", {"cat/huge.png": "too large"}),
        ("odd", dict.fromkeys(["cat/self.png", "dog/endless.png", "dog/pipe.png"], "unreadable")),
        ("fine.csv", {}),
    ],
)
def test_what_cannot_be_read_is_named_and_counted(place, data, left_out):
    found = audited(data, cwd=place)
    named = {names[0]: row["kind"] for row in found["findings"] if row["left_out"] for names in row["files"]}
    assert named == left_out
    assert found["usable"] == len(GOOD)
    assert found["listed"] == len(GOOD) + len(left_out)


@pytest.mark.slow
def test_a_fit_goes_on_without_what_cannot_be_read(place, tmp_path):
    done = fresh("fit", str(place / "some"), "--time", "24s", "-o", "run", cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "cat/torn.png" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    skipped = next(row for row in rows if row["stage"] == "audit")["after"]["skipped"]
    assert {row["name"] for row in skipped} == {"cat/torn.png", "dog/none.png"}


def test_names_of_every_kind(tmp_path):
    classes = ["a\nb", "\u202ekitty\x1b[31m", "Katze", "katze", "con", "..x", "a,b", "ünï 猫", "-rf"]
    files = class_files({name: 3 for name in classes if not name.startswith(".")})
    files |= {"con/new\nline.png": encoded(noise(900)), "con/bad\nline.png": b"x"}
    write_files(tmp_path / "data", files)
    found = audited("data", cwd=tmp_path)
    assert set(found["classes"]) == set(classes) - {"..x"}, "hidden folders are no classes"
    text = fresh("audit", "data", cwd=tmp_path).stdout
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "con/bad\\nline.png" in text


def test_many_small_classes(tmp_path):
    write_files(tmp_path / "data", class_files({f"class {index}": 3 for index in range(300)}))
    found = audited("data", cwd=tmp_path)
    assert found["splits"] == {"train": 300, "val": 300, "test": 300}


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
def test_a_full_disk(tmp_path):
    write_files(tmp_path / "data", GOOD)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        exported = fresh("export", "resnet8_cifar", "-o", "disk/model", cwd=tmp_path)
        check_refused(exported, "disk/model cannot be written (No space left on device)", "name another with -o")
        assert not list(disk.iterdir()), "nothing is half written"
        (disk / "filler").write_bytes(bytes((64 << 10) - 4096))
        (disk / "run").mkdir()
        fitted = fresh("fit", "data", "--time", "10m", "-o", "disk/run", cwd=tmp_path)
        check_refused(fitted, "no space is left on the disk", "free some")
        assert not [path for path in disk.rglob("*") if path.name.endswith(".tmp")]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_anywhere(number, capsys, monkeypatch):
    def build(typed):
        raise OSError(number, os.strerror(number), "runs/pets/ledger.jsonl")

    monkeypatch.setattr(cli, "build", build)
    assert cli.run(["audit", "digits"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("netsmith: no space is left on the disk for runs/pets/ledger.jsonl")
    assert said.count("\n") == 1


def test_another_error_of_the_system_keeps_its_traceback(monkeypatch):
    def build(typed):
        raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(cli, "build", build)
    with pytest.raises(OSError, match="dying"):
        cli.run(["audit", "digits"])


def test_ctrl_c_while_reading_leaves_nothing(tmp_path):
    pictures = write_files(tmp_path / "data", class_files({"cat": 4, "dog": 4}))
    large = encoded(noise(1, 3000, 3000))
    for index in range(72):
        (pictures / "cat" / f"large{index}.png").write_bytes(large)
    before = contents(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "netsmith", "fit", "data", "--time", "10m", "-o", "run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert first.startswith("reading")
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("netsmith: stopped by Ctrl-C")
    assert "Traceback" not in said
    assert contents(tmp_path) == before
    shutil.rmtree(pictures)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ELOOP])
def test_a_file_that_the_system_keeps_from_us(number, capsys, monkeypatch):
    def build(typed):
        raise OSError(number, os.strerror(number), "runs/pets/ledger.jsonl")

    monkeypatch.setattr(cli, "build", build)
    assert cli.run(["audit", "digits"]) == 2
    said = f"runs/pets/ledger.jsonl cannot be used ({os.strerror(number)}); mend that and type the command again"
    assert capsys.readouterr().err == f"netsmith: {said}\n"


def test_other_errors_of_the_system_are_defects(monkeypatch):
    def build(typed):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "x")

    monkeypatch.setattr(cli, "build", build)
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.run(["audit", "digits"])


def test_names_that_are_not_utf8(tmp_path):
    """Of pictures that are predicted, as JSON and as CSV; of what a run would record."""
    write_colours(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.png")).write_bytes(colour_picture("red"))
    done = fresh("predict", "model", "photos", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["image"] == os.fsdecode(b"photos/caf\xe9.png")
    done = fresh("predict", "model", "photos", "--csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("photos/caf\\udce9.png,1,red,")
    write_files(tmp_path / os.fsdecode(b"caf\xe9"), GOOD)
    done = here("fit", os.fsdecode(b"caf\xe9"), "--time", "10m", "-o", "run", cwd=tmp_path)
    check_refused(done, "caf\\udce9 is no UTF-8", "rename it")
    assert not (tmp_path / "run").exists()
