"""`netsmith fit` as typed, on small made pictures: what it leaves and refuses, and that killing it changes nothing."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kept_word import broken

from netsmith.run.files import read_jsonl
from netsmith.run.recipe import Recipe
from netsmith.run.result import Result

TIME = "24s"
ASKED = ("--budget", "latency=50ms,size=2MB", "--class-balance", "loss")


def make_pictures(path: Path, *, per_class=40, side=16, seed=0):
    """Three classes that differ in colour and direction of stripes, uint8 [N,side,side,3] in a .npz."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label, tint in enumerate(((180, 90, 60), (60, 170, 80), (80, 90, 190))):
        for _ in range(per_class):
            stripes = 30 * np.sin(np.arange(side) * rng.uniform(0.4, 0.9) + rng.uniform(0, 6))
            image = np.array(tint) + (stripes[:, None, None] if label % 2 else stripes[None, :, None])
            images.append(np.clip(image + rng.normal(0, 12, (side, side, 3)), 0, 255).astype(np.uint8))
            labels.append(("red", "green", "blue")[label])
    np.savez(path, images=np.stack(images), labels=np.array(labels))
    return path


def netsmith(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "netsmith", *map(str, arguments)], capture_output=True, text=True, **options
    )


def content_hash(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.onnx", "model.safetensors")
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures") / "stripes.npz")


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = netsmith("fit", pictures, *ASKED, "--time", TIME, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_all_its_files(whole):
    for name in (
        "results.json",
        "ledger.jsonl",
        "plan.jsonl",
        "recipe.yaml",
        "metrics.jsonl",
        "data.json",
        "report.html",
    ):
        assert (whole / name).stat().st_size > 0, name
    for name in ("model.onnx", "config.json", "golden.npz", "model.safetensors"):
        assert (whole / "model" / name).stat().st_size > 0, name
    for split in ("val", "test"):
        assert (whole / "predictions" / f"{split}.npz").exists()
    assert not list(whole.rglob("*.tmp"))
    result = Result.load(whole / "results.json")
    assert all(row.met for row in result.budget)
    assert {row.name for row in result.budget} == {"latency_ms", "size_bytes"}
    assert result.final.top1.test is not None


def test_what_is_shipped_has_learned(whole):
    [trained] = [row for row in read_jsonl(whole / "ledger.jsonl") if row["stage"] == "train"]
    final = Result.load(whole / "results.json").final
    told = {name: trained["after"][name] for name in ("size_bytes", "threads", "params", "macs")}
    assert told == {name: value for name, value in final.model_dump().items() if name in told}
    assert min(final.memory_bytes, trained["after"]["memory_bytes"]) > 20e6
    assert trained["reason"].endswith("nothing stands before it: its weights were fresh")
    if (steps := trained["after"]["steps"]) < 40:
        pytest.skip(f"the machine was too busy to tell: the winner made {steps} updates in {TIME}")
    assert final.top1.test.value > 0.8


def test_every_racer_leaves_an_artifact(whole):
    rows = [json.loads(line) for line in (whole / "ledger.jsonl").read_text().splitlines()]
    stages = [row["stage"] for row in rows]
    assert stages[0] == "session"
    assert [stage for stage in stages if stage in ("audit", "split", "candidates")] == ["audit", "split", "candidates"]
    entries = [entry["id"] for row in rows if row["stage"] == "race" for entry in row["after"]["entries"]]
    winner = next(row["after"]["id"] for row in rows if row["stage"] == "train")
    assert winner in entries
    losers = set(entries) - {winner}
    assert losers
    for id_ in losers:
        assert (whole / "candidates" / id_ / "model" / "model.onnx").exists()
        assert not (whole / "candidates" / id_ / "checkpoints").exists()
        assert Recipe.load(whole / "candidates" / id_ / "recipe.yaml").class_balance == "loss"
    assert Recipe.load(whole / "recipe.yaml").class_balance == "loss"


def test_the_test_split_is_read_once_by_the_final_artifact(whole):
    rows = [json.loads(line) for line in (whole / "ledger.jsonl").read_text().splitlines()]
    readings = [row for row in rows if "test" in row["splits_read"]]
    assert len(readings) == 1
    assert readings[0]["inputs"] == [Result.load(whole / "results.json").artifact]


def test_a_finished_run_is_not_overwritten(whole, pictures):
    before = content_hash(whole / "model")
    again = netsmith("fit", pictures, *ASKED, "--time", TIME, "-o", whole)
    assert again.returncode == 2
    assert "finished fit" in again.stderr
    assert content_hash(whole / "model") == before


def test_another_job_is_refused_in_the_folder(whole, pictures, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("run.json", "plan.jsonl"):
        shutil.copyfile(whole / name, begun / name)
    other = netsmith("fit", pictures, "--budget", "size=2MB", "--time", TIME, "-o", begun)
    assert other.returncode == 2
    assert "budget" in other.stderr
    assert not (begun / "ledger.jsonl").exists()


def test_a_budget_that_nothing_meets(pictures, tmp_path):
    refused = netsmith("fit", pictures, "--budget", "latency=1us,size=2MB", "--time", "60s", "-o", tmp_path / "run")
    assert refused.returncode == 1
    assert "nothing fits the budget" in refused.stderr
    assert "latency=" in refused.stderr.split("the nearest is")[1]
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_time_too_short(pictures, tmp_path):
    refused = netsmith("fit", pictures, "--time", "2s", "-o", tmp_path / "run")
    assert refused.returncode == 2
    assert "too short" in refused.stderr
    assert not (tmp_path / "run").exists()


def replayed(whole, pictures, folder) -> list[str]:
    """The command that repeats a run in another folder by its plan."""
    return [sys.executable, "-m", "netsmith", "fit", str(pictures), "--replay", str(whole), "-o", str(folder)]


def killed_until_done(command, folder, *, kills, seed):
    """The same command, killed at random instants of its work so many times unless it ends before, then left alone.

    Returns:
        Its last outcome, and how often it was killed.
    """
    dice, killed = random.Random(seed), 0
    for _ in range(kills):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        while process.poll() is None and not folder.exists():
            time.sleep(0.02)
        try:
            process.wait(timeout=dice.uniform(0.0, 5.0))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        finally:
            assert process.stderr is not None
            process.stderr.close()
    return subprocess.run(command, capture_output=True, text=True), killed


def check_killed(whole, pictures, tmp_path, *, kills, seed):
    folder = tmp_path / "killed"
    done, killed = killed_until_done([*replayed(whole, pictures, folder), "--quiet"], folder, kills=kills, seed=seed)
    assert killed >= min(kills, 3)
    assert done.returncode == 0 or "finished fit" in done.stderr, done.stderr
    assert content_hash(folder / "model") == content_hash(whole / "model")
    assert not list(folder.rglob("*.tmp"))
    found = netsmith("verify", folder, "--seconds", "0.3", "--json")
    assert not broken(json.loads(found.stdout)), found.stderr


def test_replayed_killed_and_gone_on_with_gives_the_same_weights(whole, pictures, tmp_path):
    """One run shows both: that the plan rows of another run are obeyed, and that a kill changes nothing."""
    check_killed(whole, pictures, tmp_path, kills=1, seed=5)
    rows = [json.loads(line) for line in (tmp_path / "killed/ledger.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows].count("session") == 2  # the kill found it at work
    [compared] = [row for row in rows if row["stage"] == "replay"]
    assert compared["verdict"] == "done"
    assert compared["before"] == compared["after"]
    assert "--budget" in rows[0]["reason"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--time", "25s"], "--time is not that of"),
        (["--budget", "size=2MB"], "--budget is not that of"),
        (["--seed", "1"], "--seed is not that of"),
        (["--class-balance", "none"], "--class-balance is not that of"),
    ],
)
def test_a_replay_of_something_else_is_refused(whole, pictures, tmp_path, typed, said):
    refused = netsmith("fit", pictures, "--replay", whole, "-o", tmp_path / "run", *typed)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "--budget latency=50ms,size=2MB, --time 24s, --class-balance loss and --seed 0" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_replay_on_other_pictures_is_refused(whole, tmp_path):
    others = make_pictures(tmp_path / "others.npz", seed=1)
    refused = netsmith("fit", others, "--replay", whole, "-o", tmp_path / "run")
    assert refused.returncode == 2
    assert "does not hold the pictures" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_only_a_finished_fit_is_replayed(whole, pictures, tmp_path):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("run.json", "plan.jsonl"):
        shutil.copyfile(whole / name, unfinished / name)
    for folder, said in ((unfinished, "did not finish"), (whole / "model", "not a run folder")):
        refused = netsmith("fit", pictures, "--replay", folder, "-o", tmp_path / "run")
        assert refused.returncode == 2
        assert said in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_often(whole, pictures, tmp_path, seed):
    check_killed(whole, pictures, tmp_path, kills=5, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(whole, pictures, tmp_path, how, code):
    folder = tmp_path / "stopped"
    command = replayed(whole, pictures, folder)
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(folder.glob("candidates/*/recipe.yaml")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "go on" in errors
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content_hash(folder / "model") == content_hash(whole / "model")
