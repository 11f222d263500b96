"""A network that computes as the int8 graph made of it will, so that training can make up for what rounding costs.

Source: Jacob et al. 2018 (arXiv 1712.05877, section 3); Krishnamoorthi 2018 (arXiv 1806.08342, section 4).

Deliberate choices:
- It carries out the nodes of the rounded `model.onnx` itself, in their order, with the network's parameters in the
  place of the layers' constants. So nothing here decides what is rounded, and what is trained is what is written.
- Its parameters are the network's own, by the same names: optimizer, checkpoints and export meet no other network.
- A layer's weight is folded with its batch norm and then rounded, by the scale that it would be written with now.
  Batch norm uses its running statistics, which stay: those of a batch are not in the graph. Its scale and shift learn.
- Ranges of activations are those of the graph and stay. What lies beyond them is cut off.
- Rounding has the gradient of the identity (straight-through), and none where it cuts off.
- Dropout, stochastic depth and classifiers for training only are left out, as in the graph.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.arch.layout import layout_graph
from netsmith.export.folding import Folding
from netsmith.models.network import Network
from netsmith.nn.positions import every, mean_over_positions
from netsmith.nn.windows import WindowPool, equal_pads, pad
from netsmith.run.preprocess import Preprocess
from netsmith.train.devices import has_float64, whole_float32

LEVELS = 255
"""Steps between the smallest and the largest activation."""
LARGEST_BIAS = 2**31 - 1
NATIVE = ("cpu", "cuda")
"""Devices for which torch has a kernel of simulated rounding."""
PIXELS = ("input.scaled", "input.centre")
"""Names of the nodes that give what the first layers read, the one that counts first."""

Compute = Callable[["Rounded", Sequence[Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Step:
    """An operation that is carried out.

    Attributes:
        reads, gives: names of tensors.
        compute: what it gives, of the module whose parameters it uses and what it reads.
        layer: whose parameters it uses, or "".
        drops: tensors that nothing reads after it.
    """

    reads: tuple[str, ...]
    gives: str
    compute: Compute
    layer: str = ""
    drops: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Scales:
    """How a layer's weights are rounded: with a scale for every output or one for all, behind what has such a scale."""

    per_channel: bool
    source: float


