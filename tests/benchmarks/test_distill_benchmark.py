"""`benchmarks/distill.py` and `cifar_weights.py`: what is selected on, and what the rows say."""

import math
from pathlib import Path

import cifar_weights
import numpy as np
import pytest
from distill import NONE, T_95, cell, command_of, ground_of, interval, parse, refuse_unlike, summary

from netsmith.run.files import write_json


def test_half_of_every_class_of_the_test_batch_is_selected_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(120) % 3
    made = {
        "images": np.arange(120, dtype=np.uint8)[:, None],
        "labels": labels,
        "split": np.where(np.arange(120) < 60, "train", "test"),
        "classes": np.array(["a", "b", "c"]),
    }
    monkeypatch.setattr(cifar_weights, "Sums", lambda data: None)
    monkeypatch.setattr(cifar_weights, "cifar10", lambda sums: made)
    for train, kept in ((None, 60), (9, 9)):
        with np.load(cifar_weights.halves_npz(tmp_path, tmp_path / "work", train=train)) as found:
            counts = {name: np.bincount(found["labels"][found["split"] == name]).tolist() for name in ("val", "test")}
            assert counts == {"val": [10, 10, 10], "test": [10, 10, 10]}
            assert np.bincount(found["labels"][found["split"] == "train"]).tolist() == [kept // 3] * 3
            assert (found["labels"] == labels[found["images"][:, 0]]).all()


def test_intervals_are_students() -> None:
    """Of which the distribution function is known in closed form for two and for three values."""
    assert 0.5 + math.atan(T_95[2]) / math.pi == pytest.approx(0.975, abs=1e-5)
    assert 0.5 + T_95[3] / (2 * math.sqrt(2 + T_95[3] ** 2)) == pytest.approx(0.975, abs=1e-5)
    values = np.array([0.91, 0.93, 0.915])
    half = T_95[3] * values.std(ddof=1) / math.sqrt(3)
    assert interval(values.tolist()) == f"91.83 ({100 * (values.mean() - half):.2f} to 94.42)"
    assert interval([0.5]) == "50.00"


def test_gains_are_taken_seed_by_seed() -> None:
    def rows(*reached: float) -> list[dict[str, object]]:
        made = ({"date": f"2026-11-0{day}", "commit": f"on-day-{day}"} for day in (1, 2))
        return [{"test_top1": value, "n": 5000, **of} for value, of in zip(reached, made, strict=True)]

    alone, taught = summary({"model": "m", "commit": "now"}, {NONE: rows(0.8, 0.9), "kd": rows(0.81, 0.91)})
    assert (taught["date"], taught["commit"]) == ("2026-11-02", "on-day-1 on-day-2")
    assert alone["note"].startswith("mean of 2 seeds 85.00 (")
    assert "1.00 (1.00 to 1.00) points over none" in taught["note"]
    assert (taught["test_top1"], taught["n"], taught["subject"]) == (pytest.approx(0.86), 5000, "teacher: kd")


def test_other_pictures_on_another_device(tmp_path: Path) -> None:
    usual = parse(["--data", "data", "-o", "runs"])
    assert cell(usual, "kd", 0) == "resnet20_cifar@0.5-10m-kd-0", "kept cells are found again"
    assert command_of(usual, Path("p"), [], NONE, 1)[-4:] == ["--time", "600s", "--seed", "1"]
    more = ["--pictures", "sets/cifar100.npz", "--teacher", "runs/t", "--epochs", "240", "--device", "cuda"]
    options = parse([*more, "-o", "runs"])
    assert cell(options, NONE, 2) == "cifar100-resnet20_cifar@0.5-240e-cuda-none-2"
    for way, first in ((NONE, "train sets/cifar100.npz --model"), ("dkd", "distill resnet20_cifar@0.5 --data")):
        typed = " ".join(command_of(options, *ground_of(options), way, 0))
        assert typed.startswith(first)
        assert typed.endswith("--recipe fast --epochs 240 --device cuda --seed 0")
        assert ("--teacher runs/t --loss dkd --no-twin" in typed) == (way == "dkd")
    for words in (more[:2], more[2:], [*more, "--data", "data"]):
        with pytest.raises(SystemExit):
            parse([*words, "-o", "runs"])
    for name, sums in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "data.json", {"fingerprint": sums})
    refuse_unlike([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(SystemExit, match="other splits"):
        refuse_unlike([tmp_path / "a", tmp_path / "c"])
