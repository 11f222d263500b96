"""`netsmith export` as typed: what ships, what is left out, what is never overwritten."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from netsmith.artifact.bundle import GOLDEN, MODEL, WEIGHTS, Preferred, load_bundle, write_bundle
from netsmith.artifact.golden import synthetic_examples
from netsmith.artifact.quantization import Quantization
from netsmith.artifact.verify import verify
from netsmith.cli.main import run
from netsmith.export.network import export_network
from netsmith.models.build import Network, build, create_model, load_model
from netsmith.run.clock import FakeClock
from netsmith.run.files import write_json
from netsmith.run.ledger import Ledger
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.checkpoints import Identity, save_checkpoint

PREPROCESS = Preprocess(size=32)


def tensors_of(network: Network, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with a model, photos as its examples, and a checkpoint of other weights."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    network = create_model("resnet8_cifar", num_classes=3, img_size=32, seed=1)
    photos = synthetic_examples(PREPROCESS, count=2, seed=5)
    export_network(network, folder / "model", labels=("a", "b", "c"), preprocess=PREPROCESS, golden=photos)
    write_json(folder / "run.json", {"format": 1, "command": ["train", "photos"]})
    newer = build(network.layout, seed=2)
    tensors = {**tensors_of(newer, "network"), "optimizer.fc.bias.momentum_buffer": torch.zeros(3)}
    save_checkpoint(
        folder / "checkpoints", step=7, tensors=tensors, identity=Identity(recipe={}, data="x"), state={"loss_sum": 0.0}
    )
    return folder


def test_what_is_private_stays_out(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "run", "-o", "ship", "--golden", "synthetic", "--no-weights", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    ship = Path("ship")
    assert said["files"] == {path.name: path.stat().st_size for path in ship.iterdir()}
    assert sorted(said["files"]) == ["config.json", GOLDEN, MODEL]
    assert (ship / MODEL).read_bytes() == (trained / "model" / MODEL).read_bytes()
    shipped, private = (load_bundle(folder).golden().encoded for folder in (ship, trained))
    assert not set(shipped) & set(private)
    assert verify(ship).ok


def test_the_graph_alone(trained: Path) -> None:
    assert run(["export", "run/model", "-o", "deep/er/net.onnx", "--format", "onnx"]) == 0
    assert Path("deep/er/net.onnx").read_bytes() == (trained / "model" / MODEL).read_bytes()
    assert os.listdir("deep/er") == ["net.onnx"]


@pytest.mark.parametrize("averaged", [False, True])
def test_the_newest_checkpoint_takes_everything_else_from_the_model(trained: Path, averaged: bool) -> None:
    layout = load_bundle(trained).layout
    expected = build(layout, seed=2)
    if averaged:
        expected = build(layout, seed=3)
        tensors = {**tensors_of(build(layout, seed=2), "network"), **tensors_of(expected, "averaged")}
        save_checkpoint(
            trained / "checkpoints", step=9, tensors=tensors, identity=Identity(recipe={}, data="x"), state={}
        )
    assert run(["export", "run", "-o", "newest", "--checkpoint", "last"]) == 0
    written, model = load_bundle(Path("newest")), load_bundle(trained)
    assert written.config.model_copy(update={"files": {}}) == model.config.model_copy(update={"files": {}})
    assert written.golden().encoded == model.golden().encoded
    reloaded = load_model("newest").state_dict()
    assert all(torch.equal(reloaded[name], tensor) for name, tensor in expected.state_dict().items())


def test_what_was_quantized_is_written_in_float_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the float weights that ship with it, so also where no name has its layout; who cannot go on with int8 is
    told so."""
    whole = load_bundle(trained)
    quantization = Quantization(
        source="0" * 64, rung="made up", per_channel=True, bits=8, calibration="minmax", pictures=1, excluded=(),
        equalized=False,
    )  # fmt: skip
    write_bundle(
        Path("int8"), model=b"rounded", layout=replace(whole.layout, name="resnet8_cifar+pruned"),
        labels=whole.config.labels, preprocess=PREPROCESS, golden=whole.golden(), precision="int8",
        weights=(whole.folder / WEIGHTS).read_bytes(), quantization=quantization,
        preferred=Preferred(runtime="openvino", threads=2),
    )  # fmt: skip
    assert run(["compress", "int8", "--data", "photos", "--budget", "size=1MB", "-o", "small"]) == 2
    told = capsys.readouterr().err
    assert "compress the float32 model that it was made from, or what netsmith export int8 --float -o" in told
    assert run(["export", "int8", "--float", "-o", "whole"]) == 0
    written = load_bundle(Path("whole"), check_hashes=True)
    config = written.config
    assert (config.precision, config.quantization, config.labels) == ("float32", None, ("a", "b", "c"))
    assert config.preferred == Preferred(threads=2)
    assert written.layout.name == "resnet8_cifar+pruned"
    assert (written.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()
    assert written.golden().encoded == whole.golden().encoded
    assert np.array_equal(written.golden().probabilities, whole.golden().probabilities)
    assert verify(written.folder).ok


def test_a_name_gives_an_untrained_network(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "mobilenet_v2@0.25", "-o", "try", "--img-size", "48", "--num-classes", "5"]) == 0
    assert "untrained" in capsys.readouterr().err
    bundle = load_bundle(Path("try"))
    assert (bundle.config.preprocess.size, bundle.config.labels) == (48, ("0", "1", "2", "3", "4"))
    assert bundle.golden().probabilities.shape == (4, 5)
    assert np.isfinite(bundle.golden().probabilities).all()


