"""`model.onnx` from a layout's graph and the weights: one node or two per operation, in milliseconds, without torch.

Deliberate choices:
- A batch norm that alone reads a convolution or linear layer is folded into it; any other is BatchNormalization.
- The pixels' mean is subtracted and 1 / (255 std) is folded into the first convolution, so zero padding stays exactly
  what it was in training: a border in the mean colour.
- Weights too small for a normal float32 (weight decay leaves such in dead filters) become 0: arithmetic on them is tens
  of times slower.
- Pixels are transposed as bytes, before the cast: a quarter of the memory traffic of doing so after it.
- SiLU is x * Sigmoid(x), which ONNX Runtime fuses into one operator; its newer Swish runs unfused and slower there.
- Pools state their padding at the end instead of `ceil_mode`, on whose border windows runtimes disagree.
- Opset 17 with IR version 8, which every runtime of the last years reads; nothing here needs a newer one.

The same layout and weights give the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import netsmith
from netsmith.arch import graph as g
from netsmith.arch import spec
from netsmith.arch.layout import Layout, layout_graph
from netsmith.artifact.bundle import Activation
from netsmith.errors import InputError
from netsmith.export.folding import Folding, spread
from netsmith.run.preprocess import Preprocess

OPSET, IR_VERSION = 17, 8
MAX_BYTES = 2_000_000_000  # a protobuf message ends at 2 GiB

Array = NDArray[Any]


def write_onnx(
    layout: Layout,
    weights: Mapping[str, Array],
    *,
    preprocess: Preprocess,
    activation: Activation = "softmax",
    temperature: float = 1.0,
) -> bytes:
    """Write a network as ONNX: `image` uint8 [N,R,R,3] -> `probabilities`, `logits` float32 [N,C].

    Args:
        layout: the network; its input has 3 channels and the sides of `preprocess`.
        weights: every entry of the network's state_dict (counters may be missing), floating-point arrays.
        preprocess: gives R, mean and std.
        activation: what turns logits into probabilities.
        temperature: > 0; the logits are divided by it for the probabilities only.

    Returns:
        The content of `model.onnx`, all tensors inside.

    Raises:
        InputError: weights that are missing, unknown or of another shape; an input that RGB pixels of R x R do not fit;
            more than 2 GB.
    """
    return write_graph(
        layout_graph(layout),
        weights,
        name=layout.name,
        preprocess=preprocess,
        activation=activation,
        temperature=temperature,
    )


def write_graph(
    graph: g.Graph,
    weights: Mapping[str, Array],
    *,
    name: str,
    preprocess: Preprocess,
    activation: Activation = "softmax",
    temperature: float = 1.0,
) -> bytes:
    """Write any graph over RGB inputs of any dimensions; `name` is the network's, the rest as `write_onnx`."""
    assert temperature > 0
    _check_input(graph, preprocess, name=name)
    _check_weights(graph, weights, where=name)
    writer = _Writer(graph, weights, preprocess)
    writer.input_stage()
    for op in writer.needed:
        writer.operation(op)
    writer.probabilities(activation, temperature)
    return writer.to_bytes(name)


def _check_input(graph: g.Graph, preprocess: Preprocess, *, name: str) -> None:
    channels, *size = graph.input
    if channels != 3:
        raise InputError(
            f"{name} takes {channels} channels, but an artifact's pixels are RGB; "
            "build the network with in_channels=3 (grey pictures become RGB)"
        )
    if set(size) != {preprocess.size}:
        raise InputError(
            f"{name} is laid out for {' x '.join(map(str, size))} pixels and the preprocessing gives "
            f"{preprocess.size}; use the same size, see netsmith.arch.layout.at_size"
        )


