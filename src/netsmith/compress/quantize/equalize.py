"""Cross-layer equalization: the same function with channels of like size (Nagel et al. 2019, arXiv 1906.04721).

Where a layer's output reaches one other layer through nothing but what commutes with a positive factor (ReLU, pools),
a channel may be divided by s and the weights that read it multiplied by s. s = sqrt(r1 / r2) makes both ranges the
geometric mean of the two, so that neither layer has channels that a common step would round away. r1 is that of the
weights, except where a channel is all but its bias, which would be blown up without end.

ReLU6 does not commute: its clip at 6 becomes one at 6 / s, another for every channel. Nagel et al. take ReLU instead.
Here it is kept, by two choices:
- In floats the clip becomes a ReLU and a limit of every channel's own (`Min` with a constant), so the function stays
  what it was, whatever the picture.
- In a rounded graph such a limit would be a pass over floats between two layers of integers, in the largest maps of the
  network. There is none: it vanishes as a clip does, because rounding cuts off where the levels end. So that they end
  where the limit is, all channels that reach 6 on the calibration pictures have one factor together, and no other
  channel is made to reach beyond them. Where none reaches 6 the factors are free. A channel that reached 6 in
  no calibration picture is cut where the common levels end, which may be below 6 or above it.

SiLU and hard swish do not commute at all, and what is summed, gated or concatenated has more than one reader or writer:
networks of those are left as they are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from netsmith.compress.quantize.graph import LAYERS, LIMIT, Graph, group_count
from netsmith.compress.quantize.numbers import Floats

COMMUTING = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten")
ROUNDS = 20
"""Passes over all pairs: chains of layers settle in a few."""

Factors = NDArray[np.float64]
BIAS = 1000.0
"""A bias so many times the weights is what its channel is."""


@dataclass(frozen=True)
class Pair:
    """Two layers between which channels can be rescaled.

    Attributes:
        first, second: the layers.
        clip: the ReLU6 between them, if there is one.
    """

    first: NodeProto
    second: NodeProto
    clip: NodeProto | None = None


def pairs(graph: Graph) -> list[Pair]:
    """Pairs of layers in the order of the graph."""
    found: list[Pair] = []
    for node in graph.nodes:
        if node.op_type not in LAYERS or not {*node.input[1:]} <= graph.constants.keys():
            continue
        pair = _pair(graph, node)
        if pair is not None and _inputs(graph, pair.second) == len(graph.constants[node.input[1]]):
            found.append(pair)
    return found


def _pair(graph: Graph, first: NodeProto) -> Pair | None:
    """A layer and the one that its output reaches, through what commutes with a factor; None where there is more."""
    name, clip = first.output[0], None
    while True:
        readers = graph.readers.get(name, [])
        if len(readers) != 1 or name == "logits":
            return None
        (reader,) = readers
        if reader.op_type in LAYERS:
            read = reader.input[1] in graph.constants and reader.input[0] == name
            return Pair(first, reader, clip) if read else None
        if clip is None and graph.cuts(first) == [reader]:
            clip = reader if reader.op_type == "Clip" else None
        elif reader.op_type not in COMMUTING:
            return None
        name = reader.output[0]


def _inputs(graph: Graph, node: NodeProto) -> int:
    """Channels that a layer reads."""
    return graph.constants[node.input[1]].shape[1] * group_count(node)


def in_words(found: Sequence[Pair]) -> str:
    """How many pairs are made alike, for people."""
    clipped = sum(pair.clip is not None for pair in found)
    beyond = f", {clipped} of them beyond a ReLU6" if clipped else ""
    return f"{len(found) or 'no'} pair{'' if len(found) == 1 else 's'} of layers equalized{beyond}"


def equalize(graph: Graph, peaks: Mapping[str, Floats]) -> bytes:
    """The model with channels of like size; what it computes stays, but for float rounding.

    Args:
        graph: float; not changed.
        peaks: by the output of every clip, the largest number of each channel on calibration pictures, float32 [C].
    """
    weights: dict[str, Floats] = {}

    def constant(name: str) -> Floats:
        return weights.setdefault(name, graph.constants[name].astype(np.float32))

    found = pairs(graph)
    scales = [np.ones(len(graph.constants[pair.first.input[1]])) for pair in found]
    for _ in range(ROUNDS):
        largest = 1.0
        for at, pair in enumerate(found):
            first, second = constant(pair.first.input[1]), constant(pair.second.input[1])
            groups = group_count(pair.second)
            ours = np.abs(first.reshape(len(first), -1)).max(axis=1)
            if len(pair.first.input) > 2:
                ours = np.maximum(ours, np.abs(constant(pair.first.input[2])) / BIAS)
            theirs = _by_input(second, groups)
            useful = (ours > 0) & (theirs > 0)
            scale = scales[at].copy()
            scale[useful] *= np.sqrt(ours[useful] / theirs[useful])
            if pair.clip is not None:
                scale = _ending_together(scale, peaks[pair.clip.output[0]], _limit(graph, pair.clip))
            factor = (scale / scales[at]).astype(np.float32)
            scales[at] = scale
            largest = max(largest, float(np.maximum(factor, 1 / factor).max()))
            weights[pair.first.input[1]] = first / factor.reshape(-1, *(1 for _ in first.shape[1:]))
            if len(pair.first.input) > 2:
                weights[pair.first.input[2]] = constant(pair.first.input[2]) / factor
            each = factor.reshape(groups, 1, -1).repeat(len(second) // groups, axis=1).reshape(second.shape[:2])
            weights[pair.second.input[1]] = second * each.reshape(*each.shape, *(1 for _ in second.shape[2:]))
        if largest < 1.01:
            break
    return graph.with_constants(weights, _limited(graph, found, scales, weights))


def _by_input(weight: Floats, groups: int) -> Floats:
    """Largest weight that reads each input channel, [groups * in / groups]."""
    return np.abs(weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)).max(axis=(1, 3)).reshape(-1)


def _limit(graph: Graph, clip: NodeProto) -> float:
    """Where a clip ends."""
    return float(graph.constants[clip.input[2]])


def _ending_together(scale: Factors, peaks: Floats, limit: float) -> Factors:
    """Factors with which the channels that reach a limit end together, and no other beyond them."""
    reaching = peaks >= limit
    if not reaching.any():
        return scale
    common = np.exp(np.log(scale[reaching]).mean())
    return np.where(reaching, common, np.maximum(scale, common * peaks / limit))


def _limited(
    graph: Graph, found: Sequence[Pair], scales: Sequence[Factors], constants: dict[str, Floats]
) -> list[NodeProto]:
    """The nodes, with a limit for every channel in the place of clips; the limits become constants."""
    by_clip = {
        pair.clip.name: (pair, scale) for pair, scale in zip(found, scales, strict=True) if pair.clip is not None
    }
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        if node.name not in by_clip:
            nodes.append(node)
            continue
        pair, scale = by_clip[node.name]
        spread = (1 for _ in graph.constants[pair.first.input[1]].shape[2:])
        ends = (_limit(graph, node) / scale).astype(np.float32).reshape(-1, *spread)
        above, name = f"{node.name}.above", f"{node.name}.ends"
        constants[name] = ends
        nodes.append(helper.make_node("Relu", [node.input[0]], [above], name=above))
        nodes.append(helper.make_node(LIMIT, [above, name], [node.output[0]], name=node.name))
    return nodes
