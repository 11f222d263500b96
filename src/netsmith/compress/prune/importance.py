"""How much every class of channels matters: what pruning ranks by.

- `norms`: L1 (Li et al. 2017, arXiv 1608.08710) or L2 norms of the weights as they ship, batch norm folded into the
  convolution that it follows. A class has weights in several layers, those that put its channels out and those that
  read them (Fang et al. 2023, DepGraph, arXiv 2301.12900): in each, its norm is divided by the mean over its pool, so
  layers count alike however large their weights are, and the mean over layers is its importance.
- `norm_scales`: the same of the scales of batch norm (Liu et al. 2017, network slimming, arXiv 1708.06519).
- `Effects`: what leaving a channel out does to the loss of single training pictures, to first order, by the derivative
  of the loss by a factor on the channel wherever it is read. Its mean absolute value is `taylor` (Molchanov et al.
  2017, arXiv 1611.06440), half its mean square `hessian`: the diagonal of the Fisher information stands for the
  Hessian (Theis et al. 2018, Fisher pruning, arXiv 1801.05787).

Norms say nothing about one pool against another, losses do; `Importance.across` keeps the two apart, and
`netsmith.compress.prune.choice` heeds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.compress.prune.kinds import FROM_PICTURES, Kind
from netsmith.compress.prune.pools import Pools
from netsmith.errors import InputError

Array = NDArray[Any]
Weights = Mapping[str, Array]
"""Entries of a network's `state_dict`."""


@dataclass(frozen=True)
class Importance:
    """Of every class of channels.

    Attributes:
        scores: float64 [classes], at least 0; not a number where nothing is known, which keeps the class.
        across: whether scores of different pools compare, as losses do, or only those within one.
    """

    scores: NDArray[np.float64]
    across: bool

    def silent(self, pools: Pools) -> NDArray[np.bool_]:
        """Pools of which nothing is known, bool [pools]."""
        return np.array([bool(np.isnan(self.scores[list(pool.classes)]).any()) for pool in pools.pools])


def norms(pools: Pools, weights: Weights, *, order: Literal[1, 2]) -> Importance:
    """Norms of the weights of convolutions and linear layers, see the module.

    Args:
        pools: of the network.
        weights: its `state_dict` as numpy arrays.
        order: 1 for sums of absolute values, 2 for roots of sums of squares.
    """
    channels = pools.ties.channels
    folded = _folded(pools.ties.graph, weights)
    entries: list[tuple[tuple[int, ...], Array]] = []
    for op in pools.ties.graph.ops:
        if not isinstance(op, g.Conv | g.Linear):
            continue
        groups = op.groups if isinstance(op, g.Conv) else 1
        weight = np.abs(weights[f"{op.name}.weight"].astype(np.float64)) * _rows(folded.get(op.name), op, weights)
        rows, columns = weight.shape[0] // groups, weight.shape[1]
        mass = (weight**order).reshape(groups, rows, columns, -1).sum(axis=3)
        entries.append((channels[op.name], mass.sum(axis=2).reshape(-1)))
        if columns > 1 or groups == 1:  # else a channel's one column is its own rows
            entries.append((channels[op.source], mass.sum(axis=1).reshape(-1)))
    return _relative(pools, entries, root=order == 2)


def norm_scales(pools: Pools, weights: Weights) -> Importance:
    """Absolute scales of batch norms; classes without any have no score.

    Raises:
        InputError: the network has no batch norm.
    """
    graph = pools.ties.graph
    entries = [
        (pools.ties.channels[op.name], np.abs(weights[f"{op.name}.weight"].astype(np.float64)))
        for op in graph.ops
        if isinstance(op, g.Norm)
    ]
    if not entries:
        raise InputError(
            f"{pools.layout.name} has no batch norm, so --importance bn has nothing to rank by; "
            f"give another, such as --importance l2"
        )
    return _relative(pools, entries, root=False)


