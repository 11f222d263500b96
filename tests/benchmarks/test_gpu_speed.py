"""`benchmarks/gpu_speed.py`: what its rows say, without a GPU."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import gpu_speed
import pytest

from netsmith.run.recipe import Recipe


def options(**changes: Any) -> argparse.Namespace:
    values = {"task": "cifar94", "device": "cpu", "dtype": "float32", "compile": False, "tiny": True, "seeds": 3}
    more = {"epochs": 1, "batch": 8, "pictures": 40, "data": Path("absent"), "work": Path("absent")}
    return argparse.Namespace(**(values | more | changes))


@pytest.mark.parametrize("task", list(gpu_speed.CIFAR_TASKS))
def test_the_races_recipes_are_recipes(task: str) -> None:
    assert Recipe(model="resnet18", img_size=32, **gpu_speed.CIFAR_TASKS[task].recipe).epochs


def test_a_race_reports_seeds_that_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([0.945, 0.9399, 0.94])
    monkeypatch.setattr(gpu_speed, "cifar10_npz", lambda data, work: work)
    monkeypatch.setattr(
        gpu_speed, "child", lambda options, *_: {"seconds": 10.0, "top1": next(answers), "n": 10_000, "way": "bf16"}
    )
    [row] = gpu_speed.race(options())
    assert row["note"].startswith(
        "2 of 3 seeds reach 94%; mean 0.9416; seconds as airbench counts 10.00 (10.00 to 10.00"
    )
    assert row["test_top1"] == pytest.approx(0.9416, abs=1e-4)


def test_speeds_are_medians_beside_netsmiths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates = {"netsmith": [300.0, 330.0, 290.0], "torchvision": [100.0, 99.0, 120.0], "timm": [150.0, 160.0, 140.0]}
    asked: list[str] = []

    def child(options: argparse.Namespace, flag: str, name: str) -> dict[str, Any]:
        asked.append(name)
        return {"rate": rates[name][asked.count(name) - 1], "way": "w"}

    monkeypatch.setattr(gpu_speed, "child", child)
    notes = {row["subject"]: row["note"] for row in gpu_speed.speeds(options(work=tmp_path, pictures=3))}
    assert asked == [
        "netsmith",
        "torchvision",
        "timm",
        "timm",
        "torchvision",
        "netsmith",
        "netsmith",
        "torchvision",
        "timm",
    ]
    assert notes["netsmith"].startswith("300 images/s (290 to 330, 3 rounds); w")
    assert "netsmith is 3.00 times as fast" in notes["torchvision"]
    assert "netsmith is 2.00 times as fast" in notes["timm"]
    assert len(list((tmp_path / "photos").rglob("*.jpg"))) == 3


@pytest.mark.slow
def test_the_script_runs_tiny_on_a_cpu(tmp_path: Path) -> None:
    gpu_speed.made_photos(tmp_path / "photos", 40)
    found = gpu_speed.speed_of_netsmith(options(), tmp_path / "photos")
    assert found["rate"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # timm's pictures stay open
@pytest.mark.parametrize("subject", ["torchvision", "timm"])
@pytest.mark.reference
def test_the_peers_loops_run_tiny_on_a_cpu(subject: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(subject) is None:
        pytest.skip(f"no {subject}")
    gpu_speed.made_photos(tmp_path / "photos", 40)
    assert gpu_speed.SUBJECTS[subject](options(), tmp_path / "photos")["rate"] > 0


@pytest.mark.slow
def test_a_race_runs_tiny_on_a_cpu(tmp_path: Path, test_data: Path) -> None:
    found = gpu_speed.to_accuracy(options(data=test_data, work=tmp_path, seed=0))
    assert 0.0 <= found["top1"] <= 1.0
    assert found["n"] == 50
