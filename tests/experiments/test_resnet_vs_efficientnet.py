"""experiments/resnet_vs_efficientnet.py on made pictures, with measurements made up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import resnet_vs_efficientnet as versus
from made_study import SIDE, made_study
from resnet_vs_efficientnet import FULL, SMALL, Setting, Subject, on_front

from netsmith.arch.names import MODELS
from netsmith.artifact.latency import Measurement

TINY = Setting(
    families={"ResNet": ("resnet8_cifar",), "EfficientNet": ("efficientnet_b0",)},
    rates=(0.05, 0.1),
    subjects=(Subject(data="made", side=SIDE, macs=(1_500_000,), epochs=0.5),),
)


def test_every_network_exists() -> None:
    for setting in (SMALL, FULL):
        assert {name for names in setting.families.values() for name in names} <= set(MODELS)
        assert [subject.data for subject in setting.subjects] == ["cifar10", "fashion-mnist", "imagenette224"]


def test_rows_fronts_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def measured(models: Sequence[bytes], **how: Any) -> list[Measurement]:
        timed.append(len(models))
        assert how["threads"] == 1
        return [
            Measurement(
                p50_ms=1.0, p90_ms=1.0 + place, low=1.0, high=3.0, noise=0.01, peak_memory_bytes=None, threads=1,
                runtime="onnxruntime", warmup=1, runs=100, resize_ms=None,
            )
            for place in range(len(models))
        ]  # fmt: skip

    monkeypatch.setattr(versus, "measure_many", measured)
    study = made_study(tmp_path, name="versus")
    versus.main(study, TINY)
    trained = list(study._rows.values())
    assert len(trained) == 2 * (2 + 1)  # both rates with the first seed, the chosen one with the other
    rows = [json.loads(line) for line in (study.folder / "made-fronts.jsonl").read_text().splitlines()]
    assert {(row["family"], row["seed"]) for row in rows} == {
        (family, seed) for family in TINY.families for seed in (0, 1)
    }
    for family in TINY.families:
        mine = [row for row in rows if row["family"] == family]
        assert len({row["lr"] for row in mine}) == 1
        tried = [row for row in trained if row["family"] == family and row["seed"] == 0]
        assert next(row for row in mine if row["seed"] == 0)["val_top1"] == max(row["val_top1"] for row in tried)
    assert all(row["int8_ms"] is None and row["macs"] <= 1_500_000 and row["ms"] > 0 for row in rows)
    assert {type(row[f"front_{cost}"]) for row in rows for cost in versus.COSTS} == {bool}
    assert sorted(path.stem for path in study.folder.glob("*.svg")) == ["made-macs", "made-ms", "made-params"]
    versus.main(made_study(tmp_path, name="versus"), TINY)
    assert timed[0] == 2
    assert sum(timed) == 2  # quiet measurements are kept


def test_the_front_is_what_nothing_beats_on_validation() -> None:
    def rows(macs: int, val: float, test: float) -> list[dict[str, Any]]:
        return [{"seed": 0, "macs": macs, "val_top1": val, "test_top1": test}]

    groups = [rows(1, 0.5, 0.9), rows(2, 0.5, 0.9), rows(2, 0.7, 0.1), rows(3, 0.6, 1.0)]
    assert on_front(groups, "macs") == [True, False, True, False]
