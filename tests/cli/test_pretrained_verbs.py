"""Published weights as a person asks for them: export, train, and what is said when they are not to be had."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from pictures import class_files, write_files
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
    "a layout's file": (
        ["train", "digits", "--model", "net.json", "--pretrained", "--epochs", "1", "-o", "x"],
        "net.json is the file of a layout and has no published weights",
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


def test_training_starts_from_the_weights_and_keeps_their_preprocessing(place: Path) -> None:
    write_files(place / "few", class_files({"cat": 4, "dog": 5}))  # a batch is larger than all of them
    command = ["train", "few", "--model", "resnet20_cifar", "--pretrained", "--pretrained-dir", "own", "-o", "run"]
    assert run([*command, "--epochs", "8", "--lr", "1e-9", "--ema", "0", "--threads", "1", "-q"]) == 0
    recipe = yaml.safe_load((place / "run" / "recipe.yaml").read_text())
    assert (recipe["model"], recipe["pretrained"], recipe["img_size"]) == ("resnet20_cifar", "akamaster", 32)
    config = load_bundle(place / "run").config
    assert config.labels == ("cat", "dog")
    assert (config.provenance.weights, config.provenance.licence) == (WEIGHTS, "BSD-2-Clause")
    assert config.preprocess.interpolation == "bilinear"
    before = safetensors.torch.load_file(place / "own" / f"{WEIGHTS}.safetensors")
    after = load_model(place / "run").state_dict()
    assert after["fc.weight"].shape == (2, 64)
    torch.testing.assert_close(after["layer2.1.conv1.weight"], before["layer2.1.conv1.weight"], rtol=0, atol=1e-6)
    # The averages of batch norm say that the pictures went through it.
    assert not torch.equal(after["layer2.1.bn1.running_mean"], before["layer2.1.bn1.running_mean"])


@pytest.mark.parametrize("said", ["3", "0", "[v1]", "{v1: 1}", "1.5"])
@pytest.mark.parametrize("name", ["resnet20_cifar", WEIGHTS])
def test_a_recipe_file_names_weights_by_a_word(
    said: str, name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "own.yaml").write_text(f"pretrained: {said}\nepochs: 1\n")
    assert run(["train", "digits", "--model", name, "-c", "own.yaml", "-o", "x"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert (
        line == f"netsmith: own.yaml: pretrained is {yaml.safe_load(said)!r}; give a tag of weights such as v1, or true"
    )
    assert not (place / "x").exists()
