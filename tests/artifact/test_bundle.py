import json
import os
import zipfile
from contextlib import suppress

import numpy as np
import onnx
import pytest
from artifact_models import LABELS, PREPROCESS, SIZE, colour_model, write_colours
from onnx import TensorProto, numpy_helper

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import CONFIG, GOLDEN, MODEL, WEIGHTS, artifact_hash, external_files, load_bundle
from netsmith.artifact.golden import Golden, make_golden, synthetic_examples
from netsmith.artifact.runtimes import open_model, open_session
from netsmith.data.prepare import prepare
from netsmith.errors import InputError


@pytest.fixture
def folder(tmp_path):
    write_colours(tmp_path / "model", weights=b"weights")
    return tmp_path / "model"


def edit(folder, change):
    """Change the document of config.json."""
    document = json.loads((folder / CONFIG).read_text())
    change(document)
    (folder / CONFIG).write_text(json.dumps(document))


def test_a_bundle_reads_back_as_it_was_written(folder):
    bundle = load_bundle(folder, check_hashes=True)
    assert bundle.config.labels == LABELS
    assert bundle.config.preprocess == PREPROCESS
    assert bundle.layout == find_layout("resnet20_cifar", num_classes=3, img_size=SIZE)
    assert bundle.size_bytes == (folder / MODEL).stat().st_size + (folder / CONFIG).stat().st_size
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, GOLDEN, MODEL, WEIGHTS]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing temporary stays


def test_a_run_folder_stands_for_its_model(folder):
    assert load_bundle(folder.parent).folder == folder


def test_the_weights_are_optional_to_ship(folder):
    (folder / WEIGHTS).unlink()
    load_bundle(folder, check_hashes=True)


def test_the_same_content_has_the_same_hash_anywhere(folder, tmp_path):
    write_colours(tmp_path / "again", weights=b"weights")
    assert artifact_hash(folder) == artifact_hash(tmp_path / "again")
    (folder / MODEL).rename(folder / "renamed.onnx")
    assert artifact_hash(folder) != artifact_hash(tmp_path / "again")


def test_nothing_is_overwritten_unless_asked(folder, tmp_path):
    before = artifact_hash(folder)
    with pytest.raises(InputError, match="already exists"):
        write_colours(folder)
    assert artifact_hash(folder) == before
    write_colours(folder, overwrite=True, temperature=2.0)
    assert load_bundle(folder).config.temperature == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="not an artifact"):
        write_colours(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"mine"


def test_a_write_that_fails_leaves_the_old_artifact_and_nothing_else(folder, monkeypatch):
    before = artifact_hash(folder)

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("netsmith.artifact.bundle.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        write_colours(folder, overwrite=True, temperature=3.0)
    assert artifact_hash(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_what_a_killed_writer_left_is_removed(folder):
    leftover = folder.with_name(".model.0123abcd.tmp")
    leftover.mkdir()
    write_colours(folder, overwrite=True)
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "thresholds go together"),
        (lambda d: d.update(task="tag"), "thresholds go together"),
        (lambda d: d.update(thresholds=[0.5, 0.5, 0.5]), "thresholds go together"),
        (lambda d: d.update(format=2, task="tag", thresholds=[0.5] * 3), "activation 'sigmoid'"),
        (lambda d: d.update(format=2, task="tag", activation="sigmoid", thresholds=[0.5] * 2), "threshold per label"),
        (lambda d: d.update(format=2, task="tag", activation="sigmoid", thresholds=[0.5, 2.0, 0.5]), "thresholds.1"),
        (lambda d: d.update(format=3), "format 3, precision 'int8' and quantization go together"),
        (lambda d: d.update(format=4), "format 4 .* export the artifact again"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.pop("labels"), "labels"),
        (lambda d: d.update(labels=["a", "a", "b"]), "all be different"),
        (lambda d: d.update(labels=["a", "b"]), "number of labels"),
        (lambda d: d.update(temperature="1"), "temperature"),
        (lambda d: d.update(temperature=0), "temperature"),
        (lambda d: d["preprocess"].update(size=64), "preprocess.size"),
        (lambda d: d["preprocess"].update(crop=1e-6), "preprocess: pictures are resized to size / crop"),
        (lambda d: d["files"].update({"../secret": "0" * 64}), "plain file name"),
        (lambda d: d["files"].update({"..": "0" * 64}), "plain file name"),
        (lambda d: d["files"].update({"C:x": "0" * 64}), "plain file name"),
        (lambda d: d["files"].pop("golden.npz"), "golden.npz"),
        (lambda d: d["files"].update({"model.onnx": "0"}), "SHA-256"),
        (lambda d: d["preferred"].update(threads=0), "threads"),
        (lambda d: d.update(precision="int3"), "precision"),
    ],
)
def test_a_wrong_config_is_refused_by_name(folder, change, message):
    edit(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        load_bundle(folder)
    assert str(folder / CONFIG) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"format": NaN}', b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(folder, content):
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=CONFIG):
        load_bundle(folder)