def _folded(graph: g.Graph, weights: Weights) -> dict[str, Array]:
    """Convolutions that nothing but a norm reads -> what that multiplies each of their outputs by."""
    readers: dict[str, list[g.Op]] = {}
    for op in graph.ops:
        for name in g.sources(op):
            readers.setdefault(name, []).append(op)
    found: dict[str, Array] = {}
    for name, ops in readers.items():
        match ops:
            case [g.Norm() as norm]:
                variance = weights[f"{norm.name}.running_var"].astype(np.float64)
                scale = weights[f"{norm.name}.weight"].astype(np.float64)
                found[name] = np.abs(scale) / np.sqrt(variance + norm.eps)
            case _:
                continue
    return found


def _rows(factor: Array | None, op: g.Conv | g.Linear, weights: Weights) -> Array:
    """A factor per output in the shape that multiplies the layer's weight."""
    shape = (-1, *(1,) * (weights[f"{op.name}.weight"].ndim - 1))
    return np.ones(1) if factor is None else factor.reshape(shape)


def _relative(pools: Pools, entries: list[tuple[tuple[int, ...], Array]], *, root: bool) -> Importance:
    """The mean over layers of what classes have there, each as a multiple of the mean over the pool."""
    count, pool_of = pools.ties.count, pools.pool_of
    total, layers = np.zeros(count), np.zeros(count)
    movable = np.flatnonzero(pool_of >= 0)
    sizes = np.bincount(pool_of[movable], minlength=len(pools.pools))
    for classes, mass in entries:
        mine = np.bincount(classes, weights=mass, minlength=count)
        mine = np.sqrt(mine) if root else mine
        here = movable[np.isin(movable, classes)]
        sums = np.bincount(pool_of[here], weights=mine[here], minlength=len(pools.pools))
        mean = (sums / np.maximum(sizes, 1))[pool_of[here]]
        says = mean > 0  # a layer of zeros ranks nothing
        total[here[says]] += mine[here[says]] / mean[says]
        layers[here] += 1
    with np.errstate(invalid="ignore"):
        return Importance(total / layers, across=False)


@dataclass(frozen=True)
class Effects:
    """What leaving out each class of channels does to the loss, added up over pictures.

    Attributes:
        pools: of the network.
        pictures: that were asked.
        absolute, squared: float64 [classes], sums of what is named so.
    """

    pools: Pools
    pictures: int
    absolute: NDArray[np.float64]
    squared: NDArray[np.float64]

    @classmethod
    def none(cls, pools: Pools) -> "Effects":
        """Of no pictures yet."""
        return cls(pools, 0, np.zeros(pools.ties.count), np.zeros(pools.ties.count))

    def seen(self, read: Weights) -> "Effects":
        """With more pictures.

        Args:
            read: of each layer, float [N, channels that it reads]: the derivative of each picture's loss by a factor on
                the channel as this layer reads it.
        """
        pictures = len(next(iter(read.values())))
        change = np.zeros((self.pools.ties.count, pictures))
        sources = {op.name: op.source for op in self.pools.ties.graph.ops if isinstance(op, g.Conv | g.Linear)}
        for name, derivative in read.items():
            np.add.at(change, list(self.pools.ties.channels[sources[name]]), derivative.T)
        return replace(
            self,
            pictures=self.pictures + pictures,
            absolute=self.absolute + np.abs(change).sum(axis=1),
            squared=self.squared + (change**2).sum(axis=1),
        )

    def importance(self, kind: Kind) -> Importance:
        """`taylor` or `hessian`, see the module."""
        assert kind in FROM_PICTURES, kind
        assert self.pictures > 0, "some pictures were asked"
        sums = self.absolute if kind == "taylor" else self.squared / 2
        return Importance(sums / self.pictures, across=True)


def layers_that_read(pools: Pools) -> tuple[str, ...]:
    """Layers whose inputs `Effects` wants to know about: all that mix channels, of those the logits depend on."""
    ops = (op for op in g.needed(pools.ties.graph) if isinstance(op, g.Conv | g.Linear))
    return tuple(op.name for op in ops if isinstance(op, g.Linear) or op.groups == 1 or op.in_channels != op.groups)