REFUSED = [
    (["run", "-o", "run"], "run already exists; name another with -o or give --overwrite"),
    (["run", "-o", "run", "--overwrite"], "run is not an artifact, so it is not overwritten"),
    (["run", "-o", "run", "--overwrite", "--format", "onnx"], "run is a folder; name a file such as run/model.onnx"),
    (["run/model", "-o", "new", "--checkpoint", "last"], "run/model is not the folder of a run"),
    (
        ["run", "-o", "new", "--img-size", "64"],
        "--num-classes, --img-size and --pretrained go with the name of a network",
    ),
    (["resnet18", "-o", "new", "--checkpoint", "last"], "--checkpoint last goes with the folder of a run"),
    (["resnt18", "-o", "new"], "no model is called 'resnt18'; did you mean"),
    (["runs/lost", "-o", "new"], "there is no runs/lost"),
    (["run", "-o", "run/run.json/new"], "run/run.json/new cannot be written"),
    (["run", "-o", "new", "--float"], "run is float32 already; leave --float out"),
    (["resnet18", "-o", "new", "--float"], "--float goes with the folder of a quantized model"),
    (["run", "-o", "new", "--golden", "none"], '"real", "synthetic"'),
    (["run"], "--output"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_refused(trained: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert run(["export", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    assert os.listdir() == ["run"]


def test_a_damaged_model_is_not_copied(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained / "model" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    assert run(["export", "run", "-o", "new"]) == 2
    assert "is not the file that config.json describes" in capsys.readouterr().err


def test_a_run_without_model_or_checkpoint_says_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (trained / "checkpoints").iterdir():
        path.unlink()
    assert run(["export", "run", "-o", "new", "--checkpoint", "last"]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    (trained / "model").rename(trained / "elsewhere")
    assert run(["export", "run", "-o", "new", "--checkpoint", "last"]) == 2
    assert "run has no model/ yet to take labels and preprocessing from; wait for it, or" in capsys.readouterr().err


def test_overwriting_replaces_an_artifact(trained: Path) -> None:
    assert run(["export", "run", "-o", "copy"]) == 0
    assert run(["export", "run", "-o", "copy", "--overwrite", "--no-weights"]) == 0
    assert not (Path("copy") / WEIGHTS).exists()


def test_the_newest_checkpoint_of_a_fit_is_of_the_candidate_in_front(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(trained / "run.json", {"format": 1, "command": ["fit", "photos"]})
    command = ["export", "run", "-o", "newest", "--checkpoint", "last"]
    assert run(command) == 2
    assert "has no candidate in front yet" in capsys.readouterr().err
    ledger = Ledger(trained / "ledger.jsonl", clock=FakeClock())
    entries = [{"id": "one", "kept": True}, {"id": "other", "kept": True}]
    ledger.add("race", verdict="done", reason="", after={"rung": 1, "entries": entries})
    for id_, model in (("one", "resnet8_cifar"), ("other", "resnet18")):
        (trained / "candidates" / id_).mkdir(parents=True)
        Recipe(model=model, img_size=32, epochs=1.0).save(trained / "candidates" / id_ / "recipe.yaml")
    (trained / "checkpoints").rename(trained / "candidates" / "one" / "checkpoints")
    assert run(command) == 0
    expected = build(load_bundle(trained).layout, seed=2).state_dict()
    reloaded = load_model("newest").state_dict()
    assert all(torch.equal(reloaded[name], tensor) for name, tensor in expected.items())
    ledger.add("diverged", verdict="refused", reason="", after={"id": "one"})
    assert run([*command, "--overwrite"]) == 2
    assert "but other is in front now" in capsys.readouterr().err


@pytest.mark.parametrize("kept", ["notes.txt", ".git"])
def test_what_lies_beside_an_artifact_is_not_replaced_with_it(
    trained: Path, capsys: pytest.CaptureFixture[str], kept: str
) -> None:
    assert run(["export", "run", "-o", "copy"]) == 0
    (Path("copy") / kept).mkdir() if kept == ".git" else (Path("copy") / kept).write_text("years of work")
    assert run(["export", "run", "-o", "copy", "--overwrite", "--no-weights"]) == 2
    assert f"copy holds '{kept}' beside an artifact, so it is not overwritten" in capsys.readouterr().err
    assert (Path("copy") / kept).exists()
    assert (Path("copy") / WEIGHTS).exists()


def test_a_folder_with_some_config_is_no_artifact(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("site").mkdir()
    (Path("site") / "config.json").write_text("{}")
    (Path("site") / "thesis.txt").write_text("years of work")
    assert run(["export", "run", "-o", "site", "--overwrite"]) == 2
    assert "site is not an artifact, so it is not overwritten" in capsys.readouterr().err
    assert sorted(os.listdir("site")) == ["config.json", "thesis.txt"]
