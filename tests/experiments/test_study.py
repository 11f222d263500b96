"""What the experiments share: pictures, cells that go on where they stopped, intervals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import study as shared
from intervals import by_cost, difference, mean_of, over_seeds, percent
from made_study import SIDE, made_study
from picture_sets import find_source
from study import Cell, Study, parse, train_cell

from netsmith.arch.names import find_layout
from netsmith.errors import CheckError, InputError
from netsmith.run.recipe import Recipe


def cell(study: Study, **changes: Any) -> Cell:
    recipe = Recipe(
        model="resnet8_cifar", img_size=SIDE, epochs=2.0, batch_size=16, lr=0.05, crop_scale=None, pad=1, threads=1
    )
    given: dict[str, Any] = {
        "network": "resnet8_cifar",
        "layout": find_layout("resnet8_cifar@0.5", num_classes=3, img_size=SIDE),
        "pictures": study.pictures("made", side=SIDE),
        "recipe": recipe,
        "factors": {"arm": "a"},
        "marks": 3,
    }
    return Cell(**(given | changes))


def test_splits_share_no_picture_and_fewer_pictures_are_some_of_them(tmp_path: Path) -> None:
    study = made_study(tmp_path)
    pictures = study.pictures("made", side=SIDE)
    sizes = {len(part.labels) for part in (pictures.train, pictures.val)}
    assert sizes == {81, 9}
    assert len(pictures.test.labels) == 30
    seen = [picture.tobytes() for part in (pictures.train, pictures.val, pictures.test) for picture in part.pixels]
    assert len(set(seen)) == 120
    few = study.pictures("made", side=SIDE, train=12, test=6)
    assert np.array_equal(few.train.pixels, pictures.train.pixels[:12])
    assert np.bincount(few.train.labels).tolist() == [4, 4, 4]
    assert (len(few.val.labels), len(few.test.labels)) == (6, 6)
    assert few.fingerprint != pictures.fingerprint


def test_a_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set cifar10 in .*--data"):
        find_source("cifar10", data=tmp_path, work=tmp_path)


def test_a_cell_is_trained_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made_study(tmp_path)
    cells = [cell(study), cell(study, factors={"arm": "b"})]
    rows = study.run(cells)
    assert [row["arm"] for row in rows] == ["a", "b"]
    assert [at["progress"] for at in rows[0]["curve"]] == [0.0, 1 / 3, 2 / 3, 1.0]
    assert rows[0]["curve"][-1]["val_top1"] == rows[0]["val_top1"] == rows[1]["val_top1"]
    assert rows[0]["steps"] == 10
    assert rows[0]["diverged"] is None
    assert rows[0]["train_top1"] > 0.6
    assert not list((tmp_path / "work" / "cells").iterdir())

    def never(cell: Cell, **how: Any) -> None:
        raise AssertionError("a finished cell is trained again")

    monkeypatch.setattr(shared, "train_cell", never)
    again = made_study(tmp_path)
    assert again.run([cell(again), cell(again, factors={"arm": "b"})]) == rows
    assert [json.loads(line) for line in again.path.read_text().splitlines()] == rows
    with pytest.raises(AssertionError, match="trained again"):
        again.run([cell(again, marks=2)])


def test_a_stopped_cell_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    study = made_study(tmp_path)
    seen: list[int] = []

    def stopping(network: Any, pictures: Any) -> dict[str, Any]:
        seen.append(len(seen))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return {}

    whole = train_cell(cell(study), folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_cell(cell(study, look=stopping), folder=tmp_path / "stopped")
    row = train_cell(cell(study, look=stopping), folder=tmp_path / "stopped")
    assert len(seen) == 5  # two before the stop, the one that stopped, two after it
    for name in ("steps", "curve", "train_top1", "train_loss", "test_loss"):
        assert row[name] == whole[name]


def test_a_training_that_diverges_is_a_row(tmp_path: Path) -> None:
    study = made_study(tmp_path)
    wild = cell(study, recipe=cell(study).recipe.model_copy(update={"lr": 1e30, "warmup": 0.0}))
    [row] = study.run([wild])
    assert "not finite" in row["diverged"]
    assert row["test_top1"] is None
    assert percent(over_seeds([row], "test_top1")) == "diverged"
    assert made_study(tmp_path).run([replace(wild)]) == [row]
    assert issubclass(CheckError, Exception)


def test_an_estimate_leaves_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    made = made_study(tmp_path)
    study = Study("made", replace(made.options, estimate=True), say=lines.append)
    assert study.run([cell(study)]) == []
    assert study.run([cell(study), cell(study, factors={"arm": "b"})]) == []
    assert len(lines) == 1  # the same network on the same pictures is timed once
    assert "(estimate)" in lines[0]
    assert study.ahead.keys() == {cell(study).key, cell(study, factors={"arm": "b"}).key}
    assert min(study.ahead.values()) > 0
    assert not study.folder.exists()


def test_intervals_are_students() -> None:
    interval = mean_of([0.1, 0.2, 0.3])
    assert interval.value == pytest.approx(0.2)
    assert interval.high - interval.value == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert percent(interval) == "20.0 (-4.8 to 44.8)"
    assert percent(mean_of([0.5])) == "50.0 (one seed)"


def test_differences_are_taken_seed_by_seed() -> None:
    rows = [{"seed": seed, "test_top1": value, "macs": 2e6} for seed, value in ((0, 0.5), (1, 0.7), (2, None))]
    others = [{"seed": seed, "test_top1": value, "macs": 1e6} for seed, value in ((2, 0.1), (1, 0.6), (0, 0.4))]
    gap = difference(rows, others, "test_top1")
    assert gap is not None
    assert (gap.n, round(gap.value, 9)) == (2, 0.1)
    assert percent(gap, sign=True).startswith("+10.0 (+10.0")
    line = by_cost([rows, others], "macs", title="t")
    assert (line.x, [round(y, 9) for y in line.y]) == ([1.0, 2.0], [round(1.1 / 3, 9), 0.6])


def test_flags() -> None:
    assert parse("", ["--full", "--seeds", "5", "--data", "d"]).full
    assert not parse("", []).full
    for wrong in (["--full", "--small"], ["--seeds", "0"], ["--seeds", "32"]):
        with pytest.raises(SystemExit) as stop:
            parse("", wrong)
        assert stop.value.code == 2
