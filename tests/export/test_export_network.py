"""A network becomes an artifact that agrees with PyTorch, or nothing is written; repacking keeps the model's bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import MODEL, WEIGHTS, Preferred, Provenance, load_bundle
from netsmith.artifact.golden import synthetic_examples
from netsmith.artifact.predictor import Predictor
from netsmith.artifact.verify import verify
from netsmith.errors import CheckError, InputError
from netsmith.export import network as export
from netsmith.export.network import convert_network, export_network
from netsmith.export.repack import repack
from netsmith.models.build import Network, build, load_model
from netsmith.run.preprocess import Preprocess

LABELS = ("cat", "dog", "bird")
PREPROCESS = Preprocess(size=32, mean=(0.5, 0.4, 0.3))


def lived_in(name: str = "mobilenet_v2@0.35", size: int = 32) -> Network:
    """A network whose batch norm has seen data, left in training mode."""
    network = build(find_layout(name, num_classes=3, img_size=size), seed=3)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0)))
    return network


def export_to(folder: Path, network: nn.Module | None = None, **changes: Any) -> Any:
    settings: dict[str, Any] = {"labels": LABELS, "preprocess": PREPROCESS}
    return export_network(network or lived_in(), folder, **settings | changes)


@pytest.mark.parametrize("name", ["resnet8_cifar", "mobilenet_v2@0.35", "efficientnet_b0@0.25"])
def test_an_artifact_predicts_what_the_network_does_and_passes_verify(name: str, tmp_path: Path) -> None:
    network = lived_in(name)
    bundle = export_to(tmp_path / "model", network)
    assert verify(bundle.folder).ok
    golden = bundle.golden()
    reloaded = load_model(bundle.folder)
    pixels = torch.from_numpy(golden.pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PREPROCESS.mean, PREPROCESS.std))
    for reference in (network.eval(), reloaded):
        with torch.no_grad():
            expected = torch.softmax(reference((pixels - mean) / std), 1).numpy()
        np.testing.assert_allclose(golden.probabilities, expected, atol=1e-5)
    predicted = Predictor(bundle.folder).predict_proba(list(golden.encoded))
    np.testing.assert_allclose(predicted, golden.probabilities, atol=1e-6)


def test_export_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = lived_in()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    export_to(tmp_path / "model", network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_everything_that_was_said_is_in_the_folder(tmp_path: Path) -> None:
    pictures = synthetic_examples(PREPROCESS, count=2, seed=9)
    provenance = Provenance(recipe="0" * 64, weights="nothing")
    bundle = export_to(
        tmp_path / "model", golden=pictures, activation="sigmoid", temperature=2.0, preferred=Preferred(threads=2),
        provenance=provenance, with_weights=False,
    )  # fmt: skip
    assert (bundle.config.activation, bundle.config.temperature) == ("sigmoid", 2.0)
    assert (bundle.config.preferred.threads, bundle.config.provenance) == (2, provenance)
    assert bundle.golden().encoded == tuple(pictures)
    assert not (bundle.folder / WEIGHTS).exists()
    assert verify(bundle.folder).ok


def test_exports_are_the_same_to_the_byte(tmp_path: Path) -> None:
    network = lived_in()
    first, second = (export_to(tmp_path / name, network).folder for name in ("a", "b"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_half_precision_and_channels_last_networks_export(tmp_path: Path) -> None:
    network = lived_in().to(torch.bfloat16).to(memory_format=torch.channels_last)
    bundle = export_to(tmp_path / "model", network)
    assert verify(bundle.folder).ok


def test_the_resolution_is_the_preprocessings(tmp_path: Path) -> None:
    bundle = export_to(tmp_path / "model", preprocess=Preprocess(size=40))
    assert bundle.layout.resolution == (40, 40)


def test_an_artifact_that_disagrees_never_comes_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layout: Any, weights: Any, **settings: Any) -> bytes:
        other = {**weights, "classifier.1.bias": weights["classifier.1.bias"] + 0.1}
        return write_onnx(layout, other, **settings)

    write_onnx = export.write_onnx
    monkeypatch.setattr(export, "write_onnx", wrong)
    with pytest.raises(CheckError, match="away from PyTorch's"):
        export_to(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_rounding_stays_far_below_the_limit() -> None:
    exported = convert_network(lived_in(), labels=LABELS, preprocess=PREPROCESS)
    assert 0 <= exported.difference < export.TOLERANCE / 50


def test_diverged_weights_and_wrong_labels_are_refused(tmp_path: Path) -> None:
    network = lived_in()
    with pytest.raises(InputError, match="2 different labels do not fit the 3 outputs"):
        export_to(tmp_path / "model", network, labels=("cat", "cat", "dog"))
    with torch.no_grad():
        network.get_submodule("classifier.1").weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        export_to(tmp_path / "model", network)
    assert not list(tmp_path.iterdir())


def test_repacking_keeps_the_model_and_leaves_out_what_is_private(tmp_path: Path) -> None:
    pictures = synthetic_examples(PREPROCESS, count=2, seed=9)
    bundle = export_to(tmp_path / "model", golden=pictures, temperature=1.5)
    lean = repack(load_bundle(bundle.folder), tmp_path / "lean", synthetic=True, with_weights=False)
    assert lean.model_path.read_bytes() == bundle.model_path.read_bytes()
    assert sorted(path.name for path in lean.folder.iterdir()) == ["config.json", "golden.npz", MODEL]
    assert WEIGHTS not in lean.config.files
    assert not set(pictures) & set(lean.golden().encoded)
    assert lean.config.model_copy(update={"files": {}}) == bundle.config.model_copy(update={"files": {}})
    assert verify(lean.folder).ok
    full = repack(bundle, tmp_path / "full")
    for file in bundle.folder.iterdir():
        assert file.read_bytes() == (full.folder / file.name).read_bytes(), file.name
    with pytest.raises(InputError, match="already exists"):
        repack(bundle, lean.folder)
    repack(bundle, lean.folder, overwrite=True)
    assert (lean.folder / WEIGHTS).is_file()
