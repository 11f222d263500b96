"""Which run a model belongs to when it is scored, and that its test pictures stay sealed until it is finished."""

import json
import shutil

import pytest
from artifact_models import colour_model, write_colour_run, write_colours
from test_verify import MEASURED

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.validate import validate
from netsmith.errors import InputError
from netsmith.run.files import write_json


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run without results, with a candidate."""
    root = tmp_path_factory.mktemp("unfinished")
    write_colour_run(root, latency=MEASURED)
    (root / "run" / "results.json").unlink()
    shutil.copytree(root / "run" / "model", root / "run" / "candidates" / "one" / "model")
    (root / "link").symlink_to(root / "run" / "candidates" / "one" / "model")
    return root


@pytest.mark.parametrize("path", ["run", "run/model", "run/candidates/one/model", "link"])
def test_every_model_of_an_unfinished_run_sees_the_seal(unfinished, path):
    for split in ("test", "all"):
        with pytest.raises(InputError, match="stays sealed"):
            validate(unfinished / path, data=str(unfinished / "data"), split=split)
    found = validate(unfinished / path)  # the run says where its pictures are
    assert found.split == "val"
    assert len(found.targets) > 0


def test_a_copy_outside_of_any_run_is_of_none(unfinished, tmp_path):
    shutil.copytree(unfinished / "run" / "model", tmp_path / "model")
    with pytest.raises(InputError, match="without its run"):
        validate(tmp_path / "model")


def test_pictures_of_a_run_that_are_elsewhere_now_can_be_given(unfinished, tmp_path, monkeypatch):
    """The run knows them by the path that was typed, which from another folder leads nowhere."""
    shutil.copytree(unfinished / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    write_json(tmp_path / "run" / "data.json", {**record, "source": "data"})
    with pytest.raises(InputError, match="was made from data, and there is no .* here; give its pictures with --data"):
        validate(tmp_path / "run")
    assert validate(tmp_path / "run", data=str(unfinished / "data")).split == "val"
    monkeypatch.chdir(unfinished)
    assert validate(tmp_path / "run").split == "val"


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b""])
def test_a_record_of_the_pictures_that_is_damaged(unfinished, tmp_path, content):
    shutil.copytree(unfinished / "run", tmp_path / "run")
    (tmp_path / "run" / "data.json").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.json cannot be read .*restore it or make the run again"):
        validate(tmp_path / "run")
    with pytest.raises(InputError, match=r"data\.json cannot be read"):
        validate(tmp_path / "run", data=str(unfinished / "data"))


def test_answers_that_are_no_numbers(unfinished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(unfinished / "run", run)
    labels = load_bundle(run).config.labels
    shutil.rmtree(run / "model")
    write_colours(run / "model", model=colour_model(scale=float("nan")), labels=labels)
    with pytest.raises(InputError, match="answers with what is no number"):
        validate(run)
