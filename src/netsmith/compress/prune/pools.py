"""Pools: the channels among which pruning chooses.

`netsmith.arch.ties` says which channels can only leave together; such a class is the unit of pruning. Classes that
stand in the same maps, equally often, cost the same and replace each other: they are a pool, from which so many are
kept. A residual stream is one pool, a zero-padded one has a pool for every stage at which channels join it, the inside
of a block is one, a branch before a concatenation is one.

Deliberate choices: grouped convolutions keep their groups and lose the same positions of each, so every group loses
equally many. A pool keeps all its channels, or a number that rounds as asked for: widths that were uneven before may
stay so, and no pool is ever empty, which keeps every layer of the network.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.ties import Ties, ties
from netsmith.errors import InputError

ROUND_TO = 8
"""What kept widths are multiples of: what vector units of CPUs and tensor cores of GPUs like."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Classes of which some are kept.

    Attributes:
        name: the first layer that puts them out.
        classes: numbers as of `Ties`, ascending.
        levels: how many may be kept, descending, the first being all of them, the last at least 1.
        counts: operation -> channels that each class has in its output.
    """

    name: str
    classes: tuple[int, ...]
    levels: tuple[int, ...]
    counts: dict[str, int]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {level: place for place, level in enumerate(self.levels)}

    def below(self, kept: int) -> int:
        """The level below, or the same where there is none."""
        return self.levels[min(self._places[kept] + 1, len(self.levels) - 1)]

    def above(self, kept: int) -> int:
        """The level above, or the same where there is none."""
        return self.levels[max(self._places[kept] - 1, 0)]


@dataclass(frozen=True, kw_only=True)
class Pools:
    """All that can be pruned in a network.

    Attributes:
        layout: the network.
        ties: its classes of channels.
        pools: in the order in which the network computes them.
    """

    layout: Layout
    ties: Ties
    pools: tuple[Pool, ...]

    @cached_property
    def pool_of(self) -> NDArray[np.int64]:
        """The pool of every class, int64 [classes]; -1 for those that always stay."""
        found = np.full(self.ties.count, -1, dtype=np.int64)
        for number, pool in enumerate(self.pools):
            found[list(pool.classes)] = number
        return found

    @property
    def most(self) -> NDArray[np.int64]:
        """Classes that every pool has, int64 [pools]."""
        return np.array([pool.levels[0] for pool in self.pools], dtype=np.int64)

    @property
    def least(self) -> NDArray[np.int64]:
        """The fewest that every pool may keep, int64 [pools]."""
        return np.array([pool.levels[-1] for pool in self.pools], dtype=np.int64)

    def restricted(self, frozen: NDArray[np.bool_]) -> "Pools":
        """The same without the pools that are `frozen`, bool [pools], which keep all they have."""
        kept = tuple(pool for pool, stays in zip(self.pools, frozen, strict=True) if not stays)
        return Pools(layout=self.layout, ties=self.ties, pools=kept)


def find_pools(layout: Layout, *, round_to: int = ROUND_TO, min_width: int = 1) -> Pools:
    """The pools of a network.

    Args:
        layout: the network.
        round_to: the number of channels that a pool keeps in every layer is a multiple of this, or all of them; at
            least 1.
        min_width: channels that a pool keeps in every layer, at least, where it has as many; at least 1.

    Raises:
        InputError: a number below 1.
    """
    for flag, value in (("--round-to", round_to), ("--min-width", min_width)):
        if value < 1:
            raise InputError(f"{flag} is {value}; give a number of channels, at least 1")
    graph = layout_graph(layout)
    found = ties(graph)
    counts: list[dict[str, int]] = [{} for _ in range(found.count)]
    for name, classes in found.channels.items():
        for number, times in Counter(classes).items():
            counts[number][name] = times
    members: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for number in range(found.count):
        if number not in found.frozen:
            members.setdefault(tuple(counts[number].items()), []).append(number)
    layers = {op.name for op in graph.ops if isinstance(op, g.Conv | g.Linear)}
    pools: list[Pool] = []
    for signature, classes in members.items():
        where = dict(signature)
        widths = [times for name, times in signature if name in layers]
        pools.append(
            Pool(
                name=next((name for name in where if name in layers), next(iter(where))),
                classes=tuple(classes),
                levels=_levels(len(classes), widths, round_to=round_to, min_width=min_width),
                counts=where,
            )
        )
    return Pools(layout=layout, ties=found, pools=tuple(pools))


def _levels(count: int, widths: list[int], *, round_to: int, min_width: int) -> tuple[int, ...]:
    """Numbers of classes that may be kept, where each class has so many channels in the layers that put it out."""
    step = math.lcm(*(round_to // math.gcd(round_to, times) for times in widths))
    fewest = -(-max(-(-min_width // times) for times in widths or [1]) // step) * step
    rounded = range((count - 1) // step * step, fewest - 1, -step)
    return (count, *rounded)
