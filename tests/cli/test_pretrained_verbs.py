"""Published weights as a person asks for them: export, train, and what is said when they are not to be had."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from reference_models import stir, torchvision_model

from netsmith.arch.names import find_layout
from netsmith.arch.pretrained import CIFAR10_CLASSES
from netsmith.artifact.bundle import load_bundle
from netsmith.cli.main import run
from netsmith.models.build import build, load_model

WEIGHTS = "resnet20_cifar.akamaster"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a folder of weights, an empty cache and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "own").mkdir()
    for name in (WEIGHTS, "mobilenet_v2.v2"):
        network = build(find_layout(name.partition(".")[0]), seed=3)
        stir(network, seed=4)
        (tmp_path / "own" / f"{name}.safetensors").write_bytes(safetensors.torch.save(network.state_dict()))
    return tmp_path


@pytest.mark.parametrize("said", [[WEIGHTS], ["resnet20_cifar", "--pretrained"]])
def test_export_ships_weights_labels_preprocessing_and_licence(said: list[str], place: Path) -> None:
    assert run(["export", *said, "--pretrained-dir", "own", "-o", "ship"]) == 0
    config = load_bundle(place / "ship").config
    assert config.labels == CIFAR10_CLASSES
    assert (config.preprocess.size, config.preprocess.mean) == (32, (0.485, 0.456, 0.406))
    assert (config.provenance.weights, config.provenance.licence) == (WEIGHTS, "BSD-2-Clause")
    expected = safetensors.torch.load_file(place / "own" / f"{WEIGHTS}.safetensors")
    shipped = load_model(place / "ship").state_dict()
    assert all(torch.equal(shipped[name], tensor) for name, tensor in expected.items())


def test_export_with_other_classes_says_what_the_head_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", WEIGHTS, "--pretrained-dir", "own", "--num-classes", "2", "-o", "ship"]) == 0
    assert "new, untrained head" in capsys.readouterr().err
    assert load_bundle(place / "ship").config.labels == ("0", "1")


@pytest.mark.reference
def test_weights_go_back_to_torchvision(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "mobilenet_v2.v2", "--pretrained-dir", "own", "--format", "torchvision", "-o", "back.pth"]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == {"back.pth": (place / "back.pth").stat().st_size}
    try:
        theirs = torchvision_model("mobilenet_v2")
    except ImportError:
        pytest.skip("torchvision is not installed")
    found = torch.load(place / "back.pth", weights_only=True)
    theirs.load_state_dict(found, strict=True)
    expected = safetensors.torch.load_file(place / "own" / "mobilenet_v2.v2.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


BAD = {
    "no such tag": (["export", "resnet18.v9", "-o", "x"], "no weights with the tag 'v9'"),
    "no such network": (["export", "resnet19.v1", "-o", "x"], "no model is called 'resnet19'"),
    "scaled": (["export", "resnet18@0.5", "--pretrained", "-o", "x"], "it is scaled; take resnet18"),
    "offline": (["export", "resnet18.v1", "-o", "x"], "cache/weights/resnet18.v1.pth"),
    "no folder": (["export", WEIGHTS, "--pretrained-dir", "none", "-o", "x"], "--pretrained-dir none is no folder"),
    "a folder has its own": (["export", "own", "--pretrained", "-o", "x"], "--pretrained go with the name"),
    "not in a library": (["export", "resnet20_cifar", "--format", "timm", "-o", "x"], "timm has no network"),
    "flags that do not go": (["export", "resnet18", "--format", "timm", "--no-weights", "-o", "x"], "leave them out"),
    "to a folder": (["export", "resnet18", "--format", "timm", "-o", "own", "--overwrite"], "own is a folder"),
    "train offline": (
        ["train", "digits", "--model", "resnet20_cifar", "--pretrained", "--epochs", "1", "-o", "x"],
        "resnet20_cifar.akamaster cannot be had",
    ),
    "train a tag that is not": (["train", "digits", "--model", "resnet18.v9", "--epochs", "1", "-o", "x"], "tag 'v9'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_goes_wrong_is_one_sentence(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, said = BAD[case]
    assert run(command) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert said in last
    assert last.startswith("netsmith: ")
    assert not (place / "x").exists()


@pytest.mark.slow
def test_training_starts_from_the_weights_and_keeps_their_preprocessing(place: Path) -> None:
    command = ["train", "digits", "--model", "resnet20_cifar", "--pretrained", "--pretrained-dir", "own"]
    code = "import sys; from netsmith.cli.main import main; main()"
    arguments = [*command, "--epochs", "0.1", "--lr", "1e-9", "--ema", "0", "--threads", "1", "-q", "-o", "run"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recipe = yaml.safe_load((place / "run" / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["pretrained"], recipe["img_size"]) == ("resnet20_cifar", "akamaster", 32)
    config = load_bundle(place / "run").config
    assert (config.provenance.weights, config.provenance.licence) == (WEIGHTS, "BSD-2-Clause")
    assert config.preprocess.interpolation == "bilinear"
    before = safetensors.torch.load_file(place / "own" / f"{WEIGHTS}.safetensors")
    after = load_model(place / "run").state_dict()
    assert after["fc.weight"].shape == (10, 64)
    torch.testing.assert_close(after["layer2.1.conv1.weight"], before["layer2.1.conv1.weight"], rtol=0, atol=1e-6)
