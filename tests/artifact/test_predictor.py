import io
import subprocess
import sys

import numpy as np
import onnx
import pytest
from artifact_models import COLOURS, LABELS, PREPROCESS, SIZE, colour_model, colour_picture, write_colours
from onnx import TensorProto, helper
from PIL import Image

import netsmith
from netsmith.artifact.bundle import Preferred
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.predictor import Prediction, Predictor, Unreadable
from netsmith.artifact.runtimes import Outputs, held_to, open_model, open_session
from netsmith.data.prepare import prepare
from netsmith.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictor") / "model"
    write_colours(folder, temperature=2.0)
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return netsmith.Predictor(folder)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_probabilities_are_those_of_the_mean_colour(predictor):
    encoded = colour_picture("green")
    mean = prepare(encoded, PREPROCESS).reshape(-1, 3).mean(axis=0)
    expected = softmax(8 * mean / 255 / 2.0)
    assert predictor.predict_proba(encoded)[0] == pytest.approx(expected, abs=1e-5)
    [prediction] = predictor.predict(encoded, top_k=2)
    assert prediction.name == "image 0"
    assert prediction.labels[0] == LABELS[1]
    assert prediction.probabilities == pytest.approx(np.sort(expected)[::-1][:2], abs=1e-5)


def test_every_way_to_give_a_picture_gives_the_same(predictor, tmp_path):
    encoded = colour_picture("blue", kind="JPEG")
    path = tmp_path / "blue.jpg"
    path.write_bytes(encoded)
    opened = Image.open(path)
    array = np.asarray(opened)
    ways = [str(path), path, encoded, opened, array]
    rows = predictor.predict_proba(ways)
    assert np.array_equal(rows, np.repeat(rows[:1], len(ways), axis=0))
    for way in ways:
        assert np.array_equal(predictor.predict_proba(way), rows[:1])
    assert np.array_equal(predictor.predict_proba(np.stack([array, array])), rows[:2])
    assert predictor.predict(path)[0].name == str(path)
    assert predictor.predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "I;16"])
def test_a_pillow_image_is_prepared_like_its_file(predictor, mode):
    rgb = Image.open(io.BytesIO(colour_picture("red")))
    image = Image.fromarray(np.full((40, 30), 40000, np.uint16)) if mode == "I;16" else rgb.convert(mode)
    content = io.BytesIO()
    image.save(content, "PNG" if mode in {"L", "LA", "RGBA", "P", "1", "I;16"} else "TIFF")
    assert np.array_equal(predictor.predict_proba(image), predictor.predict_proba(content.getvalue()))


def test_a_pillow_image_keeps_its_rotation(predictor, tmp_path):
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:, :45] = COLOURS["red"]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    predictions = predictor.predict_proba([tmp_path / "turned.jpg", Image.open(tmp_path / "turned.jpg")])
    assert np.array_equal(predictions[0], predictions[1])


def test_batches_do_not_change_the_answers(predictor):
    pictures = [colour_picture(colour, seed=seed) for seed in range(4) for colour in COLOURS]
    one = predictor.predict(pictures, batch_size=1)
    assert [answer.labels[0] for answer in one] == list(LABELS) * 4
    many = predictor.predict(pictures, batch_size=5)
    assert [answer.labels for answer in many] == [answer.labels for answer in one]


def test_an_unreadable_picture_is_told_in_its_place(predictor, tmp_path):
    pictures = [
        ("a", colour_picture("red")),
        ("b", b"nonsense"),
        ("c", tmp_path / "none.png"),
        ("d", colour_picture("blue")),
    ]
    answers = list(predictor.stream(pictures, batch_size=2))
    assert [type(answer) for answer in answers] == [Prediction, Unreadable, Unreadable, Prediction]
    assert [answer.name for answer in answers] == ["a", "b", "c", "d"]
    assert answers[1].reason.startswith("b is not a picture")
    with pytest.raises(InputError, match="image 1"):
        predictor.predict([colour_picture("red"), b"nonsense"])
    with pytest.raises(InputError, match=r"none\.png cannot be read"):
        predictor.predict(tmp_path / "none.png")
    with pytest.raises(InputError, match="at least 1"):
        predictor.predict(colour_picture("red"), top_k=0)


