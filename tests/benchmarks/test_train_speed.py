"""`benchmarks/train_speed.py`: subjects do the same work from the same weights, and what the rows say of it."""

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_speed
import train_subjects
from step_profile import kind_of
from train_subjects import Task

TINY = Task(
    model="resnet8_cifar", timm=None, data="made", side=16, pictures=32, epochs=2, batch=16, photos=False,
    goals=(2.4, 1.2),
)  # fmt: skip


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Of a made-up set of 58 pictures, on which subjects run in this process; netsmith measures nothing beforehand."""
    rng = np.random.default_rng(0)
    pictures = {
        "images": rng.integers(0, 256, (58, 16, 16, 3), dtype=np.uint8), "labels": np.arange(58) % 10,
        "split": np.array(["train"] * 50 + ["test"] * 8), "classes": np.array([f"class{n}" for n in range(10)]),
    }  # fmt: skip
    np.savez(tmp_path / "made.npz", **pictures)
    for name in list(train_speed.TASKS):
        monkeypatch.delitem(train_speed.TASKS, name)
    monkeypatch.setitem(train_speed.TASKS, "tiny", TINY)

    def recipe(task: Task, seed: int, data: object) -> Any:
        fields = {"time_s": None, "epochs": float(task.epochs), "threads": 1, "dtype": "float32"}
        return task.recipe(seed).model_copy(update=fields)

    def child(name: str, subject: str, seed: int, options: argparse.Namespace, workers: int = 0) -> dict[str, Any]:
        if subject.startswith("netsmith"):
            return places(train_subjects.run_netsmith, seed, warm=subject == "netsmith")
        if subject == "profile":
            return places(train_subjects.run_profile, seed)
        return places(train_subjects.run_loop, seed, workers=0, tuned=subject == "tuned")

    def places(run: Any, seed: int, **more: Any) -> dict[str, Any]:
        return run(TINY, seed, data=tmp_path, work=tmp_path, **more)

    monkeypatch.setattr(train_subjects, "measured_recipe", recipe)
    monkeypatch.setattr(train_speed, "WORKERS", (0,))
    monkeypatch.setattr(train_speed, "child", child)
    return argparse.Namespace(data=tmp_path, work=tmp_path, timm_train=None, cold=True, profile=True, repeats=1)


@pytest.mark.reference
def test_all_subjects_do_the_same_work(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command: rounds, rows, goals, the profile."""
    pytest.importorskip("torchvision", reason="the loops are torchvision's")
    results = options.work / "results.csv"
    monkeypatch.setenv("NETSMITH_COMMIT", "abc")
    words = f"--data {options.work} --work {options.work} --repeats 1 --cold --profile --results {results}"
    monkeypatch.setattr(sys, "argv", ["train_speed.py", *words.split()])
    train_speed.main()
    rows = {row["subject"]: row for row in csv.DictReader(results.read_text().splitlines())}
    assert list(rows) == ["netsmith", "plain", "tuned", "netsmith-cold", "profile of netsmith's step"]
    assert {row["model"] for row in rows.values()} == {"resnet8_cifar r16"}
    assert "times as fast" not in rows["netsmith"]["note"] + rows["netsmith-cold"]["note"]
    assert rows["netsmith-cold"]["note"].endswith("of the rate with a warm cache")
    assert "aimed at 2.4: m" in rows["plain"]["note"]
    assert "aimed at 1.2: m" in rows["tuned"]["note"]
    assert "convolutions and products" in rows["profile of netsmith's step"]["note"]
    assert rows["netsmith"]["command"].endswith("--tasks tiny --cold --profile --repeats 1")
    printed = capsys.readouterr().out
    assert printed.count("\ntiny: ") == 2  # a line for each goal
    assert "not compared: tiny: timm's script has no network of this shape" in printed


