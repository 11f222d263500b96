"""How many channels every pool keeps, and which: a pure function of importances, costs and the target.

What is lost where a part of something is kept is -log of the share of its importance that stays: the share given up
while that is small, and beyond all bounds as it empties, so nothing becomes a bottleneck because it was cheap.

- Importances that compare across pools (`Importance.across`) are losses of the network, and a pool weighs as much as
  the sum over its classes.
- Others compare within a pool only. There every layer loses by what it reads and by what it puts out: a residual
  stream, which all blocks of a stage read and add to, weighs as much as they, and a branch as much as its part of the
  concatenation.

Two ways to share a target:

- Global: again and again the cut that loses least for the MACs or parameters it frees, until the target is met. Then
  what the last cuts freed too much is given back where it is worth most.
- Per layer: every pool keeps the same share of its channels, the largest with which the target is met.

Of a pool, the most important classes stay; of equally important ones the first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.compress.prune.importance import Importance
from netsmith.compress.prune.pools import Pool, Pools
from netsmith.compress.prune.spending import LABELS, Kept, Measure, Spending
from netsmith.errors import InputError

Spread = Literal["global", "per-layer"]


_LEAST = 1e-12
"""Share that is taken for none, so that logarithms are finite."""


@dataclass(frozen=True)
class _Whole:
    """Something of which a part is kept.

    Attributes:
        parts: pool -> how often each of its classes counts.
        always: what stays anyway, as classes of importance 1.
        weight: of its loss.
    """

    parts: dict[int, int]
    always: float = 0.0
    weight: float = 1.0


def _wholes_of_pools(totals: list[float]) -> list[_Whole]:
    """Every pool by itself, by the sum over its classes, the mean over pools being 1."""
    mean = sum(totals) / len(totals) or 1.0
    return [_Whole({number: 1}, weight=total / mean) for number, total in enumerate(totals)]


def _wholes_of_layers(pools: Pools) -> list[_Whole]:
    """What every layer reads, and what it puts out."""
    shapes = g.shapes(pools.ties.graph)
    found: list[_Whole] = []
    for op in pools.ties.graph.ops:
        if not isinstance(op, g.Conv | g.Linear):
            continue
        alone = isinstance(op, g.Conv) and op.groups == op.in_channels  # it puts out what it reads
        for name in (op.name,) if alone else (op.source, op.name):
            parts = {number: pool.counts[name] for number, pool in enumerate(pools.pools) if name in pool.counts}
            moving = sum(count * pools.pools[number].levels[0] for number, count in parts.items())
            found.append(_Whole(parts, always=float(shapes[name][0] - moving)))
    return found


class Losses:
    """What is lost, by how many of their classes pools keep.

    Args:
        pools: of the network.
        importance: of its classes; every pool has scores.
    """

    def __init__(self, pools: Pools, importance: Importance) -> None:
        self.pools = pools
        self._order: list[NDArray[np.int64]] = []
        self._sums: list[NDArray[np.float64]] = []  # over the most important so many, mean 1
        totals: list[float] = []
        for pool in pools.pools:
            scores = importance.scores[list(pool.classes)]
            assert np.isfinite(scores).all(), f"{pool.name} has scores"
            order = np.argsort(-scores, kind="stable")
            self._order.append(np.array(pool.classes)[order])
            totals.append(float(scores.sum()))
            # Where nothing matters all classes matter alike.
            ranked = scores[order] * (len(scores) / totals[-1]) if totals[-1] > 0 else np.ones(len(scores))
            self._sums.append(np.cumsum(ranked))
        wholes = _wholes_of_pools(totals) if importance.across else _wholes_of_layers(pools)
        self._place = np.array([place for place, whole in enumerate(wholes) for _ in whole.parts], dtype=np.int64)
        self._pool = np.array([pool for whole in wholes for pool in whole.parts], dtype=np.int64)
        self._each = np.array([float(count) for whole in wholes for count in whole.parts.values()])
        self._always = np.array([whole.always for whole in wholes])
        self._weight = np.array([whole.weight for whole in wholes])

    def change(self, kept: Kept, other: Kept) -> NDArray[np.float64]:
        """What more each pool alone loses when it keeps `other` in place of `kept`, float64 [pools]."""
        before, after = self._values(kept), self._values(other)
        there = self._always + np.bincount(
            self._place, weights=self._each * before[self._pool], minlength=len(self._always)
        )
        share = self._each * (after - before)[self._pool] / there[self._place]
        lost = -self._weight[self._place] * np.log1p(np.maximum(share, _LEAST - 1.0))
        return np.asarray(np.bincount(self._pool, weights=lost, minlength=len(self.pools.pools)), dtype=np.float64)

    def _values(self, kept: Kept) -> NDArray[np.float64]:
        return np.array([sums[count - 1] for sums, count in zip(self._sums, kept, strict=True)])

    def drop(self, kept: Kept) -> set[int]:
        """The classes that go."""
        return {int(number) for order, count in zip(self._order, kept, strict=True) for number in order[count:]}


def path(losses: Losses, spending: Spending, *, spread: Spread) -> Iterator[Kept]:
    """Ever smaller networks, from the whole one to the least, by how many classes every pool keeps."""
    if spread == "per-layer":
        yield from _even(losses.pools, spending)
        return
    pools = losses.pools.pools
    kept = losses.pools.most
    fewer = _each(losses.pools, Pool.below, kept)
    while True:
        yield kept.copy()
        freed = -spending.change(kept, fewer)
        frees = freed > 0
        if not frees.any():
            return
        lost = losses.change(kept, fewer)
        cut = int(np.argmin(np.where(frees, lost / np.where(frees, freed, 1), np.inf)))
        kept[cut] = fewer[cut]
        fewer[cut] = pools[cut].below(int(kept[cut]))


def _even(pools: Pools, spending: Spending) -> Iterator[Kept]:
    """Networks whose pools keep the same share, rounded up to a level; those that cost nothing keep all."""
    free = spending.change(pools.most, _each(pools, Pool.below, pools.most)) < 0
    rows = [
        (pool.levels if cut else pool.levels[:1], pool.levels[0]) for pool, cut in zip(pools.pools, free, strict=True)
    ]
    for share in sorted({level / whole for levels, whole in rows for level in levels}, reverse=True):
        yield np.array([min(level for level in levels if level / whole >= share) for levels, whole in rows])


def _each(pools: Pools, level: Callable[[Pool, int], int], kept: Kept) -> Kept:
    return np.array([level(pool, int(count)) for pool, count in zip(pools.pools, kept, strict=True)], dtype=np.int64)


def choose(losses: Losses, spending: Spending, *, most: int, measure: Measure, spread: Spread = "global") -> Kept:
    """What every pool keeps so that the network costs `most` at most.

    Args:
        losses: of its pools.
        spending: of the same, in what `most` counts.
        most: the target.
        measure: what it counts, for the message.
        spread: how pools share it, see the module.

    Returns:
        int64 [pools].

    Raises:
        InputError: no choice costs so little; the message says what the least is.
    """
    refuse_unreachable(losses.pools, spending, most=most, measure=measure)
    kept = next(each for each in path(losses, spending, spread=spread) if spending.total(each) <= most)
    return kept if spread == "per-layer" else _given_back(losses, spending, kept, most)


def refuse_unreachable(pools: Pools, spending: Spending, *, most: int, measure: Measure) -> None:
    """Raise InputError where even the least of every pool costs more than `most`."""
    least, whole = spending.total(pools.least), spending.total(pools.most)
    if least > most:
        raise InputError(
            f"no pruning brings {pools.layout.name} to {most:,} {LABELS[measure]}; the least is {least:,}, "
            f"{least / whole:.3f} of its {whole:,}; ask for no less, or give a smaller --round-to or --min-width"
        )


def _given_back(losses: Losses, spending: Spending, kept: Kept, most: int) -> Kept:
    """Levels back up, the most valuable for their cost first, as long as the target holds."""
    pools = losses.pools
    while True:
        more = _each(pools, Pool.above, kept)
        extra = spending.change(kept, more)
        gained = -losses.change(kept, more)
        fits = (extra > 0) & (spending.total(kept) + extra <= most)
        if not fits.any():
            return kept
        best = int(np.argmax(np.where(fits, gained / np.where(fits, extra, 1), -np.inf)))
        kept = kept.copy()
        kept[best] = more[best]
