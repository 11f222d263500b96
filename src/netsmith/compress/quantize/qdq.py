"""A graph of floats becomes a graph of int8: QuantizeLinear and DequantizeLinear around what has a kernel of integers.

The form is the one ONNX Runtime fuses into QLinearConv and its like ("QDQ"), and OpenVINO reads too. It is written here
rather than by onnxruntime.quantization because the graph is our own: every node is known, single nodes can be left in
float, and nothing passes through files.

Deliberate choices:
- Compute (`COMPUTES`) is rounded where it is not excluded: it reads rounded tensors, and rounds what it gives.
- What only moves numbers (`MOVES`: max pools, padding, flattening, a positive constant factor) works on the levels
  themselves, so it costs what a byte costs and adds no error.
- A ReLU or clip that alone reads a rounded layer vanishes: the levels of its output end where it does, and rounding
  cuts off what lies beyond.
- The way to the logits stays float: the last linear layer multiplies bytes and gives floats; a convolution, sum or
  average that gives the logits itself is not rounded at all. Softmax, sigmoid of the answers, temperature and the
  subtraction of the pixels' mean are never touched.
- An operation that has no kernel of integers (hard swish, local norms, batch norms on their own) stays float between
  rounded neighbours; that costs time, which is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from netsmith.compress.quantize.numbers import Affine, Floats, round_layer
from netsmith.errors import InputError, first_line

LAYERS = ("Conv", "Gemm")
COMPUTES = (*LAYERS, "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid")
MOVES = ("MaxPool", "Pad", "Flatten", "Mul")
CUTS = ("Relu", "Clip")
OUTPUTS = ("logits", "probabilities")


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How a graph is rounded.

    Attributes:
        per_channel: a scale for every output of a layer, or one for the whole layer.
        bits: of a weight, 8 or 7.
        excluded: names of nodes that stay float.
        only: names of the only nodes that are rounded; None for all that can be.
        correct_bias: see `round_layer`; needs means.
    """

    per_channel: bool = True
    bits: int = 8
    excluded: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    correct_bias: bool = False


