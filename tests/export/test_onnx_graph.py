"""`write_onnx` against PyTorch: every network, every operation, borders, folding, determinism."""

import time
from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.names import find_layout, list_models
from netsmith.artifact.runtimes import Outputs, open_model
from netsmith.errors import InputError
from netsmith.export.onnx_graph import write_graph, write_onnx
from netsmith.export.probe import probe_onnx, probe_weights
from netsmith.models.build import build
from netsmith.run.preprocess import Preprocess

# Rounding of float32 over up to hundreds of layers stays below this share of the largest logit; a wrong eps does not.
TOLERANCE = 3e-5
ACTIVATIONS = {
    "relu": F.relu, "relu6": F.relu6, "silu": F.silu, "hard_swish": F.hardswish, "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
}  # fmt: skip
Weights = Mapping[str, NDArray[np.float32]]


def random_weights(graph: g.Graph, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A state_dict with batch norm statistics far from those of an untrained network."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape, _ in g.state(graph):
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            value = rng.uniform(0.01, 2.0, shape)
        elif len(shape) > 1:
            value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("weight"):
            value = rng.uniform(-0.5, 1.0, shape)
        else:
            value = 0.3 * rng.standard_normal(shape)
        weights[name] = value.astype(np.float32)
    return weights


def random_pixels(size: int, *, count: int = 3, dimensions: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, *(size,) * dimensions, 3), dtype=np.uint8)


def normalised(pixels: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    x = torch.from_numpy(pixels).double() / 255
    x = (x - torch.tensor(preprocess.mean, dtype=x.dtype)) / torch.tensor(preprocess.std, dtype=x.dtype)
    return x.movedim(-1, 1)


def interpret(graph: g.Graph, weights: Weights, x: Tensor) -> Tensor:
    """The graph in float64, each operation as PyTorch has it: the reference of everything here."""
    state = {name: torch.from_numpy(value).double() for name, value in weights.items()}
    dimensions = x.ndim - 2
    conv = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
    max_pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dimensions - 1]
    avg_pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dimensions - 1]
    known = {"input": x}
    for op in graph.ops:
        inputs = [known[name] for name in g.sources(op)]
        x = inputs[0]
        match op:
            case g.Conv():
                bias = state[f"{op.name}.bias"] if op.bias else None
                x = F.pad(x, _torch_pads(op.padding))
                y = conv(x, state[f"{op.name}.weight"], bias, op.stride, groups=op.groups)
            case g.Norm():
                mean, var, gamma, beta = (
                    state[f"{op.name}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias")
                )
                y = F.batch_norm(x, mean, var, gamma, beta, training=False, eps=op.eps)
            case g.Linear():
                y = F.linear(x, state[f"{op.name}.weight"], state[f"{op.name}.bias"])
            case g.Activate():
                y = ACTIVATIONS[op.function](x)
            case g.Add():
                y = torch.stack(inputs).sum(0)
            case g.Concat():
                y = torch.cat(inputs, 1)
            case g.Gate():
                y = inputs[0] * inputs[1]
            case g.Pad():
                y = F.pad(x, (0, 0) * dimensions + (op.front, op.back))
            case g.Pool(reduce="max"):
                y = max_pool(x, op.kernel, op.stride, [before for before, _ in op.padding], ceil_mode=op.ceil)
            case g.Pool():
                y = avg_pool(
                    x, op.kernel, op.stride, [before for before, _ in op.padding],
                    ceil_mode=op.ceil, count_include_pad=op.count_padding,
                )  # fmt: skip
            case g.AdaptivePool():
                adaptive = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dimensions - 1]
                y = adaptive(x, op.size)
            case g.LocalNorm():
                y = F.local_response_norm(x, op.size, op.alpha, op.beta, op.k)
            case g.Scale():
                y = x * op.factor
            case g.GlobalPool():
                y = x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
            case g.Flatten():
                y = x.flatten(1)
        known[op.name] = y
    return known[graph.output]


def _torch_pads(padding: g.Padding) -> list[int]:
    """torch's order: the last dimension first."""
    return [side for pair in reversed(padding) for side in pair]


def run(model: bytes, pixels: NDArray[np.uint8]) -> Outputs:
    return open_model(model).run(pixels)


def assert_close(logits: NDArray[np.float32], expected: Tensor) -> None:
    reference = expected.detach().numpy()
    assert logits.shape == reference.shape
    assert np.abs(logits - reference).max() <= TOLERANCE * np.abs(reference).max()


