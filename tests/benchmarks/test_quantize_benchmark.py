"""`benchmarks/cifar_weights.py` and `quantize.py`: the protocol and the rows, without CIFAR-10."""

import argparse
import json
from pathlib import Path

import cifar_weights
import numpy as np
import pytest
import quantize as benchmark

from netsmith.run.clock import FakeClock
from netsmith.run.ledger import Ledger


def test_the_test_batch_is_halved_by_class_and_always_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (300, 4, 4, 3), dtype=np.uint8),
        "labels": np.arange(300) % 3,
        "split": np.array(["train"] * 240 + ["test"] * 60),
        "classes": np.array(["a", "b", "c"]),
    }
    monkeypatch.setattr(cifar_weights, "Sums", lambda data: data)
    monkeypatch.setattr(cifar_weights, "cifar10", lambda sums: {key: value.copy() for key, value in arrays.items()})
    with np.load(cifar_weights.halves_npz(tmp_path, tmp_path / "work")) as whole:
        split, labels = whole["split"], whole["labels"]
    for side, count in (("train", 80), ("val", 10), ("test", 10)):
        assert np.bincount(labels[split == side]).tolist() == [count] * 3
    with np.load(cifar_weights.halves_npz(tmp_path, tmp_path / "work", train=30)) as few:
        assert np.bincount(few["labels"][few["split"] == "train"]).tolist() == [10] * 3
        np.testing.assert_array_equal(few["split"][few["split"] != "train"], split[split != "train"])


def test_a_refusal_is_a_row_too(tmp_path: Path) -> None:
    out = tmp_path / "resnet18-int8"
    out.mkdir()
    side = {
        "top1": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 300},
        "latency_ms": {"p50": 2.0, "p90": 3.0, "low": 2.5, "high": 3.5, "noise": 0.0},
        "size_bytes": 10,
    }
    slower = side | {"latency_ms": side["latency_ms"] | {"p50": 4.0}}
    out.with_name("resnet18-int8.begun").write_text('{"asked": {}, "made": [{"date": "2026-11-01", "commit": "old"}]}')
    ledger = Ledger(out / "ledger.jsonl", clock=FakeClock())
    ledger.add("quantize", verdict="refused", reason="it is not faster", before=side, after=slower)
    options = argparse.Namespace(output=tmp_path, smoke=False, time="20m")
    command = ["quantize", "float", "--data", "pictures", "--max-drop", "0.5", "--precision", "int8", "--resume"]
    (out / "run.json").write_text(json.dumps({"command": command}))
    row = benchmark.measured("resnet18", tmp_path / "float", tmp_path / "pictures", options)
    assert row["subject"] == "resnet18 int8, refused, float stays"
    assert row["note"] == "0.50x; it is not faster"
    assert row["latency_p50_ms"] == 4.0
    assert (row["date"], row["commit"]) == ("2026-11-01", "old")
    assert "test_top1" not in row
    assert row["command"] == "python benchmarks/quantize.py resnet18 --time 20m"
    smoke = argparse.Namespace(output=tmp_path, smoke=True, time="20m")
    with pytest.raises(SystemExit, match="was begun with command quantize float .*, not .* --calibration-size 32 "):
        benchmark.measured("resnet18", tmp_path / "float", tmp_path / "pictures", smoke)
