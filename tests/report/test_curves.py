"""Learning curves as SVG: of one run with its events, of several, with names from strangers."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from made_runs import train_run

from netsmith.cli.main import run as netsmith
from netsmith.run.files import append_jsonl
from netsmith.run.plan import Plan


def words(path: Path) -> list[str]:
    root = ET.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    ids = [value for node in root.iter() for key, value in node.attrib.items() if key == "id"]
    assert len(ids) == len(set(ids))
    style, *rest = [text.strip() for text in root.itertext() if text.strip()]
    assert "prefers-color-scheme: dark" in style
    return rest


def test_one_run_with_what_happened_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_run(tmp_path / "r18")
    Plan(run.plan).add("grad_accum", 4, at=20, why="memory ran out")
    Plan(run.plan).add("lr_factor", 0.5, at=30, why="the loss was not finite")
    layers = [{"name": f"l{n}", "gradient": 0.1 * 2.0**-n, "weight": 1.0} for n in range(12)]
    append_jsonl(run.gradients, {"step": 5, "progress": 0.1, "layers": layers})
    append_jsonl(run.metrics, {"step": 56, "progress": 1.0, "epoch": 12.0, "side": 96, "loss": 0.5, "grad_norm": 1.2,
                               "top1": 0.9, "val": {"top1": 0.9, "loss": 0.4}})  # fmt: skip
    assert netsmith(["curves", str(run.path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run.curves)
    shown = words(run.curves)
    for expected in ("training", "validation", "learning rate", "norm of the gradient", "gradient / weight", "epoch"):
        assert expected in shown
    assert shown.count("memory: 4 parts") == 4  # in every chart over epochs
    assert "rewound, rate × 0.5" in shown
    before = run.curves.read_bytes()
    assert netsmith(["curves", str(run.path)]) == 0
    assert run.curves.read_bytes() == before


def test_twins_in_one_picture_and_names_that_are_no_markup(tmp_path: Path) -> None:
    one, other = train_run(tmp_path / "_a<b>$x$"), train_run(tmp_path / "plain56")
    target = tmp_path / "twins.svg"
    assert netsmith(["curves", str(one.path), str(other.path), "-o", str(target), "--json"]) == 0
    shown = words(target)
    assert {"_a<b>$x$", "plain56"} <= set(shown)
    assert netsmith(["curves", str(one.path), str(other.path), "-o", str(target)]) == 0  # an earlier one is replaced


@pytest.mark.parametrize(
    ("extra", "mend"),
    [
        (["{run}"], "name the file with -o"),
        (["{run}"] * 6 + ["-o", "x.svg"], "name at most 6"),
        (["-o", "{run}/run.json"], "name another file with -o"),
    ],
)
def test_mistakes(tmp_path: Path, extra: list[str], mend: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_run(tmp_path / "r18")
    assert netsmith(["curves", str(run.path), *(word.format(run=run.path) for word in extra)]) == 2
    assert mend in capsys.readouterr().err


def test_a_run_without_curves_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_run(tmp_path / "r18")
    run.metrics.unlink()
    assert netsmith(["curves", str(run.path)]) == 2
    assert "There is no metrics.jsonl; train first" in capsys.readouterr().err