def _check_weights(graph: g.Graph, weights: Mapping[str, Array], *, where: str) -> None:
    expected = {name: shape for name, shape, _ in g.state(graph)}
    counters = {name for name, shape in expected.items() if shape == ()}
    if missing := expected.keys() - counters - weights.keys():
        raise InputError(
            f"{where}: {_some(missing)} missing from the weights; give the whole state_dict of this network"
        )
    if unknown := weights.keys() - expected.keys():
        raise InputError(
            f"{where}: {_some(unknown)} in the weights but not in the network; give the weights of this network"
        )
    for name in weights.keys() - counters:
        if weights[name].shape != expected[name]:
            raise InputError(
                f"{where}: {name} has shape {weights[name].shape} in the weights and {expected[name]} in the network; "
                "give the weights of this network"
            )
    if 4 * sum(weights[name].size for name in expected.keys() - counters) > MAX_BYTES:
        raise InputError(
            f"{where} has more than {MAX_BYTES / 1e9:g} GB of weights, which one ONNX file cannot hold; scale it down"
        )


def _some(names: set[str]) -> str:
    first = min(names)
    return f"{first} is" if len(names) == 1 else f"{first} and {len(names) - 1} more are"


class _Writer:
    """Collects nodes and tensors; `value` maps an operation to the tensor that holds its output."""

    def __init__(self, graph: g.Graph, weights: Mapping[str, Array], preprocess: Preprocess) -> None:
        self.graph = graph
        self.weights = weights
        self.mean = 255 * np.array(preprocess.mean)
        self.scale = 1 / (255 * np.array(preprocess.std))
        self.shapes = g.shapes(graph)
        self.needed = g.needed(graph)
        self.folding = Folding.of(graph, preprocess)
        self.folded = {norm.name for norm in self.folding.norms.values()}
        self.value: dict[str, str] = {}
        self.names: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[TensorProto] = []

    def node(self, kind: str, name: str, inputs: Sequence[str], *, output: str | None = None, **attributes: Any) -> str:
        """Append a node; its output tensor bears its name unless `output` says otherwise, and is returned."""
        output = output or self.claim(name)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, array: Array) -> str:
        """Append a tensor; its name is returned."""
        self.tensors.append(numpy_helper.from_array(array, self.claim(name)))
        return name

    def claim(self, name: str) -> str:
        """Take a tensor name; a layout may come from outside and must not take one twice."""
        if name in self.names or name in ("image", "logits", "probabilities"):
            raise InputError(f"two tensors of the network would be called {name!r}; rename the layer or block")
        self.names.add(name)
        return name

    def input_stage(self) -> None:
        """uint8 [N,*size,C] -> float32 [N,C,*size] with the mean subtracted, scaled where no convolution can do so."""
        dimensions = len(self.graph.input) - 1
        per_channel = (len(self.mean), *(1 for _ in range(dimensions)))
        x = self.node("Transpose", "input.transpose", ["image"], perm=[0, dimensions + 1, *range(1, dimensions + 1)])
        x = self.node("Cast", "input.cast", [x], to=TensorProto.FLOAT)
        mean = self.constant("input.mean", self.mean.astype(np.float32).reshape(per_channel))
        x = self.node("Sub", "input.centre", [x, mean])
        if not self.folding.pixels:
            scale = self.constant("input.scale", self.scale.astype(np.float32).reshape(per_channel))
            x = self.node("Mul", "input.scaled", [x, scale])
        self.value["input"] = x

    def operation(self, op: g.Op) -> None:
        """Write one operation of the graph; one that vanishes into another takes over its tensor."""
        inputs = [self.value[name] for name in g.sources(op)]
        output = "logits" if self._is_output(op) else None
        match op:
            case g.Conv():
                x = self.node(
                    "Conv", op.name, inputs + self._weights(op), output=output,
                    kernel_shape=op.kernel, strides=op.stride, pads=_pads(op.padding), group=op.groups,
                )  # fmt: skip
            case g.Linear():
                x = self.node("Gemm", op.name, inputs + self._weights(op), output=output, transB=1)
            case g.Norm():
                x = inputs[0] if op.name in self.folded else self._norm(op, inputs[0], output)
            case g.Activate():
                x = self._activate(op.name, op.function, inputs[0], output)
            case g.Add():
                x = self.node("Add" if len(inputs) == 2 else "Sum", op.name, inputs, output=output)
            case g.Concat():
                x = self.node("Concat", op.name, inputs, output=output, axis=1)
            case g.Gate():
                x = self.node("Mul", op.name, inputs, output=output)
            case g.Pad():
                x = self._pad(op, inputs[0], output)
            case g.Pool():
                x = self._pool(op, inputs[0], output)
            case g.AdaptivePool():
                x = self._adaptive_pool(op, inputs[0], output)
            case g.LocalNorm():
                x = self._local_norm(op, inputs[0], output)
            case g.Scale():
                factor = self.constant(f"{op.name}.factor", np.array(op.factor, np.float32))
                x = self.node("Mul", op.name, [*inputs, factor], output=output)
            case g.GlobalPool():
                x = self.node("GlobalAveragePool", op.name, inputs, output=output)
            case g.Flatten():
                x = self.node("Flatten", op.name, inputs, output=output, axis=1)
        self.value[op.name] = x

    def _is_output(self, op: g.Op) -> bool:
        norm = self.folding.norms.get(op.name)
        return op.name == self.graph.output or (norm is not None and norm.name == self.graph.output)

    def _weights(self, op: g.Conv | g.Linear) -> list[str]:
        """Weight and bias with the following norm and the input's scale folded in, as tensors."""
        weight = self._parameter(f"{op.name}.weight")
        bias = self._parameter(f"{op.name}.bias") if isinstance(op, g.Linear) or op.bias else None
        if op.name in self.folding.pixels:
            weight = weight * self.folding.pixels[op.name]
        if (norm := self.folding.norms.get(op.name)) is not None:
            scale, shift = self._scale_and_shift(norm)
            weight = weight * spread(scale.astype(np.float32), weight.ndim)
            bias = shift if bias is None else bias * scale + shift
        names = [self.constant(f"{op.name}.weight", _without_subnormals(weight))]
        return names if bias is None else [*names, self.constant(f"{op.name}.bias", _without_subnormals(bias))]

    def _parameter(self, name: str) -> NDArray[np.float32]:
        return self.weights[name].astype(np.float32, copy=False)

    def _scale_and_shift(self, norm: g.Norm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        gamma, beta, mean, variance = (
            self.weights[f"{norm.name}.{entry}"].astype(np.float64)
            for entry in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + norm.eps)
        return scale, beta - mean * scale

    def _norm(self, op: g.Norm, source: str, output: str | None) -> str:
        entries = [f"{op.name}.{entry}" for entry in ("weight", "bias", "running_mean", "running_var")]
        inputs = [source, *(self.constant(name, self._parameter(name)) for name in entries)]
        return self.node("BatchNormalization", op.name, inputs, output=output, epsilon=op.eps)

    def _activate(self, name: str, function: spec.Activation, source: str, output: str | None) -> str:
        match function:
            case "relu":
                return self.node("Relu", name, [source], output=output)
            case "relu6":
                if "relu6.low" not in self.names:
                    self.constant("relu6.low", np.array(0, np.float32))
                    self.constant("relu6.high", np.array(6, np.float32))
                return self.node("Clip", name, [source, "relu6.low", "relu6.high"], output=output)
            case "silu":
                sigmoid = self.node("Sigmoid", f"{name}.sigmoid", [source])
                return self.node("Mul", name, [source, sigmoid], output=output)
            case "hard_swish":
                return self.node("HardSwish", name, [source], output=output)
            case "sigmoid":
                return self.node("Sigmoid", name, [source], output=output)
            case "hard_sigmoid":
                return self.node("HardSigmoid", name, [source], output=output, alpha=1 / 6, beta=0.5)

    def _pad(self, op: g.Pad, source: str, output: str | None) -> str:
        after = [0] * (len(self.shapes[op.source]) - 1)
        pads = np.array([0, op.front, *after, 0, op.back, *after], np.int64)
        return self.node("Pad", op.name, [source, self.constant(f"{op.name}.pads", pads)], output=output)

    def _pool(self, op: g.Pool, source: str, output: str | None) -> str:
        starts, ends = (tuple(pair[i] for pair in op.padding) for i in (0, 1))
        if op.ceil:  # what the last window needs; positions it adds are read by neither maximum nor average
            sides = zip(self.shapes[op.source][1:], self.shapes[op.name][1:], op.kernel, op.stride, starts, strict=True)
            ends = tuple(
                max(0, (out - 1) * stride + kernel - side - front) for side, out, kernel, stride, front in sides
            )
        window = {"kernel_shape": op.kernel, "strides": op.stride, "pads": starts + ends}
        if op.reduce == "max":
            return self.node("MaxPool", op.name, [source], output=output, **window)
        counted = int(op.count_padding)
        return self.node("AveragePool", op.name, [source], output=output, count_include_pad=counted, **window)

    def _local_norm(self, op: g.LocalNorm, source: str, output: str | None) -> str:
        """ONNX Runtime has this for two dimensions only; a map of others passes through them."""
        constants: dict[str, Any] = {"size": op.size, "alpha": op.alpha, "beta": op.beta, "bias": op.k}
        shape = self.shapes[op.source]
        if len(shape) == 3:
            return self.node("LRN", op.name, [source], output=output, **constants)
        flat = self.constant(f"{op.name}.flat", np.array([-1, shape[0], math.prod(shape[1:]), 1], np.int64))
        whole = self.constant(f"{op.name}.whole", np.array([-1, *shape], np.int64))
        x = self.node("Reshape", f"{op.name}.flattened", [source, flat])
        x = self.node("LRN", f"{op.name}.normed", [x], **constants)
        return self.node("Reshape", op.name, [x, whole], output=output)

    def _adaptive_pool(self, op: g.AdaptivePool, source: str, output: str | None) -> str:
        """An average pool where all windows are equal; otherwise a product with constant averages along each axis."""
        sides = self.shapes[op.source][1:]
        if all(side % out == 0 for side, out in zip(sides, op.size, strict=True)):
            kernel = [side // out for side, out in zip(sides, op.size, strict=True)]
            return self.node("AveragePool", op.name, [source], output=output, kernel_shape=kernel, strides=kernel)
        x, axes = source, len(sides) + 2
        for axis, (side, out) in enumerate(zip(sides, op.size, strict=True), start=2):
            name, last = f"{op.name}.{axis}", axis == axes - 1
            swapped = [*range(axis), *range(axis + 1, axes), axis]
            back = [*range(axis), axes - 1, *range(axis, axes - 1)]
            x = x if last else self.node("Transpose", f"{name}.to", [x], perm=swapped)
            averages = self.constant(f"{name}.averages", _window_averages(side, out))
            x = self.node("MatMul", f"{name}.product", [x, averages], output=output if last else None)
            x = x if last else self.node("Transpose", f"{name}.back", [x], perm=back)
        return x

    def probabilities(self, activation: Activation, temperature: float) -> None:
        """`probabilities` from `logits`."""
        x = "logits"
        if temperature != 1.0:
            x = self.node("Div", "calibrated", [x, self.constant("temperature", np.array(temperature, np.float32))])
        if activation == "softmax":
            self.node("Softmax", "probabilities", [x], output="probabilities", axis=1)
        else:
            self.node("Sigmoid", "probabilities", [x], output="probabilities")

    def to_bytes(self, name: str) -> bytes:
        """The finished file."""
        channels, *size = self.graph.input
        classes = self.shapes[self.graph.output][0]
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *size, channels])
        outputs = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", classes]) for n in ("probabilities", "logits")
        ]
        body = helper.make_graph(self.nodes, name, [image], outputs, self.tensors)
        model = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
            producer_name="netsmith", producer_version=netsmith.__version__,
        )  # fmt: skip
        helper.set_model_props(model, {"netsmith": netsmith.__version__, "layout": name})
        return model.SerializeToString(deterministic=True)


def _without_subnormals(values: Array) -> NDArray[np.float32]:
    values = values.astype(np.float32, copy=False)
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.float32(0), values)


def _pads(padding: g.Padding) -> list[int]:
    """ONNX's order: all starts, then all ends."""
    return [pair[end] for end in (0, 1) for pair in padding]


def _window_averages(side: int, out: int) -> NDArray[np.float32]:
    """[side, out]: what each position gives to each window of an adaptive average pool."""
    averages = np.zeros((side, out))
    for i in range(out):
        first, last = i * side // out, -(-(i + 1) * side // out)
        averages[first:last, i] = 1 / (last - first)
    return averages.astype(np.float32)
