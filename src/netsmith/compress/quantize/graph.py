"""A float model as rounding sees it: which of its operations have a kernel of integers, which only move numbers, and
which tensors' ranges that needs. The nodes are known, because `netsmith.export.onnx_graph` wrote them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from netsmith.errors import InputError, first_line

LAYERS = ("Conv", "Gemm")
COMPUTES = (*LAYERS, "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid")
MOVES = ("MaxPool", "Pad", "Flatten", "Mul")
CUTS = ("Relu", "Clip")
LIMIT = "Min"
"""Cuts channels off where each of them ends, behind a ReLU; only `equalize` writes it."""
OUTPUTS = ("logits", "probabilities")


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

    def with_constants(self, constants: Mapping[str, NDArray[Any]], nodes: Sequence[NodeProto] | None = None) -> bytes:
        """The model with other numbers in some of its constants, and other nodes where they are given."""
        nodes = self.nodes if nodes is None else nodes
        read = {name for node in nodes for name in node.input}
        known = self.constants | dict(constants)
        return write_model(self.proto, nodes, {name: value for name, value in known.items() if name in read})

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

    def cuts(self, node: NodeProto) -> list[NodeProto]:
        """The ReLU or clip that vanishes into a node where that is rounded, the only reader of its output, and the
        limits of a ReLU's channels: levels end where they do."""
        found: list[NodeProto] = []
        while len(readers := self.readers.get([node, *found][-1].output[0], [])) == 1:
            (reader,) = readers
            if not (reader.op_type == LIMIT if found else reader.op_type in CUTS and self._starts_at_zero(reader)):
                break
            found.append(reader)
        return found

    def written(self, node: NodeProto) -> str:
        """The tensor that a node gives where it is rounded, behind what vanishes into it."""
        return [node, *self.cuts(node)][-1].output[0]

    def _starts_at_zero(self, node: NodeProto) -> bool:
        return node.op_type == "Relu" or float(self.constants[node.input[1]]) == 0.0

    def tensors(self) -> list[str]:
        """Names of all float tensors that any rounding may need the range of."""
        found: dict[str, None] = {}
        for node in self.nodes:
            if self._can(node) or (self.moves(node) and node.name not in self._after_logits):
                for name in (*self.activations(node), self.written(node)):
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


def write_model(
    described: onnx.ModelProto, nodes: Sequence[NodeProto], constants: Mapping[str, NDArray[Any] | TensorProto]
) -> bytes:
    """The content of `model.onnx` like another, with these nodes and constants."""
    proto = onnx.ModelProto()
    proto.CopyFrom(described)
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in constants.items()
    )
    return proto.SerializeToString(deterministic=True)


def group_count(node: NodeProto) -> int:
    """Groups of a layer, 1 of a linear one."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
