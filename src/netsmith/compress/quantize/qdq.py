"""A graph of floats becomes a graph of int8: QuantizeLinear and DequantizeLinear around what has a kernel of integers.

The form is the one ONNX Runtime fuses into QLinearConv and its like ("QDQ"), and OpenVINO reads too. It is written here
rather than by onnxruntime.quantization because the graph is our own: every node is known, single nodes can be left in
float, and nothing passes through files.

Deliberate choices:
- Compute (`COMPUTES`) is rounded where it is not excluded: it reads rounded tensors, and rounds what it gives.
- What only moves numbers (`MOVES`: max pools, padding, flattening, a positive constant factor) works on the levels
  themselves, so it costs what a byte costs and adds no error.
- A ReLU or clip that alone reads a rounded layer vanishes: the levels of its output end where it does, and rounding
  cuts off what lies beyond. So do the limits of an equalized ReLU6, see `equalize`.
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
from numpy.typing import NDArray
from onnx import NodeProto, helper

from netsmith.compress.quantize.graph import LAYERS, Graph, group_count, write_model
from netsmith.compress.quantize.numbers import Affine, Floats, round_layer


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
                    wanted.add(self.graph.written(node))
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
        last = self.graph.gives_logits(node)
        output = node.output[0] if last else self.graph.written(node)
        if node.op_type in LAYERS:
            inputs = [self._from_levels(node.input[0]), *self._layer(node)]
        else:
            inputs = [self._from_levels(name) for name in node.input]
        self._copy(node, inputs, output)
        if last:
            self._is_plain(output)
            return
        self.vanished.update(cut.name for cut in self.graph.cuts(node))
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


def _by_output(mean: Floats, weight: Floats, *, groups: int) -> Floats:
    """Means of a layer's input [C] as each output's group reads them, [out, C / groups]."""
    return np.repeat(mean.reshape(groups, -1), len(weight) // groups, axis=0)
