"""compress as a person types it: with what people get wrong, in one sentence, nothing written."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from striped import LABELS, solved, stripes, write_solved, write_stripes

from netsmith.artifact.bundle import write_bundle
from netsmith.artifact.quantization import Quantization
from netsmith.cli.main import run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, `stripes.npz`, and what is like them and wrong."""
    root = tmp_path_factory.mktemp("compress-verb")
    bundle = write_solved(root / "model", *solved("resnet20_cifar@0.25"))
    write_stripes(root / "stripes.npz")
    pixels, labels = stripes(60, seed=0)
    np.savez(root / "others.npz", images=pixels, labels=np.array(["cat", "dog", "fox", "owl"])[labels])
    np.savez(root / "fewer.npz", images=pixels, labels=np.array(LABELS)[labels % 2])
    config = bundle.config
    given = {
        "model": bundle.model_path.read_bytes(), "layout": bundle.layout, "labels": config.labels,
        "preprocess": config.preprocess, "golden": bundle.golden(),
    }  # fmt: skip
    quantization = Quantization(
        source="0" * 64, rung="made up", per_channel=True, bits=8, calibration="minmax", pictures=1,
        excluded=(), equalized=False,
    )  # fmt: skip
    (root / "wrong.yaml").write_text("learning_rate: 0.1\n")
    write_bundle(root / "int8", **given, precision="int8", quantization=quantization)
    write_bundle(
        root / "unlike", **given, weights=safetensors.numpy.save({"conv1.weight": np.zeros((3, 3), np.float32)})
    )
    return root


@pytest.mark.parametrize(
    ("model", "data", "more", "words"),
    [
        ("int8", "stripes.npz", [], "is int8 already; compress the float32 model that it was made from"),
        ("unlike", "stripes.npz", [], "does not hold the weights of resnet20_cifar@0.25"),
        ("nowhere", "stripes.npz", [], "there is no"),
        ("model", "others.npz", [], "has classes that the model does not know (cat, dog, fox and 1 more)"),
        ("model", "fewer.npz", [], "lacks classes of the model (steep, up)"),
        ("model", None, [], "say with --data which pictures to use"),
        ("model", "stripes.npz", ["--budget", "speed=5ms"], "unknown key 'speed'"),
        ("model", "stripes.npz", ["--budget", "size=0MB"], "must be above zero"),
        ("model", "stripes.npz", ["--time", "soon"], "--time 'soon' is not a duration"),
        ("model", "stripes.npz", ["--max-drop", "nan"], "--max-drop is nan; give points of accuracy, 0 to 100"),
        ("model", "stripes.npz", ["--img-size", "32"], "--img-size cannot change here"),
        ("model", "stripes.npz", ["--unlabelled", "nowhere"], "--unlabelled nowhere is no folder"),
        ("model", "stripes.npz", ["--unlabelled", "model"], "--unlabelled model holds no pictures"),
        ("model", "stripes.npz", ["--unlabelled", "model", "--time", "0"], "nothing is (--time is 0); leave it out"),
        ("model", "stripes.npz", ["--epochs", "3"], "there is no flag '--epochs'"),
        (
            "model",
            "stripes.npz",
            ["--grad-accum", "64", "-b", "64"],
            "--grad-accum 64 is too many parts for a batch of 64",
        ),
        ("model", "stripes.npz", ["-c", "nowhere.yaml"], "there is no recipe nowhere.yaml"),
        ("model", "stripes.npz", ["-c", "wrong.yaml"], "wrong.yaml has the unknown key 'learning_rate'"),
        ("model", "stripes.npz", ["--sharded"], "--sharded divides a network over several processes"),
        ("model", "stripes.npz", ["-o", "model/within"], "a model that is only read; name another folder"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    model: str, data: str | None, more: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    typed = ["compress", model, *(["--data", data] if data else [])]
    typed += [] if "--budget" in more else ["--budget", "size=20kB"]
    typed += [] if "-o" in more else ["-o", str(tmp_path / "out")]
    assert run([*typed, *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith("netsmith: ")
    assert said.count("\n") == 1
    assert words in said
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    assert not (tmp_path / "out").exists()


def test_what_must_be_said_is_asked_for(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compress", str(place / "model"), "-o", str(tmp_path / "out")]) == 2
    assert "give --budget such as latency=5ms,size=4MB" in capsys.readouterr().err
    assert run(["compress", str(place / "model"), "--budget", "size=1MB"]) == 2
    assert "name its folder with -o" in capsys.readouterr().err


def test_help_names_the_recipe_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compress", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--config -c", "--strict"))