def check_network(layout: Layout, *, count: int = 3) -> None:
    """The file agrees with the hand-written network and is a valid ONNX model."""
    preprocess = Preprocess(size=layout.resolution[0])
    weights = random_weights(layout_graph(layout))
    network = build(layout).eval().double()
    missing = network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    model = write_onnx(layout, weights, preprocess=preprocess)
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    pixels = random_pixels(preprocess.size, count=count)
    with torch.no_grad():
        expected = network(normalised(pixels, preprocess))
    outputs = run(model, pixels)
    assert_close(outputs.logits, expected)
    probabilities = torch.softmax(torch.from_numpy(outputs.logits), dim=1).numpy()
    np.testing.assert_allclose(outputs.probabilities, probabilities, atol=1e-6)
    np.testing.assert_allclose(
        run(model, pixels[:1]).logits, outputs.logits[:1], atol=1e-4 * np.abs(outputs.logits).max()
    )


@pytest.mark.parametrize("name", list_models())
def test_every_network_computes_what_pytorch_does(name: str) -> None:
    size = 33 if name.endswith("_cifar") else 65  # odd sizes: windows at the border are cut
    check_network(find_layout(f"{name}@width=0.25,depth=0.2", num_classes=7, img_size=size))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if not name.endswith("efficientnet_l2")])  # 2 GB
def test_full_size_networks_compute_what_pytorch_does(name: str) -> None:
    check_network(find_layout(name), count=1)


