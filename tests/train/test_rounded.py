"""A network with rounding simulated computes what the int8 graph that is written of it computes."""

from typing import Any

import mixed_networks
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kinds_of_networks import CLASSES, KINDS, settled, small
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

from netsmith.artifact.runtimes import open_model
from netsmith.compress.quantize.calibrate import observe
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.export.network import normalised
from netsmith.export.onnx_graph import write_onnx
from netsmith.models.network import Network
from netsmith.run.preprocess import Preprocess
from netsmith.train.batch import Batch
from netsmith.train.diagnosis import first_non_finite_layer
from netsmith.train.precision import Precision
from netsmith.train.rounded import Rounded, nearest

FEW = ("resnet14_cifar", "mobilenet_v2", "mobilenet_v3_small")
"""Zero padding and sums; depthwise convolutions and ReLU6; gates and activations that stay float."""
SLOWER = [name for name in (*KINDS, *mixed_networks.NAMES) if name not in FEW]


def made(name: str) -> Network:
    return settled(mixed_networks.layout(name) if name in mixed_networks.NAMES else small(name))


def preprocess_of(network: Network) -> Preprocess:
    return Preprocess(size=network.layout.resolution[0])


def pictures(network: Network) -> NDArray[np.uint8]:
    side = network.layout.resolution[0]
    return np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)


def float_graph(network: Network) -> Graph:
    weights = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    return Graph(write_onnx(network.layout, weights, preprocess=preprocess_of(network)))


def apart(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(np.abs(found - wanted).mean())


def hold_to(network: Network, model: bytes, *, bits: int, device: str = "cpu") -> None:
    """Whether, tensor by tensor and of the same levels before it, the module has the levels that the file has.

    One on the edge between two may fall to either side, and is then off by one; but a network is deep, so what it moves
    in the end is compared with what the runtime's kernels of integers move alike.
    """
    pixels, preprocess = pictures(network), preprocess_of(network)
    written = tensors(model, pixels)
    module = Rounded(network, model, preprocess=preprocess, bits=bits).eval().to(device)
    images = normalised(pixels, preprocess).to(device)
    known, off, count = module.enter(images), 0, 0
    with torch.no_grad():
        for step in module.steps:
            known[step.gives] = step.compute(module, [known[name] for name in step.reads])
            if step.gives in written:
                wanted, scale = written[step.gives]
                gap = np.abs(known[step.gives].cpu().numpy() - wanted) / scale
                assert gap.max() < 1.01, (step.gives, gap.max())
                off, count = off + int((gap > 0.5).sum()), count + gap.size
                known[step.gives] = torch.from_numpy(wanted).to(device)
        found = module(images).cpu().numpy()
    assert off < 3e-4 * count, (off, count)
    shipped = open_model(model).run(pixels).logits
    np.testing.assert_allclose(known["logits"].cpu().numpy(), written["logits"][0], atol=1e-4 * np.abs(shipped).max())
    np.testing.assert_array_equal(found.argmax(1), shipped.argmax(1))
    assert apart(found, shipped) < 0.1 * np.abs(shipped).mean()


def tensors(model: bytes, pixels: NDArray[np.uint8]) -> dict[str, tuple[NDArray[np.float32], float]]:
    """What stands for levels, and the logits, in the graph carried out as it is written; with the step of levels."""
    proto = onnx.load_model_from_string(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    steps = {
        node.output[0]: float(constants[node.input[1]])
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants
    }
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in steps)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [*steps, "logits"]
    found = session.run(names, {"image": pixels})
    return dict(zip(names, zip(found, [*steps.values(), np.inf], strict=True), strict=True))


@pytest.mark.parametrize("name", [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER)])
def test_it_computes_what_is_written(name):
    network = made(name)
    graph = float_graph(network)
    ranges = observe(graph, pictures(network), counted=False).ranges("minmax")
    kept = frozenset(graph.layers()[1:3])
    for rounding in (Rounding(), Rounding(per_channel=False, bits=7), Rounding(excluded=kept)):
        model = quantize(graph, ranges, rounding)
        hold_to(network, model, bits=rounding.bits)
    with pytest.raises(AssertionError):  # which can fail: one bit fewer of the weights, and nothing else
        hold_to(network, model, bits=7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FEW)
def test_a_card_computes_what_is_written(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    network = made(name)
    graph = float_graph(network)
    model = quantize(graph, observe(graph, pictures(network), counted=False).ranges("minmax"), Rounding())
    hold_to(network, model, bits=8, device="cuda")


@pytest.mark.parametrize("scale", [0.1, torch.tensor([0.1, 0.02, 3.0])])
def test_devices_without_a_kernel_of_rounding_round_alike(scale):
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0)) * 8
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for native in (True, False):
        given = x.clone().requires_grad_()
        found = nearest(given, scale, zero=40, least=0, most=127, native=native)
        found.square().sum().backward()
        assert given.grad is not None
        results.append((found.detach(), given.grad))
    (one, its_gradient), (other, others) = results
    torch.testing.assert_close(one, other)
    cut = (its_gradient == 0).float().mean()
    assert 0.01 < cut < 0.9
    # At the ends, half a level beyond the last still rounds to it, and may have a gradient or none.
    assert ((its_gradient == 0) != (others == 0)).float().mean() < 0.05


class Answering(nn.Module):
    """An objective, as far as it is looked into."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.network(images)


def test_layers_compute_in_whole_float32_and_lost_numbers_are_found(monkeypatch):
    """No layer is called, so no hook of one says what it gave."""
    network = made("resnet14_cifar")
    graph, preprocess, pixels = float_graph(network), preprocess_of(network), pictures(network)
    model = quantize(graph, observe(graph, pixels, counted=False).ranges("minmax"), Rounding())
    module = Rounded(network, model, preprocess=preprocess, bits=8)
    objective, precision = Answering(module), Precision()
    batch = Batch(normalised(pixels, preprocess), torch.zeros(len(pixels), dtype=torch.int64))
    exact: list[bool] = []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    convolve = F.conv2d

    def looked(*given: Any, **more: Any) -> torch.Tensor:
        exact.append(not torch.backends.cudnn.allow_tf32)
        return convolve(*given, **more)

    monkeypatch.setattr(F, "conv2d", looked)
    assert first_non_finite_layer(objective, batch, precision=precision) is None
    assert exact
    assert all(exact)
    assert torch.backends.cudnn.allow_tf32
    last = [step.layer for step in module.steps if step.layer][-1]
    with torch.no_grad():
        network.get_parameter(f"{last}.bias")[0] = torch.inf
    assert first_non_finite_layer(objective, batch, precision=precision) == f"network.{last}"


def test_what_was_trained_computes_what_is_written_of_it():
    """Every weight learns, running statistics and classifiers for training only stay; rounding by the same ranges."""
    network = made("googlenet")
    graph, preprocess, pixels = float_graph(network), preprocess_of(network), pictures(network)
    ranges = observe(graph, pixels, counted=False).ranges("minmax")
    module = Rounded(network, quantize(graph, ranges, Rounding()), preprocess=preprocess, bits=8).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert {*module.state_dict()} == {*before}
    optimizer = torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=0.02)
    images, targets = normalised(pixels, preprocess), torch.arange(len(pixels)) % CLASSES
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
    hold_to(network, quantize(float_graph(network), ranges, Rounding()), bits=8)
