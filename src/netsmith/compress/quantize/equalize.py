"""Cross-layer equalization: the same function with channels of like size (Nagel et al. 2019, arXiv 1906.04721).

Where a layer's output reaches one other layer through nothing but what commutes with a positive factor (ReLU, pools),
a channel may be divided by s and the weights that read it multiplied by s. s = sqrt(r1 / r2) makes both ranges the
geometric mean of the two, so that neither layer has channels that a common step would round away. r1 is that of the
weights, except where a channel is all but its bias, which would be blown up without end. ReLU6 and SiLU do not
commute, so networks with those are left as they are.
"""

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from netsmith.compress.quantize.graph import LAYERS, Graph, group_count
from netsmith.compress.quantize.numbers import Floats

COMMUTING = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten")
ROUNDS = 20
"""Passes over all pairs: chains of layers settle in a few."""

BIAS = 1000.0
"""A bias so many times the weights is what its channel is."""


@dataclass(frozen=True)
class Pair:
    """Two layers between which channels can be rescaled."""

    first: NodeProto
    second: NodeProto


def pairs(graph: Graph) -> list[Pair]:
    """Pairs of layers in the order of the graph."""
    found: list[Pair] = []
    for node in graph.nodes:
        if node.op_type not in LAYERS or not {*node.input[1:]} <= graph.constants.keys():
            continue
        after = _reader(graph, node)
        if after is not None and _inputs(graph, after) == len(graph.constants[node.input[1]]):
            found.append(Pair(node, after))
    return found


def _reader(graph: Graph, node: NodeProto) -> NodeProto | None:
    """The one layer that a layer's output reaches, through what commutes with a factor; None where there is more."""
    name = node.output[0]
    while True:
        readers = graph.readers.get(name, [])
        if len(readers) != 1 or name == "logits":
            return None
        (reader,) = readers
        if reader.op_type in LAYERS:
            return reader if reader.input[1] in graph.constants and reader.input[0] == name else None
        if reader.op_type not in COMMUTING:
            return None
        name = reader.output[0]


def _inputs(graph: Graph, node: NodeProto) -> int:
    """Channels that a layer reads."""
    return graph.constants[node.input[1]].shape[1] * group_count(node)


def equalize(graph: Graph) -> bytes:
    """The model with channels of like size; what it computes stays, but for float rounding.

    Args:
        graph: float; not changed.
    """
    weights: dict[str, Floats] = {}

    def constant(name: str) -> Floats:
        return weights.setdefault(name, graph.constants[name].astype(np.float32))

    found = pairs(graph)
    for _ in range(ROUNDS):
        largest = 1.0
        for pair in found:
            first, second = constant(pair.first.input[1]), constant(pair.second.input[1])
            groups = group_count(pair.second)
            ours = np.abs(first.reshape(len(first), -1)).max(axis=1)
            if len(pair.first.input) > 2:
                ours = np.maximum(ours, np.abs(constant(pair.first.input[2])) / BIAS)
            theirs = _by_input(second, groups)
            useful = (ours > 0) & (theirs > 0)
            factor = np.ones(len(ours), np.float32)
            factor[useful] = np.sqrt(ours[useful] / theirs[useful])
            largest = max(largest, float(np.maximum(factor, 1 / factor).max()))
            weights[pair.first.input[1]] = first / factor.reshape(-1, *(1 for _ in first.shape[1:]))
            if len(pair.first.input) > 2:
                weights[pair.first.input[2]] = constant(pair.first.input[2]) / factor
            each = factor.reshape(groups, 1, -1).repeat(len(second) // groups, axis=1).reshape(second.shape[:2])
            weights[pair.second.input[1]] = second * each.reshape(*each.shape, *(1 for _ in second.shape[2:]))
        if largest < 1.01:
            break
    return graph.with_constants(weights)


def _by_input(weight: Floats, groups: int) -> Floats:
    """Largest weight that reads each input channel, [groups * in / groups]."""
    return np.abs(weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)).max(axis=(1, 3)).reshape(-1)
