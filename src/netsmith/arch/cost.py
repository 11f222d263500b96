"""Cost of a layout, counted on its graph: parameters, MACs, activations, peak activation memory.

MACs are multiply-accumulates of convolutions and linear layers for one input in evaluation (biases, norms and
activations not counted). Activations are the outputs of convolutions and linear layers (Radosavovic et al. 2020). Peak
memory is the largest sum of maps alive at once in float32, batch 1, when operations run in graph order and each
allocates its output; a fused runtime needs less.
"""

import math
from dataclasses import dataclass

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network, stage or block costs.

    Attributes:
        params: trainable numbers.
        macs: multiply-accumulates for one input.
        activations: numbers that convolutions and linear layers put out for one input.
        peak_bytes: largest sum of live maps, float32, batch 1.
    """

    params: int
    macs: int
    activations: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a network with its cost: the stem, a block, the head. `shape` is its output, channels first."""

    stage: str
    name: str
    kind: str
    shape: tuple[int, ...]
    cost: Cost


def cost(layout: Layout) -> Cost:
    """Cost of the whole network."""
    graph = layout_graph(layout)
    return _cost_of(graph, graph.ops, g.shapes(graph), _live_bytes(graph))


def parts(layout: Layout) -> list[Part]:
    """Cost of the stem, each block and the head, in order; params, MACs and activations sum to those of `cost`."""
    graph = layout_graph(layout)
    shapes, live = g.shapes(graph), _live_bytes(graph)
    places = [(stage.name, block.name, block.kind) for stage in layout.stages for block in stage.blocks]
    owners = {name: (stage, name, kind) for stage, name, kind in places}
    grouped: dict[tuple[str, str, str], list[g.Op]] = {}
    before = True
    for op in graph.ops:
        owner = next((owners[name] for name in _prefixes(op.name) if name in owners), None)
        before = before and owner is None
        grouped.setdefault(owner or (("stem", "stem", "stem") if before else ("head", "head", "head")), []).append(op)
    return [
        Part(stage=stage, name=name, kind=kind, shape=shapes[ops[-1].name], cost=_cost_of(graph, ops, shapes, live))
        for (stage, name, kind), ops in grouped.items()
    ]


def _prefixes(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)]


def _cost_of(
    graph: g.Graph, ops: tuple[g.Op, ...] | list[g.Op], shapes: dict[str, g.Shape], live: dict[str, int]
) -> Cost:
    part = g.Graph(input=graph.input, ops=tuple(ops), taps={}, output=ops[-1].name)
    macs = activations = 0
    for op in ops:
        match op:
            case g.Conv():
                positions = math.prod(shapes[op.name][1:])
                macs += positions * op.out_channels * (op.in_channels // op.groups) * math.prod(op.kernel)
                activations += positions * op.out_channels
            case g.Linear():
                macs += op.in_features * op.out_features
                activations += op.out_features
            case _:
                continue
    return Cost(
        params=sum(math.prod(shape) for _, shape in g.parameters(part)),
        macs=macs,
        activations=activations,
        peak_bytes=max(live[op.name] for op in ops),
    )


def _live_bytes(graph: g.Graph) -> dict[str, int]:
    """Bytes of the maps alive while each operation runs: its inputs, its output and all that is read later."""
    shapes = g.shapes(graph)
    last_use = {name: i for i, op in enumerate(graph.ops) for name in g.sources(op)}
    alive: dict[str, int] = {"input": 4 * math.prod(graph.input)}
    live: dict[str, int] = {}
    for i, op in enumerate(graph.ops):
        alive[op.name] = 4 * math.prod(shapes[op.name])
        live[op.name] = sum(alive.values())
        for name in {*g.sources(op)}:
            if last_use[name] == i:
                del alive[name]
    return live