class Graph:
    """A float model as it was written by `netsmith.export.onnx_graph`, with what rounding asks of it.

    Args:
        model: content of `model.onnx`, all tensors inside.

    Raises:
        InputError: no ONNX file, a damaged one, one whose nodes are not named, so that it was not written here, or one
            with weights that are not finite.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        try:
            self.proto = onnx.load_model_from_string(model)
        except DecodeError as error:
            raise InputError("model.onnx is not an ONNX file or is cut short; export the model again") from error
        self.nodes: list[NodeProto] = list(self.proto.graph.node)
        names = {node.name for node in self.nodes}
        if "" in names or len(names) != len(self.nodes):
            raise InputError(
                "model.onnx has nodes without names of their own; only graphs that netsmith wrote are rounded"
            )
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: _numbers(tensor) for tensor in self.proto.graph.initializer
        }
        for node in self.nodes:
            if node.op_type in LAYERS and any(not _finite(self.constants.get(name)) for name in node.input):
                raise InputError(
                    f"{node.name} has weights that are not finite numbers; export or train the model again"
                )
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.made_by = {node.output[0]: node for node in self.nodes}
        self._after_logits = self._reached(["logits"])
        self._before_image = {"image"} | self._reached_through(("Transpose", "Cast"))

    def _reached(self, names: Sequence[str]) -> set[str]:
        """Nodes that depend on tensors."""
        found: set[str] = set()
        wanted = {*names}
        for node in self.nodes:
            if wanted & {*node.input}:
                found.add(node.name)
                wanted.add(node.output[0])
        return found

    def _reached_through(self, kinds: Sequence[str]) -> set[str]:
        """Tensors of the pixels before they are numbers around zero."""
        found = {"image"}
        for node in self.nodes:
            if node.op_type in kinds and node.input[0] in found:
                found.add(node.output[0])
        return found

    def with_constants(self, constants: Mapping[str, NDArray[Any]]) -> bytes:
        """The model with other numbers in some of its constants."""
        return write_model(self.proto, self.nodes, self.constants | dict(constants))

    def activations(self, node: NodeProto) -> list[str]:
        """Its inputs that are no constants."""
        return [name for name in node.input if name and name not in self.constants]

    def gives_logits(self, node: NodeProto) -> bool:
        """Whether its output is the logits, perhaps after operations that only move numbers."""
        name = node.output[0]
        while name != "logits":
            readers = self.readers.get(name, [])
            if len(readers) != 1 or readers[0].op_type not in (*MOVES, *CUTS) or not self.moves(readers[0], cuts=True):
                return False
            name = readers[0].output[0]
        return True

    def moves(self, node: NodeProto, *, cuts: bool = False) -> bool:
        """Whether it only moves numbers, or (`cuts`) cuts them off."""
        if node.op_type == "Mul":
            return self.factor(node) is not None
        return node.op_type in MOVES or (cuts and node.op_type in CUTS)

    def factor(self, node: NodeProto) -> float | None:
        """The positive constant that a Mul multiplies by; None for any other node."""
        if node.op_type != "Mul":
            return None
        given = [self.constants[name] for name in node.input if name in self.constants]
        if len(given) != 1 or given[0].size != 1 or not float(given[0].reshape(())) > 0:
            return None
        return float(given[0].reshape(()))

    def candidates(self) -> list[str]:
        """Names of the nodes that can be rounded, in order."""
        return [node.name for node in self.nodes if self._can(node)]

    def layers(self) -> list[str]:
        """Names of the convolutions and linear layers among them."""
        return [node.name for node in self.nodes if node.op_type in LAYERS and self._can(node)]

    def _can(self, node: NodeProto) -> bool:
        if node.op_type not in COMPUTES or self.moves(node):
            return False
        if node.name in self._after_logits or node.output[0] in OUTPUTS[1:]:
            return False
        inputs = self.activations(node)
        if not inputs or self._before_image & {*inputs}:
            return False
        constant = [name for name in node.input if name in self.constants]
        if node.op_type not in LAYERS and constant:
            return False
        return node.op_type == "Gemm" or not self.gives_logits(node)

    def cut(self, node: NodeProto) -> NodeProto | None:
        """The ReLU or clip that vanishes into a node where that is rounded: the only reader of its output."""
        readers = self.readers.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type in CUTS and self._starts_at_zero(readers[0]):
            return readers[0]
        return None

    def _starts_at_zero(self, node: NodeProto) -> bool:
        return node.op_type == "Relu" or float(self.constants[node.input[1]]) == 0.0

    def tensors(self) -> list[str]:
        """Names of all float tensors that any rounding may need the range of."""
        found: dict[str, None] = {}
        for node in self.nodes:
            if self._can(node) or (self.moves(node) and node.name not in self._after_logits):
                for name in (*self.activations(node), (self.cut(node) or node).output[0]):
                    if name not in OUTPUTS and name not in self._before_image:
                        found[name] = None
        return list(found)


def _numbers(tensor: TensorProto) -> NDArray[Any]:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"model.onnx is damaged in {tensor.name} ({first_line(error)}); export the model again"
        ) from error


def _finite(values: NDArray[Any] | None) -> bool:
    return values is None or bool(np.isfinite(values).all())


def quantize(
    graph: Graph,
    ranges: Mapping[str, tuple[float, float]],
    rounding: Rounding,
    *,
    means: Mapping[str, Floats] | None = None,
) -> bytes:
    """The model with its layers rounded.

    Args:
        graph: the float model; not changed.
        ranges: smallest and largest value by tensor, of `Graph.tensors()`.
        rounding: how.
        means: by tensor, the mean by channel float32 [C], of what layers read; for `correct_bias`.

    Returns:
        Content of `model.onnx`; the same arguments give the same bytes.
    """
    return _Writer(graph, ranges, rounding, means or {}).write()


class _Writer:
    """Walks the float nodes in order.

    Attributes:
        rounded: names of the nodes that become integers.
        wanted: tensors that are needed as levels.
        level: tensor -> the one that holds its levels; `affine` says what they stand for.
        floats: tensor -> what its levels stand for, once that is there.
        plain: tensors that exist as floats because what makes them is not rounded.
    """

    def __init__(
        self,
        graph: Graph,
        ranges: Mapping[str, tuple[float, float]],
        rounding: Rounding,
        means: Mapping[str, Floats],
    ) -> None:
        self.graph, self.ranges, self.rounding, self.means = graph, ranges, rounding, means
        chosen = (name for name in graph.candidates() if rounding.only is None or name in rounding.only)
        self.rounded = {name for name in chosen if name not in rounding.excluded}
        self.wanted = self._wanted()
        self.vanished: set[str] = set()
        self.level: dict[str, str] = {}
        self.affine: dict[str, Affine] = {}
        self.plain = {"image"}
        self.floats: dict[str, str] = {}
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def _wanted(self) -> set[str]:
        wanted: set[str] = set()
        for node in reversed(self.graph.nodes):
            if node.name in self.rounded:
                wanted.update(self.graph.activations(node))
                if not self.graph.gives_logits(node):
                    wanted.add((self.graph.cut(node) or node).output[0])
            elif self.graph.moves(node) and node.output[0] in wanted:
                wanted.update(self.graph.activations(node))
        return wanted

    def write(self) -> bytes:
        """Every node of the float graph, in one of three ways."""
        for node in self.graph.nodes:
            if node.name in self.vanished:
                continue
            if node.name in self.rounded:
                self._round(node)
            elif self._works_on_levels(node):
                self._move(node)
            else:
                self._keep(node)
        return write_model(self.graph.proto, self.nodes, self.constants)

    def _works_on_levels(self, node: NodeProto) -> bool:
        if not self.graph.moves(node) or node.output[0] == "logits":
            return False
        (source,) = self.graph.activations(node)
        return source in self.level and (node.output[0] in self.wanted or source not in self.plain)

    def _round(self, node: NodeProto) -> None:
        cut = self.graph.cut(node)
        last = self.graph.gives_logits(node)
        output = (node if last else cut or node).output[0]
        if node.op_type in LAYERS:
            inputs = [self._from_levels(node.input[0]), *self._layer(node)]
        else:
            inputs = [self._from_levels(name) for name in node.input]
        self._copy(node, inputs, output)
        if last:
            self._is_plain(output)
            return
        if cut is not None:
            self.vanished.add(cut.name)
        self._to_levels(output)

    def _layer(self, node: NodeProto) -> list[str]:
        """The rounded weight and bias of a layer, as floats that the runtime takes for integers."""
        source, (weight, *rest) = node.input[0], (self.graph.constants[name] for name in node.input[1:])
        mean = self.means.get(source) if self.rounding.correct_bias else None
        layer = round_layer(
            weight,
            rest[0] if rest else None,
            source=self.affine[source],
            per_channel=self.rounding.per_channel,
            bits=self.rounding.bits,
            mean=None if mean is None else _by_output(mean, weight, groups=group_count(node)),
        )
        axis = 0 if self.rounding.per_channel else None
        name = node.input[1]
        zeros = np.zeros(layer.scales.shape, np.int8)
        names = [self._dequantized(name, layer.weight, layer.scales, zeros, axis=axis)]
        if layer.bias is not None:
            units = (np.float32(self.affine[source].scale) * layer.scales).astype(np.float32)
            name = f"{node.name}/bias"
            names.append(self._dequantized(name, layer.bias, units, np.zeros(units.shape, np.int32), axis=axis))
        return names

    def _dequantized(
        self, name: str, levels: NDArray[Any], scales: Floats, zeros: NDArray[Any], *, axis: int | None
    ) -> str:
        inputs = [
            self._constant(f"{name}/level", levels),
            self._constant(f"{name}/scale", scales),
            self._constant(f"{name}/zero", zeros),
        ]
        kept = {} if axis is None else {"axis": axis}
        return self._node("DequantizeLinear", inputs, f"{name}/float", **kept)

    def _move(self, node: NodeProto) -> None:
        """The same on levels: they are uint8, and 0 is the level `zero`."""
        (source,), output = self.graph.activations(node), node.output[0]
        affine = self.affine[source]
        factor = self.graph.factor(node)
        if factor is not None:
            self.level[output], self.affine[output] = self.level[source], affine.times(factor)
            return
        inputs = [self.level[source], *(self._kept(name) for name in node.input[1:])]
        if node.op_type == "Pad":
            inputs.append(self._constant(f"{node.name}/value", np.array(affine.zero, np.uint8)))
        self._copy(node, inputs, f"{output}/level")
        self.level[output], self.affine[output] = f"{output}/level", affine

    def _keep(self, node: NodeProto) -> None:
        inputs = [self._kept(name) if name in self.graph.constants else self._as_float(name) for name in node.input]
        self._copy(node, inputs, node.output[0])
        self._is_plain(node.output[0])

    def _is_plain(self, name: str) -> None:
        self.plain.add(name)
        if name in self.wanted:
            self._to_levels(name)

    def _as_float(self, name: str) -> str:
        return name if name in self.plain else self._from_levels(name)

    def _from_levels(self, name: str) -> str:
        if name not in self.floats:
            self.floats[name] = self._node("DequantizeLinear", [self.level[name], *self._affine(name)], f"{name}/float")
        return self.floats[name]

    def _to_levels(self, name: str) -> None:
        self.affine[name] = Affine.over(*self.ranges[name])
        self.level[name] = self._node("QuantizeLinear", [name, *self._affine(name)], f"{name}/level")

    def _affine(self, name: str) -> tuple[str, str]:
        affine = self.affine[name]
        scale = self._constant(f"{name}/scale", np.array(affine.scale, np.float32))
        return scale, self._constant(f"{name}/zero", np.array(affine.zero, np.uint8))

    def _kept(self, name: str) -> str:
        return self._constant(name, self.graph.constants[name])

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = value
        return name

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _copy(self, node: NodeProto, inputs: Sequence[str], output: str) -> None:
        copied = NodeProto()
        copied.CopyFrom(node)
        del copied.input[:], copied.output[:]
        copied.input.extend(inputs)
        copied.output.append(output)
        self.nodes.append(copied)


def write_model(
    described: onnx.ModelProto, nodes: Sequence[NodeProto], constants: Mapping[str, NDArray[Any] | TensorProto]
) -> bytes:
    """The content of `model.onnx` like another, with these nodes and constants."""
    proto = onnx.ModelProto()
    proto.CopyFrom(described)
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(
        value if isinstance(value, TensorProto) else _tensor(name, value) for name, value in constants.items()
    )
    return proto.SerializeToString(deterministic=True)


def _tensor(name: str, value: NDArray[Any]) -> TensorProto:
    """Little-endian, as ONNX wants it."""
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    content = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return TensorProto(name=name, dims=value.shape, data_type=kind, raw_data=content)


def group_count(node: NodeProto) -> int:
    """Groups of a layer, 1 of a linear one."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _by_output(mean: Floats, weight: Floats, *, groups: int) -> Floats:
    """Means of a layer's input [C] as each output's group reads them, [out, C / groups]."""
    return np.repeat(mean.reshape(groups, -1), len(weight) // groups, axis=0)
