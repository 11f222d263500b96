"""train and val as a person types them: to the end, interrupted and resumed, and with what people get wrong."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from kept_word import broken
from pictures import class_files, write_files

from netsmith.arch.layout import layout_to_json
from netsmith.arch.names import find_layout, read_layout
from netsmith.cli.main import run
from netsmith.models.build import load_model
from netsmith.run.files import read_jsonl, sha256_file, write_json

COMMAND = [sys.executable, "-c", "import sys; from netsmith.cli.main import main; main()"]
TRAIN = ["train", "digits", "--model", "resnet8_cifar@0.5", "--threads", "1", "-q"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


def netsmith(place: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*COMMAND, *arguments], cwd=place, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def started(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], cwd=place, stderr=subprocess.PIPE, text=True)


def wait_for_training(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the plan says how long training is: its first step follows."""
    while process.poll() is None:
        if any(row["kind"] == "total_steps" for row in read_jsonl(folder / "plan.jsonl")):
            return
        time.sleep(0.02)


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """A run that was stopped with Ctrl-C in the middle of training and resumed."""
    arguments = [*TRAIN, "--epochs", "6", "-o", "run"]
    process = started(place, *arguments)
    wait_for_training(process, place / "run")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "go on with --resume" in said
    code, out, err = netsmith(place, *arguments, "--resume", "--json")
    assert code == 0, err
    assert json.loads(out)["final"]["model"] == "resnet8_cifar@0.5"
    return place / "run"


def test_a_stopped_and_resumed_run_is_whole(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        *("run.json", "recipe.yaml", "plan.jsonl", "ledger.jsonl", "metrics.jsonl", "data.json", "results.json"),
        *("model", "predictions", "checkpoints"),
    }
    assert [row["stage"] for row in read_jsonl(finished / "ledger.jsonl")].count("session") == 2
    assert not list(finished.rglob("*.tmp"))
    steps = [row["step"] for row in read_jsonl(finished / "metrics.jsonl")]
    assert steps == sorted(set(steps))


