"""What vanishes into a layer's weights where a network is written as a graph: the batch norm behind it, and in the
first convolutions the scale of the pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.run.preprocess import Preprocess


@dataclass(frozen=True)
class Folding:
    """What is folded into which layer.

    Attributes:
        norms: by convolution or linear layer, the batch norm that alone reads it.
        pixels: by convolution, what its weight is multiplied by so that it reads pixels whose mean was subtracted and
            that were not scaled, float32 [out, in / groups, 1, ...]; empty where something else reads pixels too.
    """

    norms: Mapping[str, g.Norm]
    pixels: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, graph: g.Graph, preprocess: Preprocess) -> Self:
        """What is folded in a graph whose pixels are prepared so."""
        ops = g.needed(graph)
        readers = _readers(ops)
        norms: dict[str, g.Norm] = {}
        for op in ops:
            match op, readers.get(op.name):
                case g.Conv() | g.Linear(), [g.Norm() as norm] if op.name != graph.output:
                    norms[op.name] = norm
                case _:
                    continue
        first = [op for op in readers["input"] if isinstance(op, g.Conv)]
        if len(first) < len(readers["input"]):
            first = []
        scale = 1 / (255 * np.array(preprocess.std))
        return cls(norms, {op.name: _by_input_channel(op, scale) for op in first})


def spread(values: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Values along the first of `ndim` axes."""
    return values.reshape(-1, *(1 for _ in range(ndim - 1)))


def _readers(ops: Sequence[g.Op]) -> dict[str, list[g.Op]]:
    readers: dict[str, list[g.Op]] = {}
    for op in ops:
        for name in g.sources(op):
            readers.setdefault(name, []).append(op)
    return readers


def _by_input_channel(op: g.Conv, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """One value per input channel, shaped to multiply a convolution's weight [out, in / groups, *kernel]."""
    per_group = values.reshape(op.groups, -1)
    per_output = np.repeat(per_group, op.out_channels // op.groups, axis=0)
    return per_output.reshape(*per_output.shape, *(1 for _ in op.kernel)).astype(np.float32)
