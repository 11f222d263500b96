"""quantize as a person types it: with what people get wrong, in one sentence, nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
from PIL import Image
from striped import LABELS, solved, stripes, write_solved, write_stripes

from netsmith.artifact.bundle import artifact_hash, load_bundle, write_bundle
from netsmith.artifact.quantization import Quantization
from netsmith.cli.main import run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, `stripes.npz`, and what is like them and wrong."""
    root = tmp_path_factory.mktemp("quantize-verb")
    layout, weights = solved("resnet20_cifar@0.25")
    bundle = write_solved(root / "model", layout, weights)
    write_stripes(root / "stripes.npz")
    pixels, labels = stripes(60, seed=0)
    np.savez(root / "others.npz", images=pixels, labels=np.array(["cat", "dog", "fox", "owl"])[labels])
    np.savez(root / "fewer.npz", images=pixels, labels=np.array(LABELS)[labels % 2])
    np.savez(root / "none.npz", images=pixels[:0], labels=np.array(LABELS)[labels[:0]])

    def again(name: str, **changes: object) -> None:
        config = bundle.config
        given = {
            "model": bundle.model_path.read_bytes(), "layout": bundle.layout, "labels": config.labels,
            "preprocess": config.preprocess, "golden": bundle.golden(),
        }  # fmt: skip
        write_bundle(root / name, **(given | changes))  # pyright: ignore

    quantization = Quantization(
        source="0" * 64, rung="made up", per_channel=True, bits=8, calibration="minmax", pictures=1,
        excluded=(), equalized=False,
    )  # fmt: skip
    again("int8", precision="int8", quantization=quantization)
    again("unlike", weights=safetensors.numpy.save({"conv1.weight": np.zeros((3, 3), np.float32)}))
    again("damaged", model=b"no graph")
    graph = onnx.load(bundle.model_path)
    graph.graph.node[-1].op_type = "Softmx"
    again("unheard", model=graph.SerializeToString())
    graph = onnx.load(bundle.model_path)
    weight = next(each for each in graph.graph.initializer if each.name == "fc.weight")
    weight.raw_data = np.full(len(weight.raw_data) // 4, np.nan, np.float32).tobytes()
    again("nan", model=graph.SerializeToString())
    weight.raw_data = weight.raw_data[:-3]
    again("cut", model=graph.SerializeToString())
    return root


@pytest.mark.parametrize(
    ("model", "data", "more", "words"),
    [
        ("int8", "stripes.npz", [], "is int8 already; quantize the float32 model that it was made from"),
        ("unlike", "stripes.npz", [], "does not hold the weights of resnet20_cifar@0.25"),
        ("damaged", "stripes.npz", [], "model.onnx is refused by ONNX Runtime"),
        ("unheard", "stripes.npz", [], "is refused by ONNX Runtime"),
        ("nan", "stripes.npz", [], "fc has weights that are not finite numbers; export or train the model again"),
        ("cut", "stripes.npz", [], "model.onnx is refused by ONNX Runtime"),
        ("nowhere", "stripes.npz", [], "there is no"),
        ("model", "others.npz", [], "has classes that the model does not know (cat, dog, fox and 1 more)"),
        ("model", "fewer.npz", [], "lacks classes of the model (steep, up)"),
        ("model", "none.npz", [], "none.npz"),
        ("model", None, [], "say with --data which pictures to use"),
        ("model", "stripes.npz", ["--calibration-size", "0"], "--calibration-size is 0; at least one picture"),
        ("model", "stripes.npz", ["--max-drop", "-1"], "--max-drop is -1; give points of accuracy from 0 to 100"),
        ("model", "stripes.npz", ["--max-drop", "nan"], "--max-drop is nan"),
        ("model", "stripes.npz", ["--calibration", "mean"], "--calibration"),
        ("model", "stripes.npz", ["--precision", "int4"], "--precision"),
        ("model", "stripes.npz", ["--precision", "float16", "--calibration", "entropy"], "go with int8"),
        ("model", "stripes.npz", ["--time", "1m", "--epochs", "2"], "--time and --epochs do not go together"),
        ("model", "stripes.npz", ["--epochs", "2", "--precision", "float16"], "only int8 may train"),
        ("model", "stripes.npz", ["--lr", "0.1"], "how long training with rounding may take is not said"),
        ("model", "stripes.npz", ["--epochs", "2", "--img-size", "64"], "--img-size cannot change here"),
        ("model", "stripes.npz", ["--epochs", "0"], "--epochs is 0; it must be above 0"),
        ("model", "stripes.npz", ["--max-dorp", "1"], "there is no flag '--max-dorp'; did you mean '--max-drop' or"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(place, tmp_path, capsys, model, data, more, words):
    before = artifact_hash(place)
    given = [] if data is None else ["--data", str(place / data)]
    assert run(["quantize", str(place / model), *given, "-o", str(tmp_path / "out"), *more]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert words in told[-1]
    assert len([line for line in told if line.startswith("netsmith:")]) == 1
    assert not (tmp_path / "out").exists()
    assert artifact_hash(place) == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--epochs", "2", "-c", "nowhere.yaml"], "there is no recipe nowhere.yaml"),
        (["--epochs", "2", "-c", "wrong.yaml"], "wrong.yaml has the unknown key 'learning_rate'"),
        (["-c", "right.yaml"], "how long training with rounding may take is not said; give --time or --epochs"),
        (["-c", "right.yaml", "--precision", "bfloat16"], "only int8 may train"),
        (["--strict"], "up/torn.png"),
    ],
)
def test_a_recipe_file_and_strict_are_what_they_are_elsewhere(place, tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    Path("right.yaml").write_text("batch_size: 16\n")
    Path("wrong.yaml").write_text("learning_rate: 0.1\n")
    pixels, labels = stripes(40, seed=0)
    for at, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = Path("pictures", LABELS[label])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{at}.png")
    Path("pictures/up/torn.png").write_bytes(b"no picture")
    assert run(["quantize", str(place / "model"), "--data", "pictures", "-o", "out", *more]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert words in told[-1]
    assert not Path("out").exists()


def test_help_names_them(capsys):
    assert run(["quantize", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--config -c", "--strict"))


def test_an_older_format_cannot_say_that_a_graph_is_rounded(place, tmp_path):
    shutil.copytree(place / "int8", tmp_path / "int8")
    path = tmp_path / "int8" / "config.json"
    document = json.loads(path.read_text())
    assert (document["format"], document["quantization"]["rung"]) == (3, "made up")
    assert load_bundle(tmp_path / "int8").config.quantization is not None
    path.write_text(json.dumps(document | {"format": 1}))
    with pytest.raises(ValueError, match="format 3, precision 'int8' and quantization go together"):
        load_bundle(tmp_path / "int8")
