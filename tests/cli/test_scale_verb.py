"""`netsmith scale` as typed, and its layout where a name is asked for."""

import json
import os
from pathlib import Path

import pytest
from bad_input import check_refused, contents
from typed import here

from netsmith.arch.cost import cost
from netsmith.arch.names import find_layout


def test_scaled_written_and_used_as_a_name(tmp_path: Path):
    done = here("scale", "resnet20_cifar", "--macs", "2x", "-o", "large.json", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    layout = find_layout(str(tmp_path / "large.json"))
    assert found["after"]["macs"] == found["target"]["reached"] == cost(layout).macs <= found["target"]["limit"]
    assert found["target"] == {"measure": "macs", "limit": 81_102_080, "reached": cost(layout).macs}
    assert found["before"]["stages"][2] == {"name": "stage3", "blocks": 3, "width": 64}
    assert found["after"]["blocks"] == sum(len(stage.blocks) for stage in layout.stages)
    assert found["after"]["name"] == layout.name
    profiled = here("profile", "large.json", "--no-latency", "--json", cwd=tmp_path)
    assert json.loads(profiled.stdout)["total"]["macs"] == cost(layout).macs
    named = here("profile", layout.name, "--no-latency", "--json", cwd=tmp_path)
    assert json.loads(named.stdout)["total"] == json.loads(profiled.stdout)["total"]


def test_before_and_after_as_a_table(tmp_path: Path):
    done = here("scale", "resnet18", "--params", "3M", "--rule", "width", "--img-size", "64", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("resnet18 -> resnet18@width=0.49")
    rows = {line.split()[0]: line.split() for line in lines[2:] if line}
    assert rows["params"][1] == "11.68M"  # the stem for small pictures
    assert rows["pixels"][1:] == ["64", "64", "1.000x"]
    assert rows["blocks"][1:] == ["8", "8", "1.000x"]
    assert rows["stage1,"][4:6] == ["2", "of"]
    assert "of 3,000,000 params (9" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_it_says_when_no_step_is_near(tmp_path: Path):
    done = here("scale", "resnet18", "--macs", "1.3x", "--rule", "depth", cwd=tmp_path)
    assert done.returncode == 0
    assert "other rules may" in done.stderr
    assert "(76.9%)" in done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scaling")
    (root / "there.json").write_text("mine")
    (root / "folder.json").mkdir()
    os.mkfifo(root / "pipe.json")
    return root


REFUSED = [
    ("resnet18", "one target is needed", "such as --macs 2x"),
    ("resnet18 --macs 2x --params 2x", "one target is needed"),
    ("resnet18 --macs abc", "--macs 'abc' is neither a number (600M, 1.5G) nor a multiple (2x, 0.5x)"),
    ("resnet18 --macs 2.5q", "is neither a number"),
    ("resnet18 --macs 0x", "must be above zero"),
    ("resnet18 --macs 1.5", "not a whole number"),
    ("resnet18 --macs " + "9" * 400, "beyond anything"),
    ("resnet18 --macs 0.1x --rule depth", "does not reach 181,407,334 MACs", "the least is 889,229,312"),
    ("resnet18 --params 2x --rule resolution", "does not reach 23,379,024 params", "the most is 11,689,512"),
    ("resnet18 --macs 2x --rule fst", "fst"),
    ("resnet19 --macs 2x", "no model is called 'resnet19'", "did you mean resnet18"),
    ("resnet18@0 --macs 2x", "width is multiplied by 0; give a number above 0"),
    ("resnet18@0.001 --macs 2x", "a width multiplier of 0.001 is outside 0.01..100"),
    ("resnet18@depth=0.001 --macs 2x", "a depth multiplier of 0.001 is outside 0.01..100"),
    ("resnet18@resolution=0.1 --macs 2x", "a resolution of 22 is too small for strides of 32"),
    ("resnet18:phi=-20 --macs 2x", "a resolution of 14 is too small for strides of 32"),
    ("resnet18 --macs 2x --img-size 3", "--img-size is 3; give 4 to 4096"),
    ("resnet18 --macs 2x --num-classes 0", "num_classes is 0"),
    ("resnet18 --macs 2x -o out", "does not end in .json", "name one that does"),
    ("resnet18 --macs 2x -o there.json", "already exists", "give --overwrite"),
    ("resnet18 --macs 2x -o folder.json", "folder.json is a folder"),
    ("resnet18 --macs 2x -o there.json/out.json", "cannot be written", "name another with -o"),
    ("there.json --macs 2x", "there.json is a layout, whose widths are fixed"),
]


@pytest.mark.parametrize(("typed", "said"), [pytest.param(t, said, id=t[:60]) for t, *said in REFUSED])
def test_refused(place: Path, typed: str, said: list[str]):
    before = contents(place)
    check_refused(here("scale", *typed.split(), cwd=place), *said)
    assert contents(place) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("there.json", "is not JSON"),
        ("folder.json", "there is no layout file"),
        ("pipe.json", "there is no layout file"),
    ],
)
def test_files_that_are_no_layout(place: Path, name: str, said: str):
    check_refused(here("profile", name, cwd=place), said)
