"""`netsmith import-weights` as a person types it: good checkpoints, bad ones, and the published accuracy."""

import csv
import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typed import here

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.runtimes import open_model
from netsmith.cli.main import run
from netsmith.data.prepare import prepare
from netsmith.models.build import build, load_model
from netsmith.train.evaluate import evaluate_network

CIFAR10 = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
MODEL = ["--model", "resnet8_cifar@width=0.5", "--num-classes", "3"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """In another project's names, wrapped, without counters."""
    network = build(find_layout("resnet8_cifar@width=0.5", num_classes=3), seed=4)
    network(torch.randn(16, 3, 32, 32))
    state = {
        "module." + name.replace("fc.", "linear."): tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": state, "best": 0.5}, tmp_path / "a.th")
    return tmp_path / "a.th"


def test_makes_a_model_folder(checkpoint: Path, tmp_path: Path) -> None:
    options = ["--labels", "x,y,z", "--mean", "0.5", "0.4", "0.3", "--std", "0.2", "0.2", "0.1", "--img-size", "40"]
    more = [*options, "--crop", "0.9", "--licence", "MIT", "--json"]
    done = here("import-weights", "a.th", *MODEL, "-o", "model", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "named as by akamaster or kuangliu" in done.stderr
    bundle = load_bundle(tmp_path / "model", check_hashes=True)
    assert json.loads(done.stdout) == {
        "output": "model",
        "model": "resnet8_cifar@width=0.5",
        "source": "akamaster or kuangliu",
        "size_bytes": bundle.size_bytes,
    }
    config = bundle.config
    assert config.labels == ("x", "y", "z")
    assert (config.preprocess.size, config.preprocess.crop) == (40, 0.9)
    assert (config.preprocess.mean, config.preprocess.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert (config.provenance.weights, config.provenance.licence) == ("a.th", "MIT")
    found, expected = (
        load_model(tmp_path / "model").state_dict(),
        torch.load(checkpoint, weights_only=True)["state_dict"],
    )
    assert torch.equal(found["fc.weight"], expected["module.linear.weight"])


def test_labels_from_a_file(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red\ngreen, so to say\nblue\n")
    assert here("import-weights", "a.th", *MODEL, "-o", "model", "--labels", "names.txt", cwd=tmp_path).returncode == 0
    assert load_bundle(tmp_path / "model").config.labels == ("red", "green, so to say", "blue")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["b.th", *MODEL], "b.th is not there"),
        ([".", *MODEL], "is a folder"),
        (["a.th", "--model", "resnet8_cifr"], "did you mean resnet8_cifar"),
        (["a.th", "--model", "resnet8_cifar"], "does not hold the weights of resnet8_cifar"),
        (["a.th", *MODEL[:2], "--num-classes", "5"], "it has 3 classes, not 5; give --num-classes 3"),
        (["a.th", *MODEL, "--labels", "x,y"], "--labels x,y gives 2 different names for 3 classes"),
        (["a.th", *MODEL, "--labels", "x,y,x"], "--labels x,y,x gives 2 different names for 3 classes"),
        (["a.th", *MODEL, "--labels", "names.txt"], "--labels names.txt: there is no such file"),
        (["a.th", *MODEL, "--std", "1", "0", "1"], "--std: input should be greater than 0"),
        (["a.th", *MODEL, "--crop", "2"], "--crop: input should be less than or equal to 1"),
        (["a.th", *MODEL, "--crop", "1e-6"], "--crop is 1e-06, and pictures are resized to size / crop"),
        (["a.th", *MODEL, "--img-size", "2"], "--img-size"),
        (["text.th", *MODEL], "text.th is no checkpoint of torch or safetensors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    arguments: list[str],
    said: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, for torch takes a second to start; the next test starts it."""
    (tmp_path / "text.th").write_text("no weights here")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert run(["import-weights", *arguments, "-o", "model"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [("cut", "a.th is no checkpoint of torch or safetensors, or is cut short"), ("code", "run code")],
)
def test_hostile_and_broken_checkpoints(content: str, said: str, checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.write_bytes(
        checkpoint.read_bytes()[:-100] if content == "cut" else pickle.dumps({"a": print}, protocol=2)
    )
    done = here("import-weights", "a.th", *MODEL, "-o", "model", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [checkpoint]


def test_a_folder_that_exists_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    done = here("import-weights", "a.th", *MODEL, "-o", "model", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "model already exists" in done.stderr
    assert list((tmp_path / "model").iterdir()) == []


def cifar10_test(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The official test batch: pictures uint8 [10000,32,32,3] and labels."""
    with Image.open(data / "cifar10" / "test_batch.webp") as image:
        grid = np.asarray(image.convert("RGB"))
    with gzip.open(data / "cifar10" / "labels.csv.gz", "rt") as rows:
        labels = [int(row["label"]) for row in csv.DictReader(rows) if row["batch"] == "test_batch"]
    return grid.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3), np.array(labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "model", "correct"),
    [("resnet20-12fca82f.th", "resnet20_cifar", 9173), ("resnet56-4bfd9763.th", "resnet56_cifar", 9339)],
)
def test_published_accuracy_through_torch_and_the_artifact(
    file: str, model: str, correct: int, test_data: Path, tmp_path: Path
) -> None:
    path = test_data / "weights-cifar10-resnet" / file
    typed = ["--model", model, "--num-classes", "10", "--labels", CIFAR10, "-o", "model"]
    done = here("import-weights", str(path), *typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(tmp_path / "model")
    preprocess = bundle.config.preprocess
    pictures, labels = cifar10_test(test_data)
    pixels = np.stack([prepare(picture, preprocess) for picture in pictures])
    by_torch = evaluate_network(load_model(bundle.folder), pixels, labels, mean=preprocess.mean, std=preprocess.std)
    by_artifact = evaluate(open_model(bundle.model_path, threads=1), pixels, labels)
    assert round(by_torch.top1.value * 10_000) == correct
    assert round(by_artifact.top1.value * 10_000) == correct
    np.testing.assert_allclose(by_artifact.logits, by_torch.logits, atol=1e-3)
