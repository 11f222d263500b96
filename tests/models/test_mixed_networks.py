"""Branches, pieces, heads and classifiers for training: what is built is what the graph says."""

from dataclasses import replace

import mixed_networks
import numpy as np
import onnx
import pytest
import torch

from netsmith.arch import graph as g
from netsmith.arch.cost import cost, parts
from netsmith.arch.heads import FlattenedHead
from netsmith.arch.layout import at_size, layout_from_json, layout_graph, layout_to_json
from netsmith.arch.lower import lower
from netsmith.arch.scale import for_size, scale
from netsmith.arch.select import select
from netsmith.arch.spec import spec_from_json, spec_to_json, with_classes
from netsmith.artifact.runtimes import open_model
from netsmith.export.onnx_graph import write_onnx
from netsmith.models.build import build, load_weights
from netsmith.run.preprocess import Preprocess
from netsmith.train.objectives import Classify, auxiliary_weights


@pytest.mark.parametrize("name", mixed_networks.NAMES)
def test_the_file_computes_what_the_network_does(name: str) -> None:
    for layout in (mixed_networks.layout(name), at_size(mixed_networks.layout(name), 24)):
        network = build(layout, seed=1)
        side = layout.resolution[0]
        for _ in range(3):  # statistics that are not 0 and 1
            network(torch.randn(8, 3, side, side) * 2 + 1)
        network.eval()
        weights = {key: value.numpy() for key, value in network.state_dict().items()}
        assert {key: value.shape for key, value in weights.items()} == {
            key: shape for key, shape, _ in g.state(layout_graph(layout))
        }
        plain = Preprocess(size=side, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        model = write_onnx(layout, weights, preprocess=plain)
        onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
        pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
        images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        with torch.no_grad():
            expected = network(images).numpy()
        found = open_model(model).run(pixels).logits
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", mixed_networks.NAMES)
def test_every_parameter_learns_and_documents_round_trip(name: str) -> None:
    layout = mixed_networks.layout(name)
    network = build(layout, dropout=0.0)
    objective = Classify(network, mean=(0.5,) * 3, std=(0.25,) * 3, auxiliary=auxiliary_weights(network))
    objective(torch.randint(0, 256, (6, 3, 19, 19)), torch.arange(6) % 5).loss.backward()
    assert not [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert layout_from_json(layout_to_json(layout)) == layout
    spec = mixed_networks.spec(name)
    assert spec_from_json(spec_to_json(spec)) == spec


def test_classifiers_for_training_stand_beside() -> None:
    layout = mixed_networks.layout("inception")
    network = build(layout).eval()
    outputs = network.forward_all(torch.randn(2, 3, 19, 19))
    assert list(outputs) == ["stage1", "aux1", "stage2", "logits"]
    assert outputs["aux1"].shape == (2, 5)
    assert auxiliary_weights(network) == {"aux1": 0.3}
    alone = replace(layout, auxiliary=())
    assert cost(layout).macs == cost(alone).macs
    assert cost(layout).peak_bytes == cost(alone).peak_bytes
    beside = next(part for part in parts(layout) if part.kind == "auxiliary")
    assert cost(layout).params == cost(alone).params + beside.cost.params > cost(alone).params
    assert (beside.cost.macs, beside.cost.activations) == (0, 0)


def test_other_classes_reach_every_classifier() -> None:
    spec = with_classes(mixed_networks.spec("inception"), 9)
    assert [each.head.classes for each in lower(spec).auxiliary] == [9]
    chosen = select(mixed_networks.layout("inception"), {"fc": [4, None]})
    assert [chosen.layout.num_classes, *(each.head.classes for each in chosen.layout.auxiliary)] == [2, 2]
    assert chosen.slices["aux.fc2.weight"].rows == chosen.slices["fc.weight"].rows == (4, None)
    fire = select(mixed_networks.layout("fire"), {"classifier.1": [None] * 3}).layout
    assert fire.num_classes == 3
    assert build(fire)(torch.randn(1, 3, 19, 19)).shape == (1, 3)


def test_blocks_that_shrink_the_map_do_not_repeat_and_keep_small_maps() -> None:
    spec = mixed_networks.spec("inception")
    deeper = lower(scale(spec, depth=3, width=2))
    assert [block.name for stage in deeper.stages for block in stage.blocks] == [
        "mixed_a", "mixed_a_1", "mixed_a_2", "mixed_a_3", "mixed_a_4", "mixed_a_5",
        "mixed_b", "mixed_c", "mixed_c_1", "mixed_c_2",
    ]  # fmt: skip
    assert [each.after for each in deeper.auxiliary] == ["mixed_a_5"]
    small = lower(for_size(spec, 4))
    shapes = g.shapes(layout_graph(small))
    assert [shapes[op][1:] for op in layout_graph(small).taps.values()] == [(4, 4), (4, 4)]


def test_a_flattened_head_takes_what_the_map_has_and_keeps_its_weights_at_other_sizes() -> None:
    tiny = lower(for_size(mixed_networks.spec("plain"), 4))
    assert isinstance(tiny.head, FlattenedHead)
    assert tiny.head.pieces[-1] == replace(tiny.head.pieces[-1], size=3)
    layout = mixed_networks.layout("plain")
    weights = build(layout).state_dict()
    larger = load_weights(at_size(layout, 40), weights, where="the smaller network")
    assert larger(torch.randn(1, 3, 40, 40)).shape == (1, 5)
