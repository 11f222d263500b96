"""Which process of several this is, by torchrun's variables."""

import pytest

from netsmith.cli.main import VERBS, run
from netsmith.errors import InputError
from netsmith.run.world import World, alone

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a",
    "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip


def test_torchrun_says_who_this_is():
    world = World.here(TORCHRUN)
    assert world == World(rank=3, size=4, local=1, local_size=2, restarts=2)
    assert world.several
    assert not world.leads


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_one_alone_where_a_variable_is_missing(missing):
    assert World.here({name: value for name, value in TORCHRUN.items() if name != missing}) == World()
    assert World().leads
    assert not World().several


@pytest.mark.parametrize("wrong", [{"RANK": "x"}, {"RANK": "4"}, {"LOCAL_RANK": "2"}, {"RANK": "-1"}])
def test_variables_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="torchrun"):
        World.here(TORCHRUN | wrong)


def test_alone_is_the_call():
    assert alone(lambda: 3) == 3


FOR_ONE = [[verb] for verb in VERBS if verb != "train"]
FOR_ONE += [["fit", "digits"], ["train", "digits", "--model", "resnet8_cifar", "--find-lr"]]


@pytest.mark.parametrize("typed", FOR_ONE, ids=" ".join)
def test_what_is_for_one_process_is_refused_in_a_sentence(typed, monkeypatch, capsys, tmp_path):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert run([*typed, "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "is for one process, and torchrun started 4" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    monkeypatch.delenv("RANK")  # what one of them starts alone
    assert run([typed[0], "--help"]) == 0
