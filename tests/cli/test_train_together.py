"""`netsmith train` in two processes of torchrun, from flags to the exported model: one voice, one run, the weights of
one process. `test_torchrun.py` has the agents themselves, kills and signals."""

from pathlib import Path

import numpy as np
import paired_train
import pytest
from cut_short import ends_when_exported
from pictures import class_files, write_files
from processes import of_one_world
from safetensors.numpy import load_file

from netsmith.cli.main import run

SCRIPT = Path(paired_train.__file__)
FLAGS = ["--model", "resnet8_cifar@0.5", "--img-size", "16", "--epochs", "1", "-b", "28", "--ema", "0", "--lr", "0.01",
         "--threads", "1", "--sync-bn", "-o", "run"]  # fmt: skip


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    pictures = write_files(tmp_path_factory.mktemp("pictures"), class_files({"cat": 60, "dog": 60}))
    return ["train", str(pictures), *FLAGS]


def test_two_processes_make_one_run_with_the_weights_of_one(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = of_one_world(SCRIPT, tmp_path, *typed)
    code, _, said = first
    assert (code, said.splitlines()[-1]) == (1, "netsmith: exported")
    assert said.count("3 steps, 1.0 epochs") == 1
    assert second == (0, "", "")
    assert list((tmp_path / "1").iterdir()) == []  # the first alone has the run folder, and finishes it
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    ends_when_exported(monkeypatch)
    assert run(typed) == 1
    ours, theirs = (load_file(tmp_path / place / "run/model/model.safetensors") for place in ("0", "alone"))
    assert ours.keys() == theirs.keys()
    for name, weights in theirs.items():
        np.testing.assert_allclose(ours[name], weights, rtol=1e-4, atol=1e-4, err_msg=name)


def test_processes_of_which_one_was_given_another_command_begin_nothing(typed: list[str], tmp_path: Path) -> None:
    found = of_one_world(SCRIPT, tmp_path, *typed, "--seed", paired_train.OWN_RANK)
    assert [code for code, *_ in found] == [2, 2]
    assert [out for _, out, _ in found] == ["", ""]
    assert "every process needs the same command" in found[0][2]
    assert found[1][2] == ""
    assert [list((tmp_path / place).iterdir()) for place in ("0", "1")] == [[], []]