class Rounded(nn.Module):
    """A network with the rounding of a graph simulated, in training and in evaluation.

    Args:
        network: float; its modules are this one's too, so what is trained here is trained there.
        model: content of the rounded `model.onnx`, made of the network as `export.onnx_graph` writes it.
        preprocess: of the network's pixels.
        bits: of a rounded weight.

    Attributes:
        layout: the network's, without classifiers for training.
        entrance: name of the tensor that the pixels are, once they are numbers around zero.
        steps: all that comes after, to the logits.
    """

    def __init__(self, network: Network, model: bytes, *, preprocess: Preprocess, bits: int) -> None:
        super().__init__()
        self.layout = replace(network.layout, auxiliary=())
        for name, child in network.named_children():
            self.add_module(name, child)
        self._folding = Folding.of(layout_graph(self.layout), preprocess)
        self._largest = 2 ** (bits - 1) - 1
        self.entrance, self.steps = _read(model)
        for at, factor in enumerate(self._folding.pixels.values()):
            self.register_buffer(f"_pixels_{at}", torch.from_numpy(factor), persistent=False)
        self._pixels = {name: f"_pixels_{at}" for at, name in enumerate(self._folding.pixels)}
        # What normalisation divided by, where the first layers do that themselves.
        divided = torch.tensor(preprocess.std).view(3, 1, 1) * 255 if self._pixels else torch.ones(3, 1, 1)
        self.register_buffer("_divided", divided, persistent=False)
        layers = {step.layer for step in self.steps}
        layers |= {norm.name for layer, norm in self._folding.norms.items() if layer in layers}
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[0] not in layers:
                parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N,3,H,W], normalised, -> logits [N,classes]."""
        for _, each in self.outputs(x):
            x = each
        return x

    def outputs(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The same one operation at a time: layer, or tensor where it has none, and what it gives; the logits last."""
        known = self.enter(x)
        for step in self.steps:
            known[step.gives] = step.compute(self, [known[name] for name in step.reads])
            yield step.layer or step.gives, known[step.gives]
            for name in step.drops:
                del known[name]

    def enter(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images as the entrance."""
        return {self.entrance: x * self.get_buffer("_divided")}

    def folded(self, layer: str, scales: _Scales | None) -> tuple[Tensor, Tensor | None]:
        """A layer's weight and bias as the graph has them: with its norm and the pixels' scale, and rounded where
        `scales` says how."""
        mine = self.get_submodule(layer)
        weight = cast(Tensor, mine.weight)
        bias = cast(Tensor | None, mine.bias)
        if layer in self._pixels:
            weight = weight * self.get_buffer(self._pixels[layer])
        if (norm := self._folding.norms.get(layer)) is not None:
            # As precisely as the file is written: a weight on the edge between two levels shall fall to the same side.
            exact = torch.float64 if has_float64(weight.device) else torch.float32
            gamma, beta, mean, variance = (each.to(exact) for each in self.norm(norm.name))
            scale = gamma / torch.sqrt(variance + norm.eps)
            weight = weight * scale.to(weight.dtype).view(-1, *(1 for _ in weight.shape[1:]))
            shift = beta - mean * scale
            bias = (shift if bias is None else bias * scale + shift).to(weight.dtype)
        return (weight, bias) if scales is None else self._rounded(weight, bias, scales)

    def norm(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scale, shift, running mean and running variance of a batch norm."""
        weight, bias = (self.get_parameter(f"{name}.{entry}") for entry in ("weight", "bias"))
        mean, variance = (self.get_buffer(f"{name}.{entry}") for entry in ("running_mean", "running_var"))
        return weight, bias, mean, variance

    def _rounded(self, weight: Tensor, bias: Tensor | None, scales: _Scales) -> tuple[Tensor, Tensor | None]:
        """As `round_layer` of `compress.quantize` rounds them."""
        found = weight.detach().abs().flatten(1).amax(1) / self._largest
        if bias is not None:
            found = torch.maximum(found, bias.detach().abs() / (0.5 * LARGEST_BIAS * scales.source))
        if not scales.per_channel:
            found = found.max().expand_as(found)
        found = torch.where(found > 0, found, 1.0).contiguous()
        weight = nearest(weight, found, zero=0, least=-self._largest, most=self._largest)
        if bias is not None:
            units = found * scales.source
            bias = bias + (units * torch.round(bias.detach() / units) - bias.detach())
        return weight, bias


def nearest(x: Tensor, scale: Tensor | float, *, zero: int, least: int, most: int, native: bool = True) -> Tensor:
    """The numbers that the nearest levels stand for; the gradient is x's, and 0 for what lies beyond the levels.

    Args:
        x: float32 [N,...].
        scale: between two levels: one, or float32 [N] for each of x.
        zero: the level that stands for 0.
        least, most: levels.
        native: whether torch's own kernel may be used where there is one.
    """
    if native and x.device.type in NATIVE:
        if not isinstance(scale, Tensor):
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, least, most)
        zeros = torch.full_like(scale, zero, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, scale, zeros, 0, least, most)
    each = torch.as_tensor(scale, device=x.device).view(-1, *(1 for _ in x.shape[1:]))
    levels = (torch.round(x.detach() / each) + zero).clamp(least, most)
    inside = torch.clamp(x, (least - zero) * each, (most - zero) * each)  # what has a gradient
    return inside + ((levels - zero) * each - inside.detach())


def _read(model: bytes) -> tuple[str, list[Step]]:
    """What the pixels are called once they are numbers around zero, and all that comes after them, to the logits."""
    graph = onnx.load_model_from_string(model).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = list(graph.node)
    first = next(at for name in PIXELS for at, node in enumerate(nodes) if node.name == name)
    reading = _Reading(constants)
    for node in nodes[first + 1 :]:
        reading.add(node)
        if node.output[0] == "logits":
            break
    last = {name: at for at, step in enumerate(reading.steps) for name in step.reads}
    steps = [
        replace(step, drops=tuple(name for name in {*step.reads} if last[name] == at))
        for at, step in enumerate(reading.steps)
    ]
    return nodes[first].output[0], steps