def test_val_gives_what_the_run_recorded_and_test_too(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = json.loads((finished / "results.json").read_text())["final"]["top1"]
    for split in ("val", "test"):
        assert run(["val", str(finished), "--split", split, "--json", "-q"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["top1"] == recorded[split]
        assert document["top5"]["value"] >= document["top1"]["value"]
        assert document["loss"]["low"] < document["loss"]["value"] < document["loss"]["high"]
    code, out, _ = netsmith(finished.parent, "val", "run/model", "--data", "digits", "--split", "all")  # as typed
    assert code == 0
    assert "n 1,797" in out


def test_val_is_told_what_it_lacks(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lonely = str(shutil.copytree(finished / "model", tmp_path / "lonely"))
    for name in ("apple", "pear"):
        (tmp_path / "fruit" / name).mkdir(parents=True)
        for index in range(4):
            write_picture(tmp_path / "fruit" / name / f"{index}.png", seed=index + 10 * len(name))
    for arguments, words in (
        ([lonely], "say with --data on which pictures"),
        ([lonely, "--data", str(tmp_path / "fruit")], "classes that the model does not know (apple, pear)"),
        ([str(finished), "--split", "nonsense"], "--split"),
    ):
        assert run(["val", *arguments]) == 2
        assert words in capsys.readouterr().err


def write_picture(path: Path, *, seed: int) -> None:
    import numpy as np
    from PIL import Image

    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)


ONE_EPOCH = ["digits", "--model", "resnet18", "--epochs", "1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits"], "give --model"),
        (["digits", "--model", "resnet18"], "give --time such as 10m, or --epochs"),
        (["digits", "--model", "resent18", "--epochs", "1"], "did you mean resnet18"),
        (["nowhere", "--model", "resnet18", "--epochs", "1"], "no such file or folder: nowhere"),
        (["digits", "--model", "resnet18", "--epochs", "1", "--time", "9s"], "and not both"),
        (["digits", "--model", "resnet18", "--time", "3parsecs"], "unknown unit 'parsecs'"),
        ([*ONE_EPOCH, "--lr", "-1"], "--lr is -1; it must be above 0"),
        ([*ONE_EPOCH, "--lr", "inf"], "--lr is inf; it must be above 0 and finite"),
        ([*ONE_EPOCH, "--img-size", "2"], "--img-size is 2; it must be at least 8 and at most 4096"),
        ([*ONE_EPOCH, "--smoothing", "1.5"], "--smoothing is 1.5; it must be at least 0 and below 1"),
        ([*ONE_EPOCH, "--scale", "0.2", "3"], "--scale is 0.2 3; each must be at most 1"),
        ([*ONE_EPOCH, "--device", "tpu"], "--device is tpu; it must be auto, cpu, cuda, cuda:N, mps, xla or xla:N"),
        (["digits", "--model", "resnet18", "--epochs", "1", "-c", "none.yaml"], "there is no recipe none.yaml"),
        (["digits", "--model", "resnet18", "--epochs", "1", "-b", "1"], "needs 2 pictures or more"),
        (["digits", "--model", "resnet18", "--epochs", "1", "--opt", "lion"], "--opt"),
        ([*ONE_EPOCH, "--grad-accum", "0"], "--grad-accum is 0; it must be at least 1"),
        ([*ONE_EPOCH, "-b", "8", "--grad-accum", "5"], "batch norm needs 2 in each; give at most 4, or a larger"),
        ([*ONE_EPOCH, "--on-nan", "ignore"], "--on-nan"),
        ([*ONE_EPOCH, "--device", "cpu", "--amp-dtype", "float16"], "--amp-dtype float16 needs a CUDA device"),
        ([*ONE_EPOCH, "--no-amp", "--amp-dtype", "bfloat16"], "do not go together; leave one out"),
        ([*ONE_EPOCH, "--amp-dtype", "float8"], "--amp-dtype"),
        ([*ONE_EPOCH, "--find-lr", "--resume"], "--find-lr begins no run"),
        (["digits", "--find-lr"], "give --model"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(["train", *arguments, "-o", "mistake", "-q"])
    err = capsys.readouterr().err
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "mistake").exists()


def test_a_network_that_no_memory_holds_is_one_sentence_and_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr("netsmith.models.build._allocate", short)
    out = tmp_path / "run"
    assert run(["train", *ONE_EPOCH, "-o", str(out), "-q"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("netsmith: there is no memory for the network and what is held beside it to train it (")
    assert "; take a smaller network or --img-size" in err
    assert len(err.strip().splitlines()) == 1
    assert not out.exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sha256_file(finished / "results.json")
    for more in ([], ["--resume"]):
        assert run([*TRAIN, "--epochs", "6", "-o", str(finished), *more]) == 2
        assert "finished run" in capsys.readouterr().err
    assert sha256_file(finished / "results.json") == before


def test_a_run_that_was_killed_before_its_report_is_gone_on_with(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = shutil.copytree(finished, tmp_path / "killed")
    (killed / "report.html").unlink()
    capsys.readouterr()
    assert run([*TRAIN, "--epochs", "6", "-o", str(killed), "--resume"]) == 0
    assert "top-1 test" in capsys.readouterr().out
    assert (killed / "report.html").read_text().rstrip().endswith("</html>")
    assert (killed / "ledger.jsonl").read_bytes() == (finished / "ledger.jsonl").read_bytes()


def test_a_layouts_file_is_a_network_and_the_run_keeps_its_own_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "pets", class_files({"cat": 4, "dog": 4}))
    layout = find_layout("resnet8_cifar@0.5")
    write_json(Path("net.json"), layout_to_json(layout))
    command = ["train", "pets", "--model", "net.json", "--epochs", "2", "--threads", "1", "-q", "-o", "run"]
    with monkeypatch.context() as patch:
        patch.setattr("netsmith.train.loop.train", interrupted)
        assert run(command) == 130
    write_json(Path("net.json"), layout_to_json(find_layout("resnet8_cifar@0.25")))
    capsys.readouterr()
    assert run([*command, "--resume"]) == 0
    assert "resnet8_cifar@0.5" in capsys.readouterr().out
    assert read_layout(Path("run/layout.json")) == layout
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["model"] == "net.json"
    assert load_model(tmp_path / "run").layout == find_layout("run/layout.json", num_classes=2, img_size=16)


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random_instants_equals_undisturbed(tmp_path: Path, seed: int) -> None:
    draw, killed = random.Random(seed), 0
    arguments = [*TRAIN, "--epochs", "8"]
    began = time.monotonic()
    assert netsmith(tmp_path, *arguments, "-o", "whole")[0] == 0
    took = time.monotonic() - began
    for _ in range(4):
        process = started(tmp_path, *arguments, "-o", "killed", "--resume")
        time.sleep(draw.uniform(0.1, 0.8) * took)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed
    code, _, err = netsmith(tmp_path, *arguments, "-o", "killed", "--resume")
    assert code == 0 or "finished run" in err
    weights = [sha256_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    assert not broken(json.loads(netsmith(tmp_path, "verify", "killed", "--json")[1]))


@pytest.mark.slow
def test_sigterm_during_training_is_143_and_resumable(tmp_path: Path) -> None:
    process = started(tmp_path, *TRAIN, "--epochs", "50", "-o", "run")
    wait_for_training(process, tmp_path / "run")
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 143
    assert "go on with --resume" in said
    assert any(name.endswith(".json") for name in os.listdir(tmp_path / "run" / "checkpoints"))


def test_find_lr_suggests_a_rate_and_begins_no_run(tmp_path: Path) -> None:
    arguments = ["train", "digits", "--model", "resnet8_cifar@0.25", "-b", "16", "--find-lr", "--seed", "1", "-q"]
    code, out, err = netsmith(tmp_path, *arguments, "-o", "chart", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert 1e-4 < found["suggestion"] < 1.0
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"])
    assert [path.name for path in (tmp_path / "chart").iterdir()] == ["lr.svg"]
    assert "</svg>" in (tmp_path / "chart/lr.svg").read_text()


def test_train_says_where_its_folder_is_to_be_named(tmp_path: Path) -> None:
    code, _, err = netsmith(tmp_path, "train", *ONE_EPOCH)
    assert code == 2
    assert err == "netsmith: where the run goes is not said; name its folder with -o\n"
    assert not list(tmp_path.iterdir())
