"""Inceptions as PyTorch networks: weights go both ways, and their classifiers for training follow."""

from functools import cache

import pytest
import torch

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, at_size, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import find_layout, find_spec
from netsmith.arch.pretrained import find_weights
from netsmith.arch.scale import for_size, scale
from netsmith.arch.spec import with_classes
from netsmith.data.pretrained import weights_preprocess
from netsmith.errors import InputError
from netsmith.models.adapt import adapt
from netsmith.models.build import build, load_weights
from netsmith.models.keymaps import KEYMAPS, convert_weights, foreign_names
from netsmith.models.weights import entries_of

AUXILIARY = ("googlenet", "inception_v3")


@cache
def small(name: str, *, classes: int = 7) -> Layout:
    spec = scale(with_classes(find_spec(name), classes), width=0.2, depth=0.1)
    return lower(for_size(spec, 32))


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
    weights = build(layout).state_dict()
    changed, found = adapt(
        layout, weights, lambda layout: build(layout).state_dict(), classes=[None] * 3, in_channels=1
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
    weights = build(layout).state_dict()
    alone = {key: value for key, value in weights.items() if not key.lower().startswith("aux")}
    converted = convert_weights(alone, layout, where="a file")
    assert converted.layout.auxiliary == ()
    beside = next(key for key in weights if key.lower().startswith("aux"))
    with pytest.raises(InputError, match=r"missing: (aux|Aux)"):
        convert_weights({**alone, beside: weights[beside]}, layout, where="a file")


def test_at_sizes_that_no_longer_feed_a_classifier_for_training_the_network_stays() -> None:
    published = find_layout("inception_v3")
    assert len(at_size(published, 299).auxiliary) == 1
    layout = at_size(published, 224)
    assert layout.auxiliary == ()
    assert (layout.stem, layout.stages, layout.head) == (published.stem, published.stages, published.head)
    weights = {key: torch.zeros(shape) for key, shape, _ in g.state(layout_graph(published))}
    assert set(entries_of(layout, weights)) == {key for key, _, _ in g.state(layout_graph(layout))}
    assert at_size(find_layout("googlenet"), 100).auxiliary == find_layout("googlenet").auxiliary
    with pytest.raises(InputError, match="smaller than a kernel"):
        at_size(published, 40)


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
