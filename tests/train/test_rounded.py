"""A network with rounding simulated computes what the int8 graph that is written of it computes."""

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from netsmith.arch.names import find_layout
from netsmith.artifact.runtimes import open_model
from netsmith.compress.quantize.calibrate import observe
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.export.network import normalised
from netsmith.export.onnx_graph import write_onnx
from netsmith.export.probe import probe_weights
from netsmith.models.build import build
from netsmith.models.network import Network
from netsmith.run.preprocess import Preprocess
from netsmith.train.rounded import Rounded

PREPROCESS = Preprocess(size=32)
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
SLOW = pytest.mark.slow
NETWORKS = (
    "resnet20_cifar@0.25",  # sums, zero padding
    "mobilenet_v2@0.35",  # depthwise convolutions, ReLU6
    "alexnet@0.1",  # max pools, linear layers
    pytest.param("squeezenet1_1@0.25", marks=SLOW),  # concatenations, a convolution gives the logits
    pytest.param("googlenet@0.25", marks=SLOW),
    pytest.param("mobilenet_v3_small@0.35", marks=SLOW),  # gates, activations in float
    pytest.param("efficientnet_b0@0.35", marks=SLOW),
    pytest.param("resnetv2_50@0.25,depth=0.25", marks=SLOW),  # norms on their own
)


def made(name: str) -> Network:
    layout = find_layout(name, num_classes=10, img_size=32)
    network = build(layout).eval()
    weights = {key: torch.from_numpy(value) for key, value in probe_weights(layout).items()}
    network.load_state_dict(weights, strict=False)
    return network


def float_graph(network: Network) -> Graph:
    weights = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    return Graph(write_onnx(network.layout, weights, preprocess=PREPROCESS))


def logits(model: bytes) -> NDArray[np.float32]:
    return open_model(model).run(PIXELS).logits


def as_written(model: bytes) -> NDArray[np.float32]:
    """The logits of the graph, node by node, without the runtime's kernels of integers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": PIXELS})[0]


def simulated(network: Network, model: bytes, *, bits: int) -> NDArray[np.float32]:
    with torch.no_grad():
        return Rounded(network, model, preprocess=PREPROCESS, bits=bits)(normalised(PIXELS, PREPROCESS)).numpy()


def apart(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(np.abs(found - wanted).mean())


def hold_to(found: NDArray[np.float32], model: bytes, whole: NDArray[np.float32]) -> None:
    """What a level on the edge between two, which may fall to either side, moves is little, and in few pictures."""
    written, shipped = as_written(model), logits(model)
    exact = np.abs(found - written).max(axis=1) < 1e-4 * np.abs(written).max()
    assert exact.mean() > 0.3
    assert apart(found, shipped) < 0.5 * apart(whole, shipped), "a network without rounding is as near to it"
    np.testing.assert_array_equal(found.argmax(1), shipped.argmax(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_is_written(name):
    network = made(name)
    graph = float_graph(network)
    ranges = observe(graph, PIXELS, counted=False).ranges("minmax")
    whole, kept = logits(graph.model), frozenset(graph.layers()[1:3])
    for rounding in (Rounding(), Rounding(per_channel=False, bits=7), Rounding(excluded=kept)):
        model = quantize(graph, ranges, rounding)
        hold_to(simulated(network, model, bits=rounding.bits), model, whole)
    with pytest.raises(AssertionError):  # which can fail: one bit more of the weights, and nothing else
        hold_to(simulated(network, model, bits=7), model, whole)


def test_what_was_trained_computes_what_is_written_of_it():
    """Every weight learns, running statistics and classifiers for training only stay; rounding by the same ranges."""
    network = made("googlenet@0.25")
    graph = float_graph(network)
    ranges = observe(graph, PIXELS, counted=False).ranges("minmax")
    module = Rounded(network, quantize(graph, ranges, Rounding()), preprocess=PREPROCESS, bits=8).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert {*module.state_dict()} == {*before}
    optimizer = torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=0.02)
    images, targets = normalised(PIXELS, PREPROCESS), torch.arange(len(PIXELS)) % 10
    losses: list[float] = []
    for _ in range(2):
        loss = F.cross_entropy(module(images), targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    assert losses[-1] < losses[0]
    learns = {name for name, each in network.named_parameters() if each.grad is not None and each.grad.any()}
    assert learns == {name for name, _ in network.named_parameters() if not name.startswith("aux")}
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved <= learns
    after = float_graph(network)
    model = quantize(after, ranges, Rounding())
    hold_to(simulated(network, model, bits=8), model, logits(after.model))