@pytest.mark.parametrize("change", [{"start": "other"}, {"pictures": 32}])
def test_other_weights_or_fewer_pictures_end_the_benchmark(
    change: dict[str, Any], options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(name: str, subject: str, *_: object) -> dict[str, Any]:
        found = {"seconds": 1.0, "way": "w", "start": "one", "pictures": 64, "top1": 0.1}
        return found | (change if subject == "plain" else {})

    monkeypatch.setattr(train_speed, "child", child)
    with pytest.raises(SystemExit, match="tiny, plain, seed 0: other weights or pictures"):
        list(train_speed.rounds("tiny", options))


def test_rates_are_medians_and_goals_are_judged_by_them(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"netsmith": [1.0, 2.0, 4.0], "plain": [5.0, 4.0, 9.0], "tuned": [2.0, 2.2, 2.0]}
    seconds["netsmith-cold"] = [4.0, 4.0, 4.0]
    asked: list[str] = []

    def child(name: str, subject: str, seed: int, options: object, workers: int = 0) -> dict[str, Any]:
        asked.append(subject)
        return {"seconds": seconds[subject][seed], "way": "w", "start": str(seed), "pictures": 64, "top1": 0.1}

    monkeypatch.setattr(train_speed, "child", child)
    options.repeats = 3
    lines = {line["subject"]: line for line in train_speed.summary(list(train_speed.rounds("tiny", options)), "tiny")}
    assert asked[2:] == [*seconds, *reversed(seconds), *seconds]
    assert (lines["netsmith"]["images_per_s"], lines["netsmith"]["times"]) == (32.0, None)
    assert (lines["plain"]["times"], lines["tuned"]["times"]) == (2.5, 1.0)
    assert lines["netsmith-cold"]["of_warm"] == 0.5
    assert train_speed.verdict(lines["plain"]) == "aimed at 2.4: met"
    assert train_speed.verdict(lines["tuned"]) == "aimed at 1.2: missed"
    assert json.dumps(lines)


def test_numbers_of_workers_near_each_other_are_tried_again(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {0: [10.0, 9.0, 9.5], 1: [20.0], 2: [9.6, 12.0, 11.0]}
    asked: list[int] = []

    def child(name: str, subject: str, seed: int, options: object, workers: int = 0) -> dict[str, Any]:
        asked.append(workers)
        return {"seconds": seconds[workers][asked.count(workers) - 1]}

    monkeypatch.setattr(train_speed, "child", child)
    monkeypatch.setattr(train_speed, "WORKERS", (0, 1, 2))
    assert train_speed.best_workers("tiny", "plain", options) == 0  # a lucky first try of 2 does not decide
    assert asked == [0, 1, 2, 2, 0, 0, 2]
    assert "0 workers 10.0 9.0 9.5 s, 1 workers 20.0 s, 2 workers 9.6 12.0 11.0 s" in capsys.readouterr().out
    asked.clear()
    seconds[2][0] = 15.0
    assert (train_speed.best_workers("tiny", "plain", options), asked) == (0, [0, 1, 2])


def test_another_train_script_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    with pytest.raises(argparse.ArgumentTypeError, match="there is no file"):
        train_subjects.timm_script(str(script))
    script.write_text("print()")
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not the train\.py that this benchmark was made with"):
        train_subjects.timm_script(str(script))


def test_the_epoch_in_which_timm_builds_its_kernels_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        f"Train: {epoch} [   {update}/1 (100%)]  Loss: 2.3 (2.3)  Time: 1.0s,  9.0/s  (1.0s,  {rate}/s)  LR: 5.0e-02"
        for epoch, rate in enumerate((2.0, 16.0, 32.0)) for update in (0, 1)
    ]  # fmt: skip
    asked: list[str] = []

    def process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.extend(command)
        return subprocess.CompletedProcess(command, 0, "\n".join([*said, "Test: [1/1] Acc@1: 9.0 (9.0)"]), "")

    monkeypatch.setattr(train_subjects.subprocess, "run", process)
    monkeypatch.setattr(train_subjects, "version", lambda name: "0")
    task = replace(train_subjects.TASKS["resnet18"], pictures=32, batch=16)
    found = train_subjects.run_timm(task, 0, work=tmp_path, script=tmp_path / "train.py", workers=0)
    assert asked[asked.index("--epochs") + 1] == "3"
    assert (found["seconds"], found["pictures"], found["top1"]) == (32 / 16 + 32 / 32, 64, None)


def test_operations_have_a_kind() -> None:
    kinds = {
        "aten::mkldnn_convolution": "convolutions and products", "aten::native_batch_norm_backward": "norms",
        "aten::threshold_backward": "activations", "aten::copy_": "copies", "aten::add_": "sums and factors",
        "_Folded": "norms", "_FoldedBackward": "norms", "aten::var_mean": "norms", "aten::empty": "the rest",
    }  # fmt: skip
    assert {name: kind_of(name) for name in kinds} == kinds
