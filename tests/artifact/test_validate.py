"""Which run a model belongs to when it is scored, and that its test pictures stay sealed until it is finished."""

import shutil

import pytest
from artifact_models import write_colour_run
from test_verify import MEASURED

from netsmith.artifact.validate import validate
from netsmith.errors import InputError


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