def test_missing_and_changed_files_are_named(folder, tmp_path):
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes() + b"\0")
    load_bundle(folder)
    with pytest.raises(InputError, match=r"model\.onnx is not the file"):
        load_bundle(folder, check_hashes=True)
    (folder / GOLDEN).unlink()
    with pytest.raises(InputError, match=r"golden\.npz is missing"):
        load_bundle(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        load_bundle(folder)
    with pytest.raises(InputError, match="there is no"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither"):
        (tmp_path / "empty").mkdir()
        load_bundle(tmp_path / "empty")


def external(folder, location):
    """Move the constant "scale" of the model into another file."""
    model = onnx.load_model_from_string(colour_model())
    [tensor] = [item for item in model.graph.initializer if item.name == "scale"]
    value = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (folder / MODEL).write_bytes(model.SerializeToString())
    return value.tobytes()


def test_tensors_in_a_file_of_the_folder_count_and_run(folder):
    (folder / "weights.bin").write_bytes(external(folder, "weights.bin"))
    bundle = load_bundle(folder)
    assert external_files(folder / MODEL) == ("weights.bin",)
    assert bundle.size_bytes == sum((folder / name).stat().st_size for name in (MODEL, CONFIG, "weights.bin"))
    image = np.full((1, SIZE, SIZE, 3), 255, np.uint8)
    assert open_session(bundle).run(image).logits[0] == pytest.approx([8, 8, 8], rel=1e-5)


@pytest.mark.parametrize(
    "location", ["../out.bin", "/etc/hostname", "*/_ORT_MEM_ADDR_/*", "absent.bin", "link.bin", ""]
)
def test_tensors_outside_the_folder_are_refused(folder, location):
    content = external(folder, location)
    (folder.parent / "out.bin").write_bytes(content)
    os.symlink(folder.parent / "out.bin", folder / "link.bin")
    with pytest.raises(InputError, match="keeps tensors in"):
        open_session(load_bundle(folder))


def test_contents_without_a_folder_may_not_refer_to_files(folder):
    external(folder, "weights.bin")
    with pytest.raises(InputError, match="outside itself"):
        open_model((folder / MODEL).read_bytes())


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_golden_examples_survive_their_file(tmp_path, mode):
    preprocess = PREPROCESS.model_copy(update={"interpolation": mode})
    encoded = synthetic_examples(preprocess, count=5, seed=3)
    session = open_model(colour_model())
    golden = make_golden(
        encoded,
        preprocess,
        lambda pixels: session.run(pixels).probabilities,
        others={"openvino-bf16": lambda pixels: session.run(pixels).probabilities + 1},
    )
    path = tmp_path / GOLDEN
    path.write_bytes(golden.to_bytes())
    again = Golden.load(path)
    assert again.encoded == tuple(encoded)
    assert np.array_equal(again.pixels, np.stack([prepare(picture, preprocess) for picture in encoded]))
    assert np.array_equal(again.probabilities, golden.probabilities)
    assert np.array_equal(again.of("openvino-bf16"), golden.probabilities + 1)
    assert again.of("openvino") is again.of("onnxruntime") is again.probabilities
    assert golden.to_bytes() == golden.to_bytes()
    assert len({picture[16:24] for picture in encoded}) > 1  # sizes differ
    assert synthetic_examples(preprocess, count=5, seed=3) == encoded


@pytest.mark.parametrize("damage", ["short", "pickle", "offsets", "dtype", "other", "others"])
def test_a_damaged_golden_file_is_refused(tmp_path, damage):
    path = tmp_path / GOLDEN
    arrays = {
        "bytes": np.zeros(5, np.uint8),
        "offsets": np.array([0, 5]),
        "pixels": np.zeros((1, 4, 4, 3), np.uint8),
        "probabilities": np.zeros((1, 2), np.float32),
    }
    if damage == "pickle":
        arrays["offsets"] = np.array([print], object)
    if damage == "offsets":
        arrays["offsets"] = np.array([0, 6])
    if damage == "dtype":
        arrays["pixels"] = arrays["pixels"].astype(np.float32)
    if damage == "others":
        arrays["probabilities_openvino"] = np.zeros((1, 3), np.float32)
    if damage == "other":
        del arrays["probabilities"]
    np.savez(path, **arrays)
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"golden\.npz is damaged"):
        Golden.load(path)


def test_no_flipped_byte_of_a_golden_file_is_a_defect(folder):
    """Damaged streams, headers and lists each raise something else inside numpy."""
    whole = (folder / GOLDEN).read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 400)):
        (folder / GOLDEN).write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with suppress(InputError):
            Golden.load(folder / GOLDEN)


def test_a_golden_array_that_is_none(folder):
    with zipfile.ZipFile(folder / GOLDEN) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / GOLDEN, "w") as archive:
        for name, content in (members | {"pixels.npy": b"none"}).items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="'pixels' is no array"):
        load_bundle(folder).golden()


def test_a_link_to_an_artifact_is_replaced_and_its_target_stays(folder, tmp_path):
    os.rename(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    write_colours(folder, overwrite=True)
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / WEIGHTS).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "model"]


@pytest.mark.parametrize("wrong", ["pixels", "classes", "numbers"])
def test_golden_examples_of_another_model_are_refused(folder, wrong):
    golden = load_bundle(folder).golden()
    pixels, probabilities = golden.pixels, golden.probabilities
    if wrong == "pixels":
        pixels = pixels[:, :8, :8]
    if wrong == "classes":
        probabilities = probabilities[:, :2]
    if wrong == "numbers":
        probabilities = probabilities * np.float32("nan")
    (folder / GOLDEN).write_bytes(Golden(golden.encoded, pixels, probabilities).to_bytes())
    says = "its probabilities are no numbers" if wrong == "numbers" else "is not of the model in config.json"
    with pytest.raises(InputError, match=says):
        load_bundle(folder).golden()
