"""A graph computed with plain numpy loops in float64: slow, short, independent of every other way to run a network."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g

Array = NDArray[np.float64]

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}


def random_weights(graph: g.Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Every entry of the state but the counters; variances are positive, maps neither vanish nor explode."""
    weights: dict[str, Array] = {}
    for name, shape, _ in g.state(graph):
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            weights[name] = rng.uniform(0.5, 1.5, shape)
        elif shape:
            weights[name] = rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
    return weights


def forward(graph: g.Graph, weights: dict[str, Array], image: Array) -> Array:
    """Logits [classes] of one image [channels, *sides]."""
    maps: dict[str, Array] = {"input": image}
    for op in graph.ops:
        first, *others = (maps[name] for name in g.sources(op))
        match op:
            case g.Conv():
                out = conv(first, weights[f"{op.name}.weight"], op)
                if op.bias:
                    out += over_channels(weights[f"{op.name}.bias"], out)
            case g.Norm():
                mean, var, scale, shift = (
                    over_channels(weights[f"{op.name}.{entry}"], first)
                    for entry in ("running_mean", "running_var", "weight", "bias")
                )
                out = (first - mean) / np.sqrt(var + op.eps) * scale + shift
            case g.Linear():
                out = weights[f"{op.name}.weight"] @ first + weights[f"{op.name}.bias"]
            case g.Add():
                out = sum(others, first)
            case g.Gate():
                out = first * others[0]
            case g.Concat():
                out = np.concatenate([first, *others])
            case g.Pad():
                out = np.pad(first, [(op.front, op.back)] + [(0, 0)] * (first.ndim - 1))
            case g.Pool():
                out = pool(first, op)
            case g.AdaptivePool():
                out = adaptive_pool(first, op.size)
            case g.LocalNorm():
                around = np.pad(first**2, [(op.size // 2, op.size // 2)] + [(0, 0)] * (first.ndim - 1))
                total = sum(around[i : i + len(first)] for i in range(op.size))
                out = first / (op.k + op.alpha / op.size * total) ** op.beta
            case g.Scale():
                out = first * op.factor
            case g.GlobalPool():
                out = first.mean(axis=tuple(range(1, first.ndim)), keepdims=True)
            case g.Flatten():
                out = first.reshape(-1)
            case g.Activate():
                out = ACTIVATIONS[op.function](first)
        maps[op.name] = out
    return maps[graph.output]


def over_channels(vector: Array, like: Array) -> Array:
    return vector.reshape(-1, *(1,) * (like.ndim - 1))


def windows(padded: Array, op: g.Conv | g.Pool) -> list[tuple[tuple[int, ...], Array]]:
    """For each offset in the kernel, the values it meets at every position."""
    sides = [
        (side - kernel) // step + 1 for side, kernel, step in zip(padded.shape[1:], op.kernel, op.stride, strict=True)
    ]
    found: list[tuple[tuple[int, ...], Array]] = []
    for offset in itertools.product(*map(range, op.kernel)):
        cut = tuple(
            slice(at, at + step * (side - 1) + 1, step) for at, step, side in zip(offset, op.stride, sides, strict=True)
        )
        found.append((offset, padded[(slice(None), *cut)]))
    return found


def conv(x: Array, weight: Array, op: g.Conv) -> Array:
    padded = np.pad(x, [(0, 0), *op.padding])
    out: Array | float = 0.0
    for offset, seen in windows(padded, op):
        taps = weight[(slice(None), slice(None), *offset)].reshape(op.groups, -1, weight.shape[1])
        parts = [
            tap @ part.reshape(part.shape[0], -1) for tap, part in zip(taps, np.split(seen, op.groups), strict=True)
        ]
        out = out + np.concatenate(parts).reshape(-1, *seen.shape[1:])
    assert isinstance(out, np.ndarray)
    return out


def pool(x: Array, op: g.Pool) -> Array:
    padding = list(op.padding)
    if op.ceil:  # room for a last window that hangs over, unless it would start behind the map
        for axis, (side, kernel, step) in enumerate(zip(x.shape[1:], op.kernel, op.stride, strict=True)):
            before, after = padding[axis]
            over = -(side + before + after - kernel) % step
            starts = side + before + after - kernel + over
            padding[axis] = (before, after + over if starts < side + before else after)
    fill = -np.inf if op.reduce == "max" else 0.0
    seen = [part for _, part in windows(np.pad(x, [(0, 0), *padding], constant_values=fill), op)]
    if op.reduce == "max":
        return np.max(seen, axis=0)
    inside = np.pad(np.ones_like(x), [(0, 0), *padding], constant_values=float(op.count_padding))
    return np.sum(seen, axis=0) / np.sum([part for _, part in windows(inside, op)], axis=0)


def adaptive_pool(x: Array, size: tuple[int, ...]) -> Array:
    for axis, count in enumerate(size, start=1):
        side = x.shape[axis]
        ends = [(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]
        x = np.stack([x.take(range(first, last), axis).mean(axis) for first, last in ends], axis)
    return x
