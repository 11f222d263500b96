"""How many channels every pool keeps, and which: a pure function of importances, costs and the target.

What a pool loses is -log of the share of its importance that it keeps: the share it gives up while that is small, and
beyond all bounds as it empties, so no layer becomes a bottleneck because another is cheap. Importances that compare
across pools (`Importance.across`) weigh pools by their sums; others let all pools weigh the same.

- Global: again and again the cut that loses least for the MACs or parameters it frees, until the target is met. Then
  what the last cuts freed too much is given back where it is worth most.
- Per layer: every pool keeps the same share of its channels, the largest with which the target is met.

Of a pool, the most important classes stay; of equally important ones the first.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.compress.prune.importance import Importance
from netsmith.compress.prune.pools import Pool, Pools
from netsmith.compress.prune.spending import LABELS, Kept, Measure, Spending
from netsmith.errors import InputError

Spread = Literal["global", "per-layer"]


class Losses:
    """What pools lose, by how many of their classes they keep.

    Args:
        pools: of the network.
        importance: of its classes; every pool has scores.
    """

    def __init__(self, pools: Pools, importance: Importance) -> None:
        self.pools = pools
        self._order: list[NDArray[np.int64]] = []
        self._kept: list[NDArray[np.float64]] = []
        sums: list[float] = []
        for pool in pools.pools:
            scores = importance.scores[list(pool.classes)]
            assert np.isfinite(scores).all(), f"{pool.name} has scores"
            order = np.argsort(-scores, kind="stable")
            self._order.append(np.array(pool.classes)[order])
            sums.append(float(scores.sum()))
            # Where nothing matters all classes matter alike.
            self._kept.append(np.cumsum(scores[order] if sums[-1] > 0 else np.ones(len(scores))))
        weights = np.array(sums) if importance.across else np.ones(len(sums))
        self.weights = weights / weights.mean() if weights.any() else np.ones(len(sums))

    def of(self, pool: int, kept: int) -> float:
        """What one pool has lost that keeps so many."""
        sums = self._kept[pool]
        return float(-self.weights[pool] * np.log(min(sums[kept - 1] / sums[-1], 1.0)))

    def at(self, kept: Kept) -> NDArray[np.float64]:
        """What every pool has lost, float64 [pools]."""
        return np.array([self.of(pool, int(count)) for pool, count in enumerate(kept)])

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
    lost, then = losses.at(kept), losses.at(fewer)
    while True:
        yield kept.copy()
        freed = -spending.change(kept, fewer)
        frees = freed > 0
        if not frees.any():
            return
        cut = int(np.argmin(np.where(frees, (then - lost) / np.where(frees, freed, 1), np.inf)))
        kept[cut], lost[cut] = fewer[cut], then[cut]
        fewer[cut] = pools[cut].below(int(kept[cut]))
        then[cut] = losses.of(cut, int(fewer[cut]))


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
        gained = losses.at(kept) - losses.at(more)
        fits = (extra > 0) & (spending.total(kept) + extra <= most)
        if not fits.any():
            return kept
        best = int(np.argmax(np.where(fits, gained / np.where(fits, extra, 1), -np.inf)))
        kept = kept.copy()
        kept[best] = more[best]