class _Reading:
    """Nodes become steps.

    Levels are held as the numbers that they stand for, so what only moves levels moves those numbers, and a zero is 0.

    Attributes:
        steps: so far.
    """

    def __init__(self, constants: Mapping[str, NDArray[Any]]) -> None:
        self.steps: list[Step] = []
        self._constants = constants
        self._scales: dict[str, float] = {}  # of tensors of levels and of what they stand for
        self._weights: dict[str, bool] = {}  # rounded ones, whether they have a scale for every output

    def add(self, node: NodeProto) -> None:
        """The next one."""
        if node.op_type == "DequantizeLinear" and node.input[0] in self._constants:
            self._weights[node.output[0]] = self._constants[node.input[1]].ndim == 1
            return
        reads = tuple(name for name in node.input if name not in self._constants and name not in self._weights)
        layer = node.name if node.op_type in ("Conv", "Gemm", "BatchNormalization") else ""
        self.steps.append(Step(reads=reads, gives=node.output[0], compute=self._compute(node), layer=layer))
        if node.op_type in ("MaxPool", "Pad", "Flatten") and reads[0] in self._scales:
            self._scales[node.output[0]] = self._scales[reads[0]]

    def _number(self, name: str) -> float:
        return float(self._constants[name])

    def _compute(self, node: NodeProto) -> Compute:
        given: dict[str, Any] = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        match node.op_type:
            case "QuantizeLinear":
                return self._quantize(node)
            case "DequantizeLinear":
                return self._dequantize(node)
            case "Conv":
                return _conv(node.name, given, self._rounding(node))
            case "Gemm":
                return _linear(node.name, self._rounding(node))
            case "BatchNormalization":
                return _batch_norm(node.name, given["epsilon"])
            case "MaxPool" | "AveragePool":
                return _pool(node.op_type, given)
            case "Mul" if node.input[1] in self._constants:
                factor = self._number(node.input[1])
                return lambda _, read: read[0] * factor
            case "Clip":
                low, high = map(self._number, node.input[1:])
                return lambda _, read: read[0].clamp(low, high)
            case "Pad":
                front, back = (int(self._constants[node.input[1]][at]) for at in (1, 5))
                return lambda _, read: F.pad(read[0], (0, 0, 0, 0, front, back))
            case "LRN":
                size, *rest = (given[name] for name in ("size", "alpha", "beta", "bias"))
                return lambda _, read: F.local_response_norm(read[0], size, *rest)
            case "MatMul":
                matrix = torch.from_numpy(self._constants[node.input[1]].copy())
                return lambda _, read: read[0] @ matrix.to(read[0].device)
            case "Transpose":
                order = tuple(given["perm"])
                return lambda _, read: read[0].permute(order)
            case kind:
                return _PLAIN[kind]

    def _quantize(self, node: NodeProto) -> Compute:
        scale, zero = self._number(node.input[1]), int(self._number(node.input[2]))
        self._scales[node.output[0]] = scale
        return lambda _, read: nearest(read[0], scale, zero=zero, least=0, most=LEVELS)

    def _dequantize(self, node: NodeProto) -> Compute:
        scale = self._scales[node.output[0]] = self._number(node.input[1])
        factor = scale / self._scales[node.input[0]]  # of a constant that was multiplied by on levels
        return (lambda _, read: read[0]) if factor == 1.0 else (lambda _, read: read[0] * factor)

    def _rounding(self, node: NodeProto) -> _Scales | None:
        if node.input[1] not in self._weights:
            return None
        return _Scales(per_channel=self._weights[node.input[1]], source=self._scales[node.input[0]])


_PLAIN: dict[str, Compute] = {
    "Add": lambda _, read: read[0] + read[1],
    "Sum": lambda _, read: torch.stack(list(read)).sum(0),
    "Mul": lambda _, read: read[0] * read[1],
    "Concat": lambda _, read: torch.cat(list(read), 1),
    "GlobalAveragePool": lambda _, read: mean_over_positions(read[0])[:, :, None, None],
    "Flatten": lambda _, read: read[0].flatten(1),
    "Relu": lambda _, read: F.relu(read[0]),
    "Sigmoid": lambda _, read: torch.sigmoid(read[0]),
    "HardSigmoid": lambda _, read: F.hardsigmoid(read[0]),
    "HardSwish": lambda _, read: F.hardswish(read[0]),
}
"""Operations that are what they read and nothing more."""


def _conv(layer: str, given: Mapping[str, Any], scales: _Scales | None) -> Compute:
    kernel, padding = tuple(given["kernel_shape"]), _padding(given)
    stride, groups = given["strides"][0], given["group"]
    equal = equal_pads(kernel, padding)

    def compute(module: Rounded, read: Sequence[Tensor]) -> Tensor:
        (x,) = read
        weight, bias = module.folded(layer, scales)
        with whole_float32():  # numbers that are cut off would round to other levels than the file's
            if kernel == (1, 1) and equal == (0, 0):  # see StridedPointwise
                return F.conv2d(every(x, stride), weight, bias, groups=groups)
            if equal is None:
                return F.conv2d(pad(x, kernel, stride, padding), weight, bias, stride, groups=groups)
            return F.conv2d(x, weight, bias, stride, equal, groups=groups)

    return compute


def _linear(layer: str, scales: _Scales | None) -> Compute:
    return lambda module, read: F.linear(read[0], *module.folded(layer, scales))


def _batch_norm(layer: str, epsilon: float) -> Compute:
    def compute(module: Rounded, read: Sequence[Tensor]) -> Tensor:
        weight, bias, mean, variance = module.norm(layer)
        return F.batch_norm(read[0], mean, variance, weight, bias, eps=epsilon)

    return compute


def _pool(kind: str, given: Mapping[str, Any]) -> Compute:
    pool = WindowPool(
        "max" if kind == "MaxPool" else "avg",
        tuple(given["kernel_shape"]),
        stride=given["strides"][0],
        padding=_padding(given),
        count_padding=bool(given.get("count_include_pad", 0)),
    )
    return lambda _, read: pool(read[0])


def _padding(given: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Before and behind, of each axis."""
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    return (top, bottom), (left, right)