KINDS = (
    "conv", "conv", "norm", "activate", "add", "concat", "gate", "pad", "pool", "adapt", "local", "scale",
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> tuple[g.Graph, int]:
    """A graph of every operation there is over 1, 2 or 3 dimensions, and the side of its input."""
    dimensions = draw(st.sampled_from((1, 2, 2, 3)))
    size = draw(st.integers(5, 11 if dimensions < 3 else 7))
    ops: list[g.Op] = []
    shapes: dict[str, g.Shape] = {"input": (3, *(size,) * dimensions)}

    def sides(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dimensions))

    def add(op: g.Op) -> str:
        ops.append(op)
        shapes[op.name] = g.shape_of(op, tuple(shapes[name] for name in g.sources(op)))
        return op.name

    x = "input"
    for i in range(draw(st.integers(1, 6))):
        maps = [name for name in shapes if len(shapes[name]) == dimensions + 1]
        channels = shapes[x][0]
        kind = draw(
            st.sampled_from(
                ("conv", "conv", "norm", "activate", "add", "concat", "gate", "pad", "adapt", "local", "scale", "pool")
            )
        )
        match kind:
            case "conv":
                kernel = tuple(min(k, side) for k, side in zip(sides(1, 3), shapes[x][1:], strict=True))
                groups = draw(st.sampled_from([n for n in (1, 2, 3, channels) if channels % n == 0]))
                conv = g.Conv(
                    name=f"conv{i}", source=x, in_channels=channels, out_channels=groups * draw(st.integers(1, 3)),
                    kernel=kernel, stride=sides(1, 2), groups=groups,
                    padding=tuple((k // 2, draw(st.integers(0, k // 2))) for k in kernel),
                    bias=draw(st.booleans()),
                )  # fmt: skip
                x = add(conv)
                if draw(st.booleans()):
                    norm = g.Norm(name=f"bn{i}", source=x, channels=shapes[x][0], eps=1e-3, momentum=0.1)
                    x = add(norm) if draw(st.booleans()) else add(g.Add(name=f"both{i}", sources=(x, add(norm))))
            case "norm":
                x = add(g.Norm(name=f"norm{i}", source=x, channels=channels, eps=1e-5, momentum=0.1))
            case "activate":
                x = add(g.Activate(name=f"act{i}", source=x, function=draw(st.sampled_from(sorted(ACTIVATIONS)))))
            case "add":
                same = [name for name in maps if shapes[name] == shapes[x]]
                x = add(
                    g.Add(name=f"add{i}", sources=(x, *draw(st.lists(st.sampled_from(same), min_size=1, max_size=2))))
                )
            case "concat":
                alike = [name for name in maps if shapes[name][1:] == shapes[x][1:]]
                x = add(g.Concat(name=f"concat{i}", sources=(x, draw(st.sampled_from(alike)))))
            case "gate":
                pooled = add(g.GlobalPool(name=f"pooled{i}", source=x))
                x = add(g.Gate(name=f"gate{i}", source=x, gate=pooled))
            case "pad":
                front, back = draw(st.integers(0, 2)), draw(st.integers(0, 2))
                x = add(g.Pad(name=f"pad{i}", source=x, front=front, back=back))
            case "adapt":
                x = add(g.AdaptivePool(name=f"adapt{i}", source=x, size=sides(1, 5)))
            case "local":
                local = g.LocalNorm(
                    name=f"local{i}", source=x, size=draw(st.sampled_from((1, 3, 5))),
                    alpha=draw(st.floats(1e-4, 2.0)), beta=0.75, k=draw(st.floats(1.0, 2.0)),
                )  # fmt: skip
                x = add(local)
            case "scale":
                x = add(g.Scale(name=f"scale{i}", source=x, factor=draw(st.floats(-2.0, 2.0))))
            case _:
                kernel = tuple(min(k, side) for k, side in zip(sides(1, 3), shapes[x][1:], strict=True))
                padding = tuple((k, k) for k in (draw(st.integers(0, k // 2)) for k in kernel))
                ceil = draw(st.booleans())
                reduce = draw(st.sampled_from(("max", "avg")))
                x = add(
                    g.Pool(
                        name=f"pool{i}",
                        source=x,
                        reduce=reduce,
                        kernel=kernel,
                        stride=sides(1, 3),
                        padding=padding,
                        ceil=ceil,
                        count_padding=not ceil and draw(st.booleans()),
                    )
                )
    if draw(st.booleans()):
        x = add(g.GlobalPool(name="avgpool", source=x))
    x = add(g.Flatten(name="flatten", source=x))
    x = add(g.Linear(name="fc", source=x, in_features=shapes[x][0], out_features=4))
    if draw(st.booleans()):
        x = add(g.Norm(name="last", source=x, channels=4, eps=1e-5, momentum=0.1))
    return g.Graph(input=shapes["input"], ops=tuple(ops), taps={}, output=x), size


@settings(max_examples=300, deadline=None, derandomize=True)
@given(graphs())
def test_any_graph_computes_what_pytorch_does(drawn: tuple[g.Graph, int]) -> None:
    graph, size = drawn
    preprocess = Preprocess(size=size, mean=(0.1, 0.5, 0.9), std=(0.2, 0.4, 1.5))
    weights = random_weights(graph)
    model = write_graph(graph, weights, name="drawn", preprocess=preprocess)
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    pixels = random_pixels(size, dimensions=len(graph.input) - 1)
    session = _plain_session(model)
    logits, probabilities = session.run(["logits", "probabilities"], {"image": pixels})
    expected = interpret(graph, weights, normalised(pixels, preprocess))
    assert_close(logits, expected)
    np.testing.assert_allclose(probabilities, torch.softmax(torch.from_numpy(logits), 1).numpy(), atol=1e-6)


def _plain_session(model: bytes) -> Any:
    """For inputs of any number of dimensions; a netsmith session takes pictures only."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def small(name: str = "mobilenet_v2@0.35", size: int = 32) -> tuple[Layout, Preprocess]:
    return find_layout(name, num_classes=4, img_size=size), Preprocess(size=size)


def test_a_border_is_the_mean_colour_and_nothing_else() -> None:
    """Pictures of the mean colour are zero after normalisation, so neither the border nor the first weights show."""
    layout, _ = small("resnet20_cifar")
    preprocess = Preprocess(size=32, mean=(51 / 255, 102 / 255, 204 / 255), std=(0.1, 0.3, 0.5))
    weights = random_weights(layout_graph(layout))
    pixels = np.broadcast_to(np.array([51, 102, 204], np.uint8), (1, 32, 32, 3)).copy()
    others = {**weights, "conv1.weight": 7 * weights["conv1.weight"]}
    outputs = [run(write_onnx(layout, w, preprocess=preprocess), pixels).logits for w in (weights, others)]
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_only_the_expected_operators_remain() -> None:
    layout, preprocess = small("efficientnet_b0@0.35")
    model = onnx.load_model_from_string(probe_onnx(layout, preprocess=preprocess))
    kinds = {node.op_type for node in model.graph.node}
    expected = {"Transpose", "Cast", "Sub", "Conv", "Sigmoid", "Mul", "GlobalAveragePool", "Add", "Flatten", "Gemm"}
    assert kinds == expected | {"Softmax"}
    assert all(node.name for node in model.graph.node)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert {entry.key: entry.value for entry in model.metadata_props}["layout"] == layout.name
    assert not [tensor.name for tensor in model.graph.initializer if "running" in tensor.name]


def test_temperature_changes_probabilities_only_and_sigmoid_is_per_class() -> None:
    layout, preprocess = small()
    weights = random_weights(layout_graph(layout))
    pixels = random_pixels(preprocess.size)
    plain = run(write_onnx(layout, weights, preprocess=preprocess), pixels)
    warm = run(write_onnx(layout, weights, preprocess=preprocess, temperature=2.5), pixels)
    np.testing.assert_array_equal(plain.logits, warm.logits)
    expected = torch.softmax(torch.from_numpy(plain.logits / 2.5), 1).numpy()
    np.testing.assert_allclose(warm.probabilities, expected, atol=1e-6)
    multi = run(write_onnx(layout, weights, preprocess=preprocess, activation="sigmoid", temperature=2.5), pixels)
    expected = torch.sigmoid(torch.from_numpy(plain.logits / 2.5)).numpy()
    np.testing.assert_allclose(multi.probabilities, expected, atol=1e-6)


def test_same_layout_and_weights_give_the_same_bytes() -> None:
    layout, preprocess = small("resnet20_cifar")
    weights = random_weights(layout_graph(layout))
    first = write_onnx(layout, weights, preprocess=preprocess)
    reordered = dict(reversed(weights.items()))
    assert first == write_onnx(layout, reordered, preprocess=preprocess)
    assert first != write_onnx(layout, random_weights(layout_graph(layout), seed=1), preprocess=preprocess)


def test_weights_that_would_be_slow_become_zero() -> None:
    layout, preprocess = small("resnet20_cifar")
    weights = random_weights(layout_graph(layout))
    weights["conv1.weight"][3] = 1e-40  # already too small
    weights["bn1.weight"][4] = 1e-38  # too small once folded
    model = onnx.load_model_from_string(write_onnx(layout, weights, preprocess=preprocess))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert not arrays["conv1.weight"][3:5].any()
    assert arrays["conv1.weight"][:3].all()
    tiny = np.finfo(np.float32).tiny
    assert not any(((abs(a) < tiny) & (a != 0)).any() for a in arrays.values() if a.dtype == np.float32)


def test_branches_that_logits_do_not_need_are_left_out() -> None:
    fc = g.Linear(name="fc", source="flat", in_features=48, out_features=2)
    aux = g.Linear(name="aux", source="flat", in_features=48, out_features=2)
    graph = g.Graph(input=(3, 4, 4), ops=(g.Flatten(name="flat", source="input"), aux, fc), taps={}, output="fc")
    preprocess = Preprocess(size=4)
    model = write_graph(graph, random_weights(graph), name="two heads", preprocess=preprocess)
    assert b"aux" not in model
    pixels = random_pixels(4)
    assert_close(run(model, pixels).logits, interpret(graph, random_weights(graph), normalised(pixels, preprocess)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.weight": None}, "fc.weight is missing"),
        ({"head.weight": np.zeros((4, 64), np.float32)}, "head.weight is in the weights but not"),
        ({"fc.weight": np.zeros((5, 64), np.float32)}, r"fc.weight has shape \(5, 64\) in the weights and \(4, 64\)"),
    ],
)
def test_weights_of_another_network_are_refused(change: dict[str, Any], message: str) -> None:
    layout, preprocess = small("resnet20_cifar")
    weights = {k: v for k, v in (random_weights(layout_graph(layout)) | change).items() if v is not None}
    with pytest.raises(InputError, match=message):
        write_onnx(layout, weights, preprocess=preprocess)


def test_inputs_that_pixels_do_not_fit_are_refused() -> None:
    layout, _ = small()
    with pytest.raises(InputError, match="32 x 32 pixels and the preprocessing gives 64"):
        probe_onnx(layout, preprocess=Preprocess(size=64))
    grey = find_layout("mobilenet_v2@0.35", num_classes=4, img_size=32, in_channels=1)
    with pytest.raises(InputError, match="in_channels=3"):
        probe_onnx(grey, preprocess=Preprocess(size=32))


def test_a_layer_cannot_take_the_name_of_another_tensor() -> None:
    ops = (
        g.Flatten(name="flat", source="input"),
        g.Linear(name="logits", source="flat", in_features=48, out_features=2),
        g.Linear(name="fc", source="logits", in_features=2, out_features=2),
    )
    graph = g.Graph(input=(3, 4, 4), ops=ops, taps={}, output="fc")
    with pytest.raises(InputError, match="'logits'"):
        write_graph(graph, random_weights(graph), name="names", preprocess=Preprocess(size=4))


@pytest.mark.parametrize("name", ["resnet110_cifar", "mobilenet_v2@0.5", "efficientnet_b0@0.5"])
def test_untrained_probes_keep_every_map_in_range(name: str) -> None:
    layout, preprocess = small(name)
    model = onnx.load_model_from_string(probe_onnx(layout, preprocess=preprocess))
    names = [node.name for node in model.graph.node if node.op_type in ("Conv", "Relu", "Add", "Mul", "Clip", "Gemm")]
    names[-1] = "logits"
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names[:-1])
    maps = _plain_session(model.SerializeToString()).run(names, {"image": random_pixels(32, count=1)})
    sizes = [float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) for values in maps]
    assert min(sizes) > 1e-3
    assert max(sizes) < 1e3


def test_a_probe_is_repeatable_and_takes_milliseconds() -> None:
    layout, preprocess = small("mobilenet_v2@0.5", 96)
    first = probe_onnx(layout, preprocess=preprocess)
    times: list[float] = []
    for _ in range(5):
        began = time.process_time()
        assert probe_onnx(layout, preprocess=preprocess) == first
        times.append(time.process_time() - began)
    assert min(times) < 0.1  # about 5 ms on an idle core
    assert probe_weights(layout, seed=1).keys() == probe_weights(layout).keys()
