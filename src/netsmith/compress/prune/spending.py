"""What a network costs, as a function of how many channels every pool keeps: exact, and fast enough for every choice.

MACs and parameters of a layer are its inputs times its outputs times a constant, and both are sums over pools, so a
choice among thousands of channels needs no graph to be rebuilt. The numbers are those of `netsmith.arch.cost`, which a
test holds together.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.compress.prune.pools import Pools

Measure = Literal["macs", "params"]
LABELS: dict[Measure, str] = {"macs": "MACs", "params": "params"}

Kept = NDArray[np.int64]
"""How many classes every pool keeps, int64 [pools]."""


def spent(layout: Layout, measure: Measure) -> int:
    """What a network costs."""
    found = cost(layout)
    return found.macs if measure == "macs" else found.params


@dataclass(frozen=True)
class Spending:
    """The cost of L layers over P pools: sum of scale * (inputs0 + inputs @ kept) * (outputs0 + outputs @ kept).

    Attributes:
        scale: float64 [L], what each pair of an input and an output costs.
        inputs, outputs: float64 [L,P], channels that a kept class adds to what a layer reads and puts out.
        inputs0, outputs0: float64 [L], channels that always stay.
    """

    scale: NDArray[np.float64]
    inputs: NDArray[np.float64]
    outputs: NDArray[np.float64]
    inputs0: NDArray[np.float64]
    outputs0: NDArray[np.float64]

    @classmethod
    def of(cls, pools: Pools, measure: Measure) -> "Spending":
        """The cost of a network whose pools are kept in part."""
        graph = pools.ties.graph
        shapes = g.shapes(graph)
        rows: list[tuple[float, str | None, str]] = []  # scale, what is read, what is put out
        for op in g.needed(graph) if measure == "macs" else graph.ops:
            match op:
                case g.Conv():
                    kernel = math.prod(op.kernel)
                    pairs = kernel * math.prod(shapes[op.name][1:]) if measure == "macs" else kernel
                    # Where a group reads one channel, groups go with it, and every output goes on reading one.
                    alone = op.groups == op.in_channels
                    rows.append((pairs, None, op.name) if alone else (pairs / op.groups, op.source, op.name))
                    if measure == "params" and op.bias:
                        rows.append((1, None, op.name))
                case g.Linear():
                    rows.append((1, op.source, op.name))
                    if measure == "params":
                        rows.append((1, None, op.name))
                case g.Norm() if measure == "params":
                    rows.append((2, None, op.name))
                case _:
                    continue
        counted = np.zeros((len(pools.pools), len(rows), 2))
        for number, pool in enumerate(pools.pools):
            for row, (_, source, name) in enumerate(rows):
                counted[number, row] = (0 if source is None else pool.counts.get(source, 0)), pool.counts.get(name, 0)
        inputs, outputs = counted[:, :, 0].T, counted[:, :, 1].T
        widths = np.array([(1 if source is None else shapes[source][0], shapes[name][0]) for _, source, name in rows])
        return cls(
            scale=np.array([scale for scale, *_ in rows]),
            inputs=inputs,
            outputs=outputs,
            inputs0=widths[:, 0] - inputs @ pools.most,
            outputs0=widths[:, 1] - outputs @ pools.most,
        )

    def total(self, kept: Kept) -> int:
        """What the network costs that keeps so many of every pool."""
        return round(float(self.scale @ ((self.inputs0 + self.inputs @ kept) * (self.outputs0 + self.outputs @ kept))))

    def change(self, kept: Kept, other: Kept) -> NDArray[np.float64]:
        """What each pool alone changes of the cost when it keeps `other` in place of `kept`, float64 [P]."""
        reads, puts = self.inputs0 + self.inputs @ kept, self.outputs0 + self.outputs @ kept
        more = (other - kept).astype(np.float64)
        linear = (self.scale * puts) @ self.inputs + (self.scale * reads) @ self.outputs
        return more * linear + more**2 * (self.scale @ (self.inputs * self.outputs))
