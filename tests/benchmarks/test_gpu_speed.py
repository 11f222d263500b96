"""`benchmarks/gpu_speed.py`: what its rows say, without a GPU."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any, cast

import gpu_photos
import gpu_speed
import pytest

from netsmith.arch.names import find_layout


def options(*words: str, task: str = "cifar94", **changes: Any) -> argparse.Namespace:
    found = gpu_speed.parse([task, "--device", "cpu", "--dtype", "float32", "--tiny", *words])
    vars(found).update(
        {"passes": 1, "batch": 8, "pictures": 40, "data": Path("absent"), "work": Path("absent")} | changes
    )
    return found


@pytest.mark.parametrize("task", list(gpu_speed.CIFAR_TASKS))
def test_the_races_recipes_are_recipes(task: str) -> None:
    asked = gpu_speed.CIFAR_TASKS[task]
    recipe = gpu_speed.recipe_of(options(task=task, tiny=False, model=asked.model, seed=3))
    assert (recipe.epochs, recipe.model, recipe.seed) == (asked.recipe["epochs"], asked.model, 3)
    assert gpu_speed.recipe_of(options(task=task, tiny=False, model="resnet18", seed=0, epochs=2.5)).epochs == 2.5
    assert find_layout(asked.model, num_classes=10, img_size=32)


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = gpu_speed.recipe_of(options(task="resnet-cifar", tiny=False, model="resnet110_cifar", seed=0))
    assert recipe.epochs is not None
    assert round(recipe.epochs * 50_000 / recipe.batch_size) == 64_000
    assert (recipe.lr, recipe.nesterov, recipe.smoothing, recipe.warmup) == (0.1, False, 0.0, 0.00625)


def test_what_cannot_be_asked_for() -> None:
    refused = ["cifar94 --at-once 2", "resnet-cifar --models resnet18", "cifar94 --held-out --graphs"]
    for words in map(str.split, refused):
        with pytest.raises(SystemExit):
            gpu_speed.parse(words)
    assert gpu_speed.parse(["cifar94", "--at-once", "2", "--held-out"]).at_once == 2


def test_what_was_measured_is_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def child(options: argparse.Namespace, folder: Path, *more: str) -> dict[str, Any]:
        asked.append(more)
        return {"top1": 0.9, "n": 10_000, "seconds": 60.0, "way": "w"}

    monkeypatch.setattr(gpu_speed, "child", child)
    monkeypatch.setattr(gpu_speed, "cifar10_npz", lambda data, work: work)
    models = ["--models", "resnet20_cifar"]
    for seeds, fresh in ((["0", "1"], 2), (["0", "1", "2"], 1)):
        words = [*models, "--at-once", "2", "--seeds", *seeds]
        [row] = gpu_speed.paper(options(*words, task="resnet-cifar", work=tmp_path))
        assert len(asked) == fresh
        asked.clear()
    assert row["note"].startswith("test errors 10.00 (10.00 to 10.00, n 3) %; the paper's 8.75 %; minutes 1.00 (")
    list(gpu_speed.paper(options(*models, "--compile", task="resnet-cifar", work=tmp_path)))  # is another measurement
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("task", "change"), [("resnet50", {"batch": 16}), ("resnet-cifar", {"data": Path("more")}), ("cifar94", {})]
)
def test_what_was_measured_otherwise_is_not_taken_for_what_is_asked(
    task: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A later commit is no other measurement, but rows say at which it was made."""
    asked: list[Path] = []

    def child(options: argparse.Namespace, folder: Path, *_: str) -> dict[str, Any]:
        asked.append(folder)
        return {"rate": 1.0, "way": "w"}

    monkeypatch.setattr(gpu_speed, "child", child)
    monkeypatch.setenv("NETSMITH_COMMIT", "one")
    first = gpu_speed.measured(options(task=task, work=tmp_path), "it")
    monkeypatch.setenv("NETSMITH_COMMIT", "two")
    again = options(task=task, work=tmp_path, **change)
    if change:
        with pytest.raises(SystemExit, match=f"was begun with {next(iter(change))} .*, not .*: name another folder"):
            gpu_speed.measured(again, "it")
    else:
        assert gpu_speed.measured(again, "it") == first
        assert gpu_speed.of_all([first, gpu_speed.measured(again, "other")])["commit"] == "one two"
        asked[0].with_name(f"{asked[0].name}.begun").unlink()
        with pytest.raises(SystemExit, match="does not say how it was measured"):
            gpu_speed.measured(again, "it")
    assert asked[0].name.startswith("it")
    assert len(asked) == (1 if change else 2)


def test_held_out_pictures_are_not_trained_on() -> None:
    class Pictures:
        def subset(self, split: str) -> tuple[str, ...]:
            return tuple(f"{split} {number}" for number in range(100))

    train, asked = gpu_speed.divided(cast(Any, Pictures()), options("--held-out", tiny=False))
    assert (len(train), len(asked)) == (90, 10)
    assert not {*train} & {*asked}
    assert all(each.startswith("train") for each in asked)
    assert gpu_speed.divided(cast(Any, Pictures()), options(tiny=False))[1][0] == "test 0"


def test_a_race_reports_seeds_that_miss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter([0.945, 0.9399, 0.94])
    monkeypatch.setattr(gpu_speed, "cifar10_npz", lambda data, work: work)
    monkeypatch.setattr(
        gpu_speed, "child", lambda options, *_: {"seconds": 10.0, "top1": next(answers), "n": 10_000, "way": "bf16"}
    )
    [row] = gpu_speed.race(options("--seeds", "0", "1", "2", work=tmp_path))
    assert row["note"].startswith(
        "2 of 3 seeds reach 94%; mean 0.9416; seconds as airbench counts 10.00 (10.00 to 10.00"
    )
    assert row["test_top1"] == pytest.approx(0.9416, abs=1e-4)


def test_speeds_are_medians_beside_netsmiths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates = {"netsmith": [300.0, 330.0, 290.0], "torchvision": [100.0, 99.0, 120.0], "timm": [150.0, 160.0, 140.0]}
    asked: list[str] = []

    def child(options: argparse.Namespace, folder: Path, flag: str, name: str) -> dict[str, Any]:
        asked.append(name)
        return {"rate": rates[name][asked.count(name) - 1], "way": "w"}

    monkeypatch.setattr(gpu_speed, "child", child)
    notes = {
        row["subject"]: row["note"] for row in gpu_speed.speeds(options("--rounds", "3", work=tmp_path, pictures=3))
    }
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
    gpu_photos.made_photos(tmp_path / "photos", 40)
    found = gpu_photos.speed_of_netsmith(options(), tmp_path / "photos")
    assert found["rate"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # timm's pictures stay open
@pytest.mark.parametrize("subject", ["torchvision", "timm"])
@pytest.mark.reference
def test_the_peers_loops_run_tiny_on_a_cpu(subject: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(subject) is None:
        pytest.skip(f"no {subject}")
    gpu_photos.made_photos(tmp_path / "photos", 40)
    assert gpu_photos.SUBJECTS[subject](options(), tmp_path / "photos")["rate"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cifar94", "resnet-cifar"])
def test_a_training_runs_tiny_on_a_cpu(task: str, tmp_path: Path, test_data: Path) -> None:
    """By the command that a measurement runs, twice: the second goes on with nothing left to train, or races anew."""
    asked = options(task=task, data=test_data, work=tmp_path)
    for _ in range(2):
        found = gpu_speed.child(asked, tmp_path / "one", "--model", "resnet8_cifar", "--seed", "0")
        assert 0.0 <= found["top1"] <= 1.0
        assert found["n"] == 50
