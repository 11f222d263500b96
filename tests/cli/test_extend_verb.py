"""`netsmith extend` as a person types it: what it writes, what it says, what it refuses."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from bad_input import check_refused, contents
from typed import here

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.runtimes import open_session
from netsmith.cli.main import run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, the same without weights, and other things."""
    root = tmp_path_factory.mktemp("place")
    small = ["--img-size", "16", "--num-classes", "3", "--quiet"]
    assert run(["export", "resnet8_cifar@0.5", "-o", str(root / "model"), *small]) == 0
    assert run(["export", str(root / "model"), "-o", str(root / "bare"), "--no-weights", "--quiet"]) == 0
    (root / "mine").mkdir()
    (root / "mine" / "thesis.txt").write_text("years of work")
    return root


def test_grows_and_ships(place: Path, tmp_path: Path) -> None:
    before = contents(place)
    asked = ["--width", "1.5", "--depth", "2", "--head", "wolf, fox", "--json"]
    done = here("extend", "model", "-o", str(tmp_path / "larger"), *asked, cwd=place)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["model"], said["classes"]) == ("resnet8_cifar@0.5+width=1.5,depth=2-2-2", 5)
    assert said["after"]["params"] > said["before"]["params"]
    assert said["logit_difference"] < 1e-7
    assert contents(place) == before, "the input is only read"
    old, new = load_bundle(place / "model"), load_bundle(tmp_path / "larger", check_hashes=True)
    assert new.config.labels == (*old.config.labels, "wolf", "fox")
    assert new.config.preprocess == old.config.preprocess
    assert str(new.config.provenance.weights).startswith("resnet8_cifar@0.5 of artifact ")
    assert {path.name for path in new.folder.iterdir()} == {path.name for path in old.folder.iterdir()}
    assert new.golden().encoded == old.golden().encoded
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    first, then = (open_session(bundle).run(pixels).logits for bundle in (old, new))
    assert np.abs(then[:, :3] - first).max() < 1e-5 * np.abs(first).max()
    assert (then.argmax(axis=1) == first.argmax(axis=1)).all(), "no new class is the first answer"


def test_more_classes_by_number(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["extend", str(place / "model"), "-o", str(tmp_path / "more"), "--head", "5", "--quiet"]) == 0
    assert load_bundle(tmp_path / "more").config.labels == ("0", "1", "2", "class 3", "class 4")
    shown = capsys.readouterr().out
    assert "MACs" in shown
    assert "limit 1e-05" in shown


REFUSED = [
    ("nowhere -o out --width 2", "there is no nowhere", "give the folder of an artifact or of a run"),
    ("mine -o out --width 2", "mine is neither an artifact", "nor a run"),
    ("bare -o out --width 2", "bare was shipped without model.safetensors", "load the folder it came from"),
    ("model -o out", "nothing is asked for", "give --width, --depth or --head"),
    ("model -o mine --width 2", "mine already exists", "name another with -o"),
    ("model -o model --width 2", "model already exists", "name another with -o"),
    ("model -o mine/thesis.txt/out --width 2", "mine/thesis.txt/out cannot be written", "name another with -o"),
    ("model -o out --width 0.5", "widths are multiplied by 0.5", "give a number above 1"),
    ("model -o out --width nan", "widths are multiplied by nan", "give a number above 1"),
    ("model -o out --width 1.001", "a width of 1.001 times adds no channel", "give a larger one"),
    ("model -o out --width x", "--width"),
    ("model -o out --depth 0.9", "depth is multiplied by 0.9", "give a number above 1"),
    ("model -o out --depth deep", "--depth deep is neither a number such as 1.5 nor blocks per stage"),
    ("model -o out --depth 1,x,1", "--depth 1,x,1 is neither a number such as 1.5 nor blocks per stage"),
    ("model -o out --depth 2,2", "its 3 stages have 1,1,1 blocks and cannot become 2,2", "a count for every stage"),
    ("model -o out --depth 2,0,1", "cannot become 2,0,1", "none below what it has"),
    ("model -o out --depth 1,1,1", "its stages have 1,1,1 blocks already", "ask for more"),
    ("model -o out --depth 1,1,99999", "100001 blocks are more than the 4096 that a layout may have"),
    ("model -o out --head 3", "--head 3: there are 3 classes now", "give a number above that"),
    ("model -o out --head -4", "--head"),
    ("model -o out --head 999999999", "there are 3 classes now", "at most 131072"),
    ("model -o out --head cat,,dog", "--head cat,,dog: a name is empty", "give different names"),
    ("model -o out --head cat,1", "--head cat,1: '1' is there twice", "give different names"),
    ("model -o out --widht 2", "there is no flag '--widht'", "did you mean '--width'?"),
    ("model --width 2", "--output"),
]


@pytest.mark.parametrize(("typed", "said"), [pytest.param(typed, said, id=typed) for typed, *said in REFUSED])
def test_refused(place: Path, typed: str, said: list[str], monkeypatch, capsys) -> None:
    """In this process; one of them below as a command of its own."""
    before = contents(place)
    monkeypatch.chdir(place)
    assert run(["extend", *shlex.split(typed)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = [line for line in shown.err.splitlines() if line.startswith("netsmith: ")]
    assert all(piece in line for piece in said), line
    assert contents(place) == before, "nothing is written or lost"


def test_refused_as_a_command(place: Path) -> None:
    check_refused(here("extend", "bare", "-o", "out", "--width", "2", cwd=place), "was shipped without", "load the")


def test_a_change_of_the_logits_is_not_written(place: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("netsmith.models.extend.logit_difference", lambda *of: 2e-5)
    assert run(["extend", str(place / "model"), "-o", str(tmp_path / "out"), "--width", "2", "--quiet"]) == 1
    assert "differ by 2e-05 of the largest, the limit is 1e-05; nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
