"""The committed results: README.md shows them as they are, and they are what their rows give."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import degradation
import kernels
import pytest
import resnet_vs_efficientnet as versus
import scaling
from fill_readme import filled
from study import ROOT, Options, Study

README = (ROOT / "experiments" / "README.md").read_text()
RESULTS = ROOT / "experiments" / "results"
MOST_BYTES = 1_000_000
"""Of one experiment, charts included."""


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def show_versus(study: Study, rows: list[dict[str, Any]]) -> None:
    for subject in versus.SMALL.subjects:
        fronts = RESULTS / study.folder.name / f"{subject.data}-fronts.jsonl"
        if fronts.exists():
            groups: dict[str, list[dict[str, Any]]] = {}
            for row in rows_of(fronts):
                groups.setdefault(row["network"], []).append(row)
                [trained] = [other for other in rows if other["key"] == row["key"]]
                assert row.items() >= {name: value for name, value in trained.items() if name != "curve"}.items()
            versus.show(study, [*groups.values()], subject=subject, families=list(versus.SMALL.families))


SHOW: dict[str, Callable[[Study, list[dict[str, Any]]], None]] = {
    "degradation": lambda study, rows: degradation.show(study, rows, depths=degradation.SMALL.depths),
    "kernels": lambda study, rows: kernels.show(study, rows, setting=kernels.SMALL),
    "scaling": lambda study, rows: scaling.show(study, rows, setting=scaling.SMALL),
    "resnet_vs_efficientnet": show_versus,
}


@pytest.mark.parametrize("name", SHOW)
def test_tables_are_what_the_rows_give_and_what_the_readme_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = RESULTS / f"{name}-small"
    assert committed.exists(), f"{name} has no committed results"
    monkeypatch.setattr(Study, "chart", lambda self, file, series, **how: None)
    monkeypatch.setattr(Study, "forest", lambda self, file, gaps, **how: None)
    study = Study(name, Options(output=tmp_path), say=lambda line: None)
    study.folder.mkdir(parents=True)
    SHOW[name](study, rows_of(committed / "rows.jsonl"))
    tables = sorted(committed.glob("*.md"))
    assert [path.name for path in tables] == sorted(path.name for path in study.folder.glob("*.md"))
    for table in tables:
        assert table.read_text() == (study.folder / table.name).read_text()
        assert f"<!-- results/{name}-small/{table.name} -->" in README
    assert sum(path.stat().st_size for path in committed.iterdir()) < MOST_BYTES


def test_the_readme_holds_the_tables_as_they_are(tmp_path: Path) -> None:
    assert filled(README, ROOT / "experiments") == README, "python experiments/fill_readme.py puts the tables in"
    empty = filled(README, tmp_path)
    assert empty.count("not run yet\n\n<!-- end -->") == empty.count("<!-- end -->") == 6


def test_every_picture_of_the_readme_is_there() -> None:
    pictures = re.findall(r"\]\((results/[^)]+)\)", README)
    assert pictures
    assert [name for name in pictures if not (ROOT / "experiments" / name).exists()] == []
