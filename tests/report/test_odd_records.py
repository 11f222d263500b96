"""Records that are well-formed files and still not what a run writes: the page says so and stands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import fit_run

from netsmith.errors import InputError
from netsmith.report.page import write_report
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit_run(tmp_path_factory.mktemp("small") / "pets", train=60, val=30, test=30)


@pytest.fixture
def copy(small: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(small.path, tmp_path / "pets")))


def edit(path: Path, change: Callable[[Rows], None]) -> None:
    """Change the rows of a `.jsonl` file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def page(run: RunFolder) -> str:
    return write_report(run).read_text(encoding="utf-8")


def after_of(stage: str, **values: Any) -> Callable[[Rows], None]:
    """Replace entries of `after` in the rows of a stage; None removes one."""

    def change(rows: Rows) -> None:
        for row in rows:
            if row["stage"] == stage:
                row["after"] = {key: value for key, value in (row["after"] | values).items() if value is not None}

    return change


@pytest.mark.parametrize(
    "values",
    [
        {"rung": ""},
        {"rung": None},
        {"entries": None},
        {"entries": 3},
        {"entries": [1]},
        {"entries": [{"id": "a", "latency_ms": 1e308}]},
    ],
    ids=str,
)
def test_a_race_that_cannot_be_read(copy: RunFolder, values: dict[str, Any]) -> None:
    edit(copy.ledger, after_of("race", **values))
    assert "The ledger&#x27;s rows of the race cannot be read (" in page(copy)


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        ("audit", {"skipped": [7, None, {"name": ["x"]}], "shorter_side": [], "duplicates": {}, "pictures": "many"}),
        ("split", {"notes": {"a": 1}, "val": -3}),
        ("candidates", {"considered": [], "timed": "?"}),
        ("train", {"id": [], "steps": {}, "top1": 9}),
    ],
)
def test_odd_values_in_the_ledger(copy: RunFolder, stage: str, values: dict[str, Any]) -> None:
    edit(copy.ledger, after_of(stage, **values))
    assert "</html>" in page(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"progress": 7.0}, "a row has a wrong progress"),
        ({"loss": 1e300}, "a row has a wrong loss"),
        ({"val": {"top1": 42.0}}, "a row has a wrong val.top1"),
    ],
)
def test_numbers_that_no_training_has(copy: RunFolder, change: dict[str, Any], said: str) -> None:
    edit(copy.metrics, lambda rows: rows[0].update(change))
    assert said in page(copy)


def test_a_torn_last_line_is_nothing(copy: RunFolder) -> None:
    whole = page(copy)
    for path in (copy.ledger, copy.plan, copy.metrics):
        with open(path, "ab") as file:
            file.write(b'{"half')
    assert page(copy) == whole


def test_what_is_no_file_is_not_opened(copy: RunFolder) -> None:
    """Opening a pipe would wait forever."""
    copy.metrics.unlink()
    os.mkfifo(copy.metrics)
    copy.recipe.unlink()
    copy.recipe.mkdir()
    shown = page(copy)
    assert "metrics.jsonl is left out: it is no file." in shown
    assert "recipe.yaml is left out: it is no file." in shown


def test_deep_nesting(copy: RunFolder) -> None:
    for path in (copy.ledger, copy.results, copy.data):
        path.write_text("[" * 100_000 + "\n")
    shown = page(copy)
    for name in ("ledger.jsonl", "results.json", "data.json"):
        assert f"{name} is left out: " in shown


@pytest.mark.parametrize("text", ['{"command": 3}', '{"command": "fit"}', "[" * 100_000, "null", ""])
def test_a_marker_that_says_nothing(copy: RunFolder, text: str) -> None:
    copy.marker.write_text(text)
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        write_report(copy)


def test_a_budget_row_without_a_name(copy: RunFolder) -> None:
    document = json.loads(copy.results.read_text())
    document["budget"][0]["name"] = ""
    copy.results.write_text(json.dumps(document))
    assert "meets" in page(copy)


def test_charts_are_imported_when_one_is_drawn() -> None:
    code = "import sys, netsmith.report.page; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_numbers_beyond_any_count(copy: RunFolder) -> None:
    edit(copy.ledger, after_of("audit", pictures=10**400, shorter_side={"min": 10**400}))
    edit(copy.metrics, lambda rows: rows[0].update(step=10**400))
    document = json.loads(copy.results.read_text())
    document["final"]["macs"] = 10**400
    copy.results.write_text(json.dumps(document))
    shown = page(copy)
    for name in ("ledger.jsonl", "metrics.jsonl", "results.json"):
        assert f"{name} is left out: " in shown


def test_values_nested_deeper_than_anything_recorded(copy: RunFolder) -> None:
    """Read they can be; whoever writes them out must not go as deep."""
    deep: object = []
    for _ in range(600):
        deep = [deep]

    def change(rows: Rows) -> None:
        rows[-1].update(verdict="refused", before={"x": deep}, after={"x": deep})

    edit(copy.ledger, change)
    assert "…" in page(copy)


def test_a_candidate_that_diverged_without_a_name(copy: RunFolder) -> None:
    copy.metrics.unlink()
    edit(copy.ledger, lambda rows: rows.append(rows[-1] | {"stage": "diverged", "after": {"id": [1]}}))
    assert "</html>" in page(copy)


def test_what_happened_in_training_draws_nothing(copy: RunFolder) -> None:
    Plan(copy.plan).add("grad_accum", "\x1b[31m" + "9" * 1000, at=1, why="x")
    run = RunFolder(copy.path)
    run.marker.write_text('{"format": 1, "command": ["train", "x"]}')
    shown = page(run)
    assert "\x1b" not in shown
    assert "9" * 30 not in shown[shown.index("memory: ") :][:100], "what a chart has no room for is cut"
