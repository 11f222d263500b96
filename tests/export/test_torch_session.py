"""PyTorch behind the protocol of the runtimes: an artifact's own weights, preprocessing and activation."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import Bundle, Preferred
from netsmith.artifact.comparison import compare, own_contenders
from netsmith.artifact.runtimes import open_session
from netsmith.errors import InputError
from netsmith.export.network import export_network
from netsmith.export.torch_session import COMPILED, TORCH, TorchSession, in_torch, open_any, open_artifact
from netsmith.models.build import build
from netsmith.run.preprocess import Preprocess

LABELS = ("cat", "dog", "hat")
RULES = Preprocess(size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


def exported(folder: Path, **more) -> Bundle:
    network = build(find_layout("resnet20_cifar@width=0.25", num_classes=3, img_size=16)).eval()
    return export_network(network, folder, labels=LABELS, preprocess=RULES, **more)


@pytest.mark.parametrize(
    "more", [{"temperature": 2.5}, {"activation": "sigmoid", "thresholds": (0.2, 0.5, 0.7)}], ids=["classify", "tag"]
)
def test_pytorch_answers_as_the_artifact_does(tmp_path, more):
    # A preference changes what runs the artifact, and not what it was compared with when it was made.
    bundle = exported(tmp_path / "model", preferred=Preferred(runtime="openvino-bf16", threads=3), **more)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    expected = open_session(bundle, runtime="onnxruntime", threads=1).run(pixels)
    session = open_artifact(bundle.folder, threads=1)
    assert (session.runtime, session.threads, session.size, session.classes) == (TORCH, 1, 16, 3)
    found = session.run(pixels)
    assert found.logits == pytest.approx(expected.logits, abs=1e-5)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_without_float_weights_or_torch_it_says_so(tmp_path, monkeypatch):
    bundle = exported(tmp_path / "model", with_weights=False)
    assert [(each.runtime, each.obstacle) for each in in_torch(bundle)] == [
        (name, f"needs float weights, and {bundle.folder} was shipped without model.safetensors")
        for name in (TORCH, COMPILED)
    ]
    with pytest.raises(InputError, match=r"shipped without model\.safetensors"):
        open_any(bundle.folder, threads=1, runtime=TORCH)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert in_torch(bundle)[0].obstacle == "is not installed (pip install 'netsmith[train]')"


def test_a_compiler_that_fails_is_a_reason_in_one_sentence(monkeypatch):
    def fails(*args, **more):
        raise RuntimeError("no compiler\nand much advice")

    monkeypatch.setattr("torch.compile", lambda call, dynamic: fails)
    network = build(find_layout("resnet20_cifar@width=0.25", num_classes=3, img_size=16)).eval()
    with pytest.raises(InputError, match=r"^torch\.compile does not work here \(no compiler\)$"):
        TorchSession(network, RULES, threads=1, compiled=True)


@pytest.mark.slow
def test_all_runtimes_side_by_side(tmp_path):
    bundle = exported(tmp_path / "model")
    found = compare(bundle, [*own_contenders(bundle), *in_torch(bundle)], threads=[1], batches=[1, 2], seconds=0.3)
    measured = {each.runtime for each in found.entries if each.measurement is not None}
    assert {"onnxruntime", TORCH, *([COMPILED] if shutil.which("g++") else [])} <= measured
    for each in found.entries:
        assert each.measurement is None or (found.agrees(each) and each.same_answers == found.pictures), each
        assert each.measurement is not None or each.reason