def test_evaluation_counts_and_scores_like_a_plain_version(folder):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, SIZE, SIZE, 3), np.uint8)
    targets = rng.integers(0, 3, 50)
    session = open_model(folder / "model.onnx")
    seen = []
    found = evaluate(
        session, pixels, targets, batch_size=16, progress=lambda title, done, total: seen.append((done, total))
    )
    logits = 8 * pixels.reshape(50, -1, 3).mean(axis=1) / 255
    assert found.logits == pytest.approx(logits, abs=1e-4)
    assert found.top1.value == np.mean(found.logits.argmax(axis=1) == targets)
    assert found.scores["top5"].value == 1.0
    assert found.scores["loss"].value == pytest.approx(
        -np.log(softmax(logits)[np.arange(50), targets]).mean(), abs=1e-4
    )
    assert seen == [(16, 50), (32, 50), (48, 50), (50, 50)]
    assert list(found.scores) == ["top1", "top5", "loss"]


def test_a_missing_runtime_is_said_never_silent(tmp_path):
    bundle = write_colours(tmp_path / "model", preferred=Preferred(runtime="openvino9", threads=10_000))
    said = []
    session = open_session(bundle, warn=said.append)
    assert session.runtime == "onnxruntime"
    assert len(said) == 2
    assert "openvino9" in said[0]
    assert "10000 threads" in said[1]
    with pytest.warns(UserWarning, match="openvino9"), pytest.warns(UserWarning, match="10000 threads"):
        Predictor(tmp_path / "model")
    with pytest.raises(InputError, match="there is no runtime 'onnxrt'; .*onnxruntime"):
        open_session(bundle, runtime="onnxrt", threads=1)
    with pytest.raises(InputError, match="threads is 0"):
        open_session(bundle, threads=0)


@pytest.mark.parametrize("damage", ["short", "text", "signature", "classes"])
def test_a_model_that_cannot_serve_is_refused_in_one_sentence(tmp_path, damage):
    bundle = write_colours(tmp_path / "model")
    content = bundle.model_path.read_bytes()
    if damage == "classes":
        content = colour_model(size=48)
    elif damage == "signature":
        model = onnx.load_model_from_string(content)
        del model.graph.output[1]
        content = model.SerializeToString()
    bundle.model_path.write_bytes({"short": content[: len(content) // 2], "text": b"hello"}.get(damage, content))
    with pytest.raises(InputError, match=r"model\.onnx") as caught:
        open_session(bundle)
    assert "\n" not in str(caught.value)


def test_sigmoid_outputs_pass_through(tmp_path):
    model = onnx.load_model_from_string(colour_model())
    model.graph.node[-1].CopyFrom(helper.make_node("Sigmoid", ["cooled"], ["probabilities"]))
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT
    write_colours(tmp_path / "model", model=model.SerializeToString(), activation="sigmoid")
    row = Predictor(tmp_path / "model").predict_proba(colour_picture("red"))[0]
    assert row.sum() > 1.01


def test_predicting_imports_neither_onnx_nor_torch_nor_arch(folder, tmp_path):
    (tmp_path / "red.png").write_bytes(colour_picture("red"))
    code = (
        "import sys; from netsmith.cli.main import run\n"
        f"assert run(['predict', {str(folder)!r}, {str(tmp_path / 'red.png')!r}]) == 0\n"
        "bad = {'onnx', 'torch', 'rich', 'matplotlib', 'netsmith.arch.graph'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[2] == "red"


def test_a_model_that_does_not_answer_is_told_in_one_sentence(tmp_path):
    """Such a file opens: what it says of itself is right, and what it does is not."""
    with pytest.raises(InputError, match=r"the ONNX model fails on pictures .*export the artifact again") as caught:
        open_model(colour_model(order=(0, 1, 7))).run(np.zeros((1, SIZE, SIZE, 3), np.uint8))
    assert "\n" not in str(caught.value)
    write_colours(tmp_path / "model", model=colour_model(scale=float("nan")))
    predictor = Predictor(tmp_path / "model")
    for answer in (predictor.predict, predictor.predict_proba):
        with pytest.raises(InputError, match="model answers with what is no number"):
            answer(colour_picture("red"))


def test_answers_of_another_shape_are_refused():
    rows = np.zeros((2, 3), np.float32)
    assert held_to(Outputs(rows, rows), (2, 3), where="m").logits is rows
    for outputs in (Outputs(rows[:1], rows), Outputs(rows, rows[:, :2])):
        with pytest.raises(InputError, match=r"m answers 2 pictures with .*and says \[2, 3\]"):
            held_to(outputs, (2, 3), where="m")
