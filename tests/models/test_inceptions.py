"""Inceptions as PyTorch networks: the file computes what they do, weights go both ways, every classifier follows."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import find_layout, find_spec, list_models
from netsmith.arch.pretrained import find_weights
from netsmith.arch.scale import for_size, scale
from netsmith.arch.spec import with_classes
from netsmith.artifact.runtimes import open_model
from netsmith.data.pretrained import weights_preprocess
from netsmith.errors import InputError
from netsmith.export.onnx_graph import write_onnx
from netsmith.models.adapt import adapt
from netsmith.models.build import build, load_weights
from netsmith.models.keymaps import KEYMAPS, convert_weights, foreign_names
from netsmith.run.preprocess import Preprocess

NAMES = ("googlenet", "inception_reduced", "inception_v3", "inception_v4", "inception_resnet_v2")
AUXILIARY = ("googlenet", "inception_v3")


@cache
def small(name: str, *, classes: int = 7) -> Layout:
    spec = scale(with_classes(find_spec(name), classes), width=0.2, depth=0.1)
    return lower(for_size(spec, 32))


def lived_in(layout: Layout) -> dict[str, Tensor]:
    """Weights whose batch norms have statistics far from 0 and 1."""
    network = build(layout, seed=1)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.2, generator=generator)
        if name.endswith("running_var"):
            buffer.uniform_(0.3, 2.0, generator=generator)
    return network.state_dict()


def difference_of_the_file(layout: Layout) -> float:
    """Between ONNX Runtime on the written file and PyTorch, as a share of the largest logit."""
    weights = lived_in(layout)
    side = layout.resolution[0]
    plain = Preprocess(size=side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = write_onnx(layout, {name: value.numpy() for name, value in weights.items()}, preprocess=plain)
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = load_weights(layout, weights, where="the network")(images).numpy()
    return float(np.abs(open_model(model).run(pixels).logits - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_the_file_computes_what_the_network_does(name: str) -> None:
    assert difference_of_the_file(small(name)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", *list_models("inception*")])
def test_the_file_of_the_published_size_computes_what_the_network_does(name: str) -> None:
    assert difference_of_the_file(find_layout(name)) < 1e-4


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_timms_names_go_both_ways(name: str) -> None:
    layout = small(name)
    weights = build(layout).state_dict()
    keymap = next(keymap for keymap in KEYMAPS[layout.family] if keymap.source == "timm")
    names = foreign_names(keymap, layout)
    assert len(set(names.values())) == len(weights)
    back = convert_weights({names[key]: value for key, value in weights.items()}, layout, where="a file")
    assert back.source == "timm"
    assert all(torch.equal(back.weights[key], value) for key, value in weights.items())


@pytest.mark.parametrize("name", AUXILIARY)
def test_other_classes_and_channels_reach_every_classifier(name: str) -> None:
    layout = small(name)
    weights = lived_in(layout)
    changed, found = adapt(
        layout, weights, lambda layout: build(layout).state_dict(), num_classes=3, in_channels=1
    )  # fmt: skip
    network = load_weights(changed, found, where="the adapted weights")
    outputs = network.forward_all(torch.randn(2, 1, 32, 32))
    names = ("logits", *layout_graph(layout).auxiliary)
    assert {outputs[output].shape for output in names} == {(2, 3)}
    inside = f"{'aux1.fc1' if name == 'googlenet' else 'AuxLogits.conv0.conv'}.weight"
    assert torch.equal(found[inside], weights[inside])


@pytest.mark.parametrize("name", AUXILIARY)
def test_a_file_without_classifiers_for_training_gives_the_network_without(name: str) -> None:
    layout = small(name)
    weights = {key: torch.zeros(shape) for key, shape, _ in g.state(layout_graph(layout))}
    alone = {key: value for key, value in weights.items() if not key.lower().startswith("aux")}
    converted = convert_weights(alone, layout, where="a file")
    assert converted.layout.auxiliary == ()
    beside = next(key for key in weights if key.lower().startswith("aux"))
    with pytest.raises(InputError, match=r"missing: (aux|Aux)"):
        convert_weights({**alone, beside: weights[beside]}, layout, where="a file")


def test_a_file_of_other_classes_is_explained() -> None:
    weights = build(small("googlenet", classes=5)).state_dict()
    with pytest.raises(InputError, match="it has 5 classes, not 7; give --num-classes 5"):
        convert_weights(weights, small("googlenet"), where="a file")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "inception_v4", "inception_resnet_v2"])
def test_published_weights_bring_their_preprocessing(name: str) -> None:
    """torchvision's `transform_input` turns its usual normalisation into a mean and deviation of 0.5."""
    prepared = weights_preprocess(find_weights(name))
    assert prepared.mean == prepared.std == (0.5, 0.5, 0.5)
    assert prepared.size == find_layout(name).resolution[0]
