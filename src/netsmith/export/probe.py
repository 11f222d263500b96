"""Untrained networks as ONNX, for measuring latency before anything is trained.

Speed depends on the values in one way only: numbers near the smallest that float32 can hold are tens of times slower.
So no map may vanish, nor overflow, however deep the network: a bound on the second moment of every map is followed
through the graph, each convolution's weights are drawn so that the bound on what it puts out is about 1, and random
biases keep a floor under maps that stay far below their bound.
"""

import math

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.export.onnx_graph import write_onnx
from netsmith.run.preprocess import Preprocess

GAIN, BIAS = 0.9, 0.3
POOL = 65_521  # a prime, so that weights repeat at other places of every filter


def probe_onnx(layout: Layout, *, preprocess: Preprocess, seed: int = 0) -> bytes:
    """`model.onnx` of a network with random weights: as fast as the trained one, and of the same size.

    Args:
        layout: the network.
        preprocess: see `write_onnx`.
        seed: of the weights.

    Raises:
        InputError: as `write_onnx`.
    """
    return write_onnx(layout, probe_weights(layout, seed=seed), preprocess=preprocess)


def probe_weights(layout: Layout, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Every entry of a state_dict but the counters, random, such that no map vanishes or explodes."""
    graph = layout_graph(layout)
    moments = {"input": 1.0}
    weights: dict[str, NDArray[np.float32]] = {}
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal(POOL, dtype=np.float32)
    for op in graph.ops:
        inputs = [moments[name] for name in g.sources(op)]
        moments[op.name] = _moment(op, inputs)
        for name, shape, _ in g.state(g.Graph(input=graph.input, ops=(op,), taps={}, output=op.name)):
            match op, name.removeprefix(f"{op.name}."):
                case g.Conv() | g.Linear(), "weight":
                    deviation = GAIN / math.sqrt(inputs[0] * math.prod(shape[1:]))
                    weights[name] = np.resize(pool * np.float32(deviation), shape)
                case g.Norm(), "weight" | "running_var":
                    weights[name] = np.ones(shape, np.float32)
                case g.Norm(), "running_mean":
                    weights[name] = np.zeros(shape, np.float32)
                case _, "bias":
                    weights[name] = BIAS * rng.standard_normal(shape, dtype=np.float32)
                case _:
                    continue
    return weights


def _moment(op: g.Op, inputs: list[float]) -> float:
    """Bound on the expected second moment of an operation's output."""
    match op:
        case g.Conv() | g.Linear():
            return GAIN**2 + BIAS**2
        case g.Norm():
            return inputs[0] + BIAS**2
        case g.Activate():
            return 1.0 if op.function in ("sigmoid", "hard_sigmoid") else inputs[0]
        case g.Add():
            return sum(inputs)  # a branch ends in random weights of mean 0, so it is not correlated with the other
        case g.Concat():
            return max(inputs)
        case g.Pool():
            return inputs[0] * (math.prod(op.kernel) if op.reduce == "max" else 1)
        case g.Scale():
            return inputs[0] * op.factor**2
        case g.LocalNorm():
            return inputs[0] / min(1.0, op.k) ** (2 * op.beta)
        case g.Gate() | g.Pad() | g.AdaptivePool() | g.GlobalPool() | g.Flatten():
            return inputs[0]  # a gate is at most 1
