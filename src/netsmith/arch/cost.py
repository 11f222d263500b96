"""Cost of a layout, counted on its graph: parameters, MACs, activations, peak activation memory.

MACs are multiply-accumulates of convolutions and linear layers for one input in evaluation (biases, norms and
activations not counted). Activations are the outputs of convolutions and linear layers (Radosavovic et al. 2020). Peak
memory is the largest sum of maps alive at once in float32, batch 1, when operations run in graph order and each
allocates its output; a fused runtime needs less.
"""

import math
from dataclasses import dataclass, replace

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph, layout_sections


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
    """The stem, a block, an auxiliary head or the head with its cost. `shape` is its output, channels first."""

    stage: str
    name: str
    kind: str
    shape: tuple[int, ...]
    cost: Cost


def cost(layout: Layout) -> Cost:
    """Cost of the whole network; classifiers for training only count as parameters."""
    graph = layout_graph(layout)
    shapes = g.shapes(graph)
    return _cost_of(graph, graph.ops, shapes, _live_bytes(graph, shapes))


def parts(layout: Layout) -> list[Part]:
    """Cost of the stem, each block and the head, in order; params, MACs and activations sum to those of `cost`."""
    graph = layout_graph(layout)
    shapes = g.shapes(graph)
    live = _live_bytes(graph, shapes)
    return [
        Part(
            stage=section.stage, name=section.name, kind=section.kind, shape=shapes[section.output],
            cost=_cost_of(graph, section.ops, shapes, live),
        )
        for section in layout_sections(layout)
        if section.ops
    ]  # fmt: skip


def _cost_of(graph: g.Graph, ops: tuple[g.Op, ...], shapes: dict[str, g.Shape], live: dict[str, int]) -> Cost:
    params = sum(math.prod(shape) for _, shape in g.parameters(replace(graph, ops=ops)))
    macs = activations = 0
    for op in ops:
        match op:
            case _ if op.name not in live:
                continue
            case g.Conv():
                positions = math.prod(shapes[op.name][1:])
                macs += positions * op.out_channels * (op.in_channels // op.groups) * math.prod(op.kernel)
                activations += positions * op.out_channels
            case g.Linear():
                macs += op.in_features * op.out_features
                activations += op.out_features
            case _:
                continue
    peak = max((live[op.name] for op in ops if op.name in live), default=0)
    return Cost(params=params, macs=macs, activations=activations, peak_bytes=peak)


def _live_bytes(graph: g.Graph, shapes: dict[str, g.Shape]) -> dict[str, int]:
    """Bytes of the maps alive while each operation runs in evaluation: its inputs, its output and all read later."""
    ops = g.needed(graph)
    last_use = {name: i for i, op in enumerate(ops) for name in g.sources(op)}
    total = 4 * math.prod(graph.input)
    live: dict[str, int] = {}
    for i, op in enumerate(ops):
        total += 4 * math.prod(shapes[op.name])
        live[op.name] = total
        total -= sum(4 * math.prod(shapes[name]) for name in {*g.sources(op)} if last_use[name] == i)
    return live
