"""widen: more channels for a trained network that go on computing the same (Net2WiderNet, Chen et al. 2016, arXiv
1511.05641).

New channels are copies of old ones, and what reads a copied channel divides its weights among the copies; that is
`netsmith.arch.select` with channels that stand several times.

Deliberate choices: classes of tied channels are copied whole, so sums, gates, concatenations, zero padding, grouped and
depthwise convolutions and flattened maps stay exact. Widths grow as when a network is scaled: to the nearest multiple
of 8 where they are one. Channels whose copies would change the result are left alone: those whose neighbours are
normalised together, and those of a depthwise convolution that has several outputs for each input.
"""

import math
from random import Random

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.select import Selection, select
from netsmith.arch.ties import Ties, ties
from netsmith.arch.widths import round_channels
from netsmith.errors import InputError


def widen(layout: Layout, factor: float, *, seed: int = 0) -> Selection:
    """The network with about `factor` times the channels in every layer, and what it takes from the old weights.

    Args:
        layout: the network.
        factor: multiplies widths, above 1.
        seed: decides which channels are copied.

    Raises:
        InputError: a factor that is not above 1, or too small to add one channel anywhere; no layer can grow.
    """
    if not 1.0 < factor <= 100.0:
        raise InputError(f"{layout.name}: widths are multiplied by {factor:g}; give a number above 1, at most 100")
    found = ties(layout_graph(layout))
    if len(held(found)) == found.count:
        raise InputError(f"{layout.name}: no layer of it can be widened without changing what it computes")
    times = copies(found, factor, seed=seed)
    if not times:
        raise InputError(f"{layout.name}: a width of {factor:g} times adds no channel to any layer; give a larger one")
    return select(layout, found.take(times))


def copies(found: Ties, factor: float, *, seed: int = 0) -> dict[int, int]:
    """How often each class is taken when layers grow by `factor`; classes that are taken once are left out.

    A layer that shares channels with an earlier one (through a sum) has those that the earlier one has, and its own
    channels make up the rest. No class is copied once more than another of its layer before all are.

    Args:
        found: the classes of a network, with grouped convolutions tied by "index".
        factor: multiplies widths, above 1.
        seed: decides which classes of a layer are copied first.
    """
    times = dict.fromkeys(held(found), 1)
    for op in found.graph.ops:
        if not isinstance(op, g.Conv | g.Linear):
            continue
        classes = found.channels[op.name]
        channels: dict[int, int] = {}
        for number in classes:
            channels[number] = channels.get(number, 0) + 1
        free = [number for number in channels if number not in times]
        if not free:
            continue
        each = math.lcm(*(channels[number] for number in free))  # grouped: one channel of every group at once
        multiple = math.lcm(each, 8 if len(classes) % 8 == 0 else 1)
        wanted = round_channels(len(classes) * factor, multiple=multiple)
        missing = wanted - sum(channels[number] * times.get(number, 1) for number in channels)
        order = _shuffled(free, f"{seed} {op.name}")
        times |= dict.fromkeys(free, 1)
        for turn in range(max(0, missing // each)):
            times[order[turn % len(order)]] += 1
    return {number: count for number, count in times.items() if count > 1}


def held(found: Ties) -> frozenset[int]:
    """Classes that cannot be copied without changing what the network computes."""
    classes = set(found.frozen)
    for op in found.graph.ops:
        if isinstance(op, g.Conv) and (1 < op.groups == op.in_channels < op.out_channels or op.out_channels == 1):
            # A copied input would need a copy of all its outputs behind them; and an only channel makes its layer
            # count as depthwise, which the layer's record does not say.
            classes |= {*found.channels[op.source], *found.channels[op.name]}
    return frozenset(classes)


def _shuffled(numbers: list[int], seed: str) -> list[int]:
    """An order that depends on `seed` alone: Python promises the same numbers for it in every version."""
    draw = Random(seed)
    return [number for _, number in sorted((draw.random(), number) for number in numbers)]
