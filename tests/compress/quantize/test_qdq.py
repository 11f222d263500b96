"""Rounded graphs: what becomes an integer, what stays float, and that the runtime computes what the graph says."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from netsmith.arch.names import find_layout
from netsmith.artifact.runtimes import open_model
from netsmith.compress.quantize.calibrate import Observed, observe
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.half import halve
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.compress.quantize.sensitivity import rank
from netsmith.errors import InputError
from netsmith.export.onnx_graph import write_onnx
from netsmith.export.probe import probe_onnx, probe_weights
from netsmith.run.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)

# Every kind of operation that the graph has: sums, concatenations, gates, padded and pooled shortcuts, grouped and
# depthwise convolutions, norms on their own, scaled residuals, local norms, convolutions as classifiers.
NETWORKS = {
    "resnet20_cifar@0.5": 0.03,
    "resnext50_32x4d@0.25,depth=0.25": 0.03,
    "resnetv2_50@0.25,depth=0.25": 0.03,
    "vgg11_bn@0.1": 0.03,
    "alexnet@0.1": 0.05,
    "squeezenet1_1@0.5": 0.05,
    "googlenet@0.25": 0.05,
    "mobilenet_v2@0.35": 0.05,
    "mobilenet_v3_small@0.5": 0.05,
    "efficientnet_b0@0.5": 0.05,
}


def made(name: str, size: int = 32) -> tuple[Graph, Observed]:
    layout = find_layout(name, num_classes=10, img_size=size)
    graph = Graph(probe_onnx(layout, preprocess=Preprocess(size=size)))
    return graph, observe(graph, PIXELS, counted=False)


def logits(model: bytes) -> NDArray[np.float32]:
    return open_model(model).run(PIXELS).logits


def departure(model: bytes, wanted: NDArray[np.float32]) -> float:
    return float(np.abs(logits(model) - wanted).max() / np.abs(wanted).max())


def fused(model: bytes, place: Path) -> Counter[str]:
    """Kinds of operations that are left when the runtime has fused what it can."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(place / "fused.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(place / "fused.onnx").graph.node)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_is_rounded_whole_and_computes_what_it_did(name, tmp_path):
    graph, observed = made(name)
    wanted = logits(graph.model)
    model = quantize(graph, observed.ranges("minmax"), Rounding())
    onnx.checker.check_model(onnx.load_model_from_string(model))
    assert 0 < departure(model, wanted) < NETWORKS[name]
    kinds = fused(model, tmp_path)
    assert kinds["QLinearConv"] + kinds["QGemm"] == len(graph.layers()), kinds
    assert kinds["Conv"] == kinds["Gemm"] == kinds["Relu"] == kinds["Add"] == 0, kinds
    assert len(model) < 0.5 * len(graph.model)
    assert quantize(graph, observed.ranges("minmax"), Rounding()) == model, "the same bytes"


def test_the_runtimes_fused_kernels_compute_what_the_written_graph_says():
    graph, observed = made("resnet20_cifar@0.5")
    model = quantize(graph, observed.ranges("minmax"), Rounding())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = plain.run(["logits"], {"image": PIXELS})[0]
    # Levels on the edge between two may fall to either side.
    assert np.abs(found - logits(model)).max() < 0.02 * np.abs(found).max()


def test_answers_are_activated_and_cooled_in_float():
    layout = find_layout("resnet20_cifar@0.5", num_classes=10, img_size=32)
    graph = Graph(
        write_onnx(layout, probe_weights(layout), preprocess=Preprocess(size=32), activation="sigmoid", temperature=2.0)
    )
    model = quantize(graph, observe(graph, PIXELS, counted=False).ranges("minmax"), Rounding())
    found = open_model(model).run(PIXELS)
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-found.logits / 2)), atol=1e-6)


def test_excluded_nodes_stay_float_and_only_named_ones_are_rounded(tmp_path):
    graph, observed = made("resnet20_cifar@0.5")
    ranges, layers = observed.ranges("minmax"), graph.layers()
    assert len(layers) == 20
    model = quantize(graph, ranges, Rounding(excluded=frozenset(layers[:2])))
    assert fused(model, tmp_path)["QLinearConv"] == 17
    one = quantize(graph, ranges, Rounding(only=frozenset({layers[5]})))
    kinds = fused(one, tmp_path)
    assert (kinds["QLinearConv"], kinds["QLinearAdd"], kinds["QGemm"]) == (1, 0, 0)
    wanted = logits(graph.model)
    assert departure(one, wanted) < departure(quantize(graph, ranges, Rounding()), wanted)
    everything = quantize(graph, ranges, Rounding(excluded=frozenset(graph.candidates())))
    assert departure(everything, wanted) < 1e-6


def test_layers_are_ranked_by_what_they_do_to_the_logits():
    graph, observed = made("vgg11_bn@0.1")
    ranges = observed.ranges("minmax")
    spoilt = graph.layers()[3]
    (node,) = [node for node in graph.nodes if node.name == spoilt]
    low, high = ranges[node.input[0]]
    ranges[node.input[0]] = (low, 1e4 * high)  # no level is left for what it reads
    ranked, clean = (rank(graph, each, Rounding(), PIXELS) for each in (ranges, observed.ranges("minmax")))
    assert sorted(dict(ranked)) == sorted(graph.layers())
    assert [error for _, error in ranked] == sorted((error for _, error in ranked), reverse=True)
    worse = {name for name, error in ranked if error > 10 * dict(clean)[name]}
    assert worse == {spoilt, graph.layers()[2]}, "the layer itself, and the one that writes what it reads"


@pytest.mark.parametrize(("kind", "most"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_weights_in_sixteen_bits_are_half_the_file(kind, most):
    graph, _ = made("resnet20_cifar")
    model = halve(graph, kind)
    onnx.checker.check_model(onnx.load_model_from_string(model))
    assert 0.45 < len(model) / len(graph.model) < 0.56
    assert 0 < departure(model, logits(graph.model)) < most


def test_bfloat16_is_torchs_and_float16_has_an_end():
    torch = pytest.importorskip("torch")
    graph, _ = made("resnet20_cifar@0.5")
    name = next(node.input[1] for node in graph.nodes if node.op_type == "Conv")
    halved = Graph(halve(graph, "bfloat16"))
    raw = next(each.raw_data for each in halved.proto.graph.initializer if each.name == f"{name}/half")
    found = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(graph.constants[name].shape)
    np.testing.assert_array_equal(found, torch.tensor(graph.constants[name]).bfloat16().float().numpy())
    graph.constants[name] = graph.constants[name] * 0 + 1e6
    with pytest.raises(InputError, match="use --precision bfloat16"):
        halve(graph, "float16")


def test_a_foreign_graph_is_refused():
    graph, _ = made("resnet20_cifar@0.5")
    graph.proto.graph.node[3].name = ""
    with pytest.raises(InputError, match="only graphs that netsmith wrote"):
        Graph(graph.proto.SerializeToString())
