"""Equalized graphs: the same function, also behind ReLU6 and depthwise layers, that rounding no longer spoils."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from striped import PREPROCESS, Weights, solved, stripes

from netsmith.arch.graph import Conv, Norm
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.names import find_layout
from netsmith.artifact.runtimes import open_model
from netsmith.compress.quantize.calibrate import Observed, observe
from netsmith.compress.quantize.equalize import equalize, in_words, pairs
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.export.onnx_graph import write_onnx
from netsmith.export.probe import probe_onnx, probe_weights
from netsmith.run.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
APART = 3.0
"""Decades between the channels that a depthwise layer reads."""


def logits(model: bytes, pixels: NDArray[np.uint8] = PIXELS) -> NDArray[np.float32]:
    return open_model(model).run(pixels).logits


def departure(model: bytes, wanted: NDArray[np.float32], pixels: NDArray[np.uint8]) -> float:
    """Mean squared, as a share of the variance."""
    return float(np.square(logits(model, pixels) - wanted).mean() / wanted.var())


def test_equalizing_keeps_the_function_and_makes_channels_alike():
    layout = find_layout("vgg11_bn@0.1", num_classes=10, img_size=32)
    weights = probe_weights(layout)
    first = next(name for name in weights if weights[name].ndim == 4)
    norm = next(name for name in weights if name.endswith("running_var"))
    weights[norm] = weights[norm] * np.logspace(-4, 4, len(weights[norm]), dtype=np.float32)  # after the first layer
    graph = Graph(write_onnx(layout, weights, preprocess=Preprocess(size=32)))
    equal = Graph(equalize(graph, {}))
    np.testing.assert_allclose(logits(equal.model), logits(graph.model), rtol=1e-3, atol=1e-4)

    def unlike(each: Graph) -> float:
        reach = np.abs(each.constants[first].reshape(len(each.constants[first]), -1)).max(axis=1)
        return float(reach.max() / reach.min())

    assert unlike(graph) > 1000
    assert unlike(equal) < unlike(graph) / 20
    assert len(pairs(graph)) >= 8
    assert "beyond" not in in_words(pairs(graph))


def test_equalizing_does_not_blow_up_what_is_all_but_its_bias():
    graph = Graph(probe_onnx(find_layout("vgg11_bn@0.1", num_classes=10, img_size=32), preprocess=Preprocess(size=32)))
    layer = pairs(graph)[2].first
    weight = graph.constants[layer.input[1]].copy()
    weight[0] = 1e-20
    bias = graph.constants[layer.input[2]].copy()
    bias[0] = 1.0
    dead = Graph(graph.with_constants({layer.input[1]: weight, layer.input[2]: bias}))
    equal = Graph(equalize(dead, {}))
    np.testing.assert_allclose(logits(equal.model), logits(dead.model), rtol=1e-3, atol=1e-4)
    extremes = [observe(each, PIXELS, counted=False).extremes.values() for each in (dead, equal)]
    before, after = (max(high for _, high in found) for found in extremes)
    assert after < 100 * before


def far_apart(layout: Layout, weights: Weights) -> None:
    """Every map has numbers around 2, many of which reach 6; then most channels that depthwise layers read become
    small, and what reads them large."""
    import torch

    from netsmith.export.network import normalised
    from netsmith.models.build import build

    network = build(layout, seed=0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            torch.nn.init.constant_(module.weight, 2.0)
    with torch.no_grad():
        network.train()(normalised(stripes(160, seed=0)[0], PREPROCESS))
    weights.update({name: value.numpy().copy() for name, value in network.state_dict().items() if name in weights})
    draw, ops = np.random.default_rng(1), layout_graph(layout).ops
    for norm, _, second in zip(ops, ops[1:], ops[2:], strict=False):
        if isinstance(norm, Norm) and isinstance(second, Conv) and second.groups > 1:
            factor = (10.0 ** -draw.uniform(0, APART, second.groups)).astype(np.float32)
            for entry in ("weight", "bias"):
                weights[f"{norm.name}.{entry}"] *= factor
            weights[f"{second.name}.weight"] /= factor[:, None, None, None]


@pytest.fixture(scope="module")
def mobile() -> tuple[Graph, Observed]:
    """An untrained MobileNetV2 whose last layer is solved for, and what it holds on calibration pictures."""
    graph = Graph(write_onnx(*solved("mobilenet_v2@0.35,depth=0.3", far_apart), preprocess=PREPROCESS))
    return graph, observe(graph, stripes(64, seed=5)[0], counted=False)


def test_behind_relu6_the_function_stays_whatever_the_picture(mobile):
    """Also where a picture drives to 6 what no calibration picture did."""
    graph, observed = mobile
    found = pairs(graph)
    grouped = {node.name for node in graph.nodes if any(each.name == "group" and each.i > 1 for each in node.attribute)}
    assert grouped <= {pair.second.name for pair in found if pair.clip is not None}, "a pair before every depthwise one"
    assert grouped <= {pair.first.name for pair in found if pair.clip is not None}, "and one behind it"
    assert in_words(found) == f"{len(found)} pairs of layers equalized, 17 of them beyond a ReLU6"
    equal = Graph(equalize(graph, observed.peaks))
    noise = np.random.default_rng(0).integers(0, 2, (64, 16, 16, 3), dtype=np.uint8) * 255
    for pixels in (stripes(64, seed=5)[0], stripes(64, seed=9)[0], noise):
        np.testing.assert_allclose(logits(equal.model, pixels), logits(graph.model, pixels), rtol=1e-3, atol=1e-4)
    unseen = observe(graph, noise, counted=False).peaks
    assert sum(int(((unseen[name] >= 6) & (peak < 6)).sum()) for name, peak in observed.peaks.items()) > 20
    assert sum(int((peak >= 6).sum()) for peak in observed.peaks.values()) > 20, "the clip is at work"


@pytest.mark.parametrize("per_channel", [True, False])
def test_what_collapses_in_depthwise_stages_recovers_and_nothing_of_the_clips_is_in_the_file(mobile, per_channel):
    graph, observed = mobile
    pixels, labels = stripes(200, seed=9)
    wanted = logits(graph.model, pixels)
    rounding = Rounding(per_channel=per_channel)
    equal = Graph(equalize(graph, observed.peaks))
    ranges = observe(equal, stripes(64, seed=5)[0], counted=False).ranges("minmax")
    before, after = quantize(graph, observed.ranges("minmax"), rounding), quantize(equal, ranges, rounding)
    assert departure(before, wanted, pixels) > 1.0
    assert departure(after, wanted, pixels) < 0.15
    right = [(logits(model, pixels).argmax(1) == labels).mean() for model in (graph.model, before, after)]
    assert right[1] < right[0] - 0.15
    assert right[2] > right[0] - 0.05
    counts = [Counter(node.op_type for node in Graph(model).nodes) for model in (before, after)]
    assert counts[0] == counts[1], "as many passes over the maps as without"
    assert not {"Min", "Relu", "Clip"} & {*counts[1]}

    (clipped, *_) = [pair.first.name for pair in pairs(graph) if pair.clip is not None]
    apart = quantize(equal, ranges, Rounding(per_channel=per_channel, excluded=frozenset({clipped})))
    assert Counter(node.op_type for node in Graph(apart).nodes)["Min"] == 1, "a layer in float keeps its limits"
    assert departure(apart, wanted, pixels) < 0.15
