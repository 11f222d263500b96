"""Single weights set to zero, for study: unstructured magnitude pruning (Han et al. 2015, arXiv 1506.02626).

The tensors keep their shapes, so the file, the memory and the time of a dense runtime stay what they were; only what
the accuracy does is learned.
"""

import numpy as np
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.compress.prune.importance import Weights
from netsmith.errors import InputError

Masks = dict[str, NDArray[np.bool_]]
"""Weights of layers by name -> whether each single one stays, in the weight's shape."""


def magnitude_masks(layout: Layout, weights: Weights, *, sparsity: float, per_layer: bool = False) -> Masks:
    """Which weights of convolutions and linear layers stay when the smallest go.

    Args:
        layout: the network.
        weights: its `state_dict` as numpy arrays.
        sparsity: share of the weights that go, 0 < sparsity < 1, to the nearest whole number of them.
        per_layer: that share of every layer, or of all weights together, of which some layers then lose more.

    Returns:
        Of every layer at least the largest weight stays; of equal ones the last.

    Raises:
        InputError: a sparsity out of range.
    """
    if not 0 < sparsity < 1:
        raise InputError(f"--unstructured is {sparsity:g}; give a share of the weights above 0 and below 1")
    names = [f"{op.name}.weight" for op in layout_graph(layout).ops if isinstance(op, g.Conv | g.Linear)]
    sizes = [np.abs(weights[name]).reshape(-1) for name in names]
    for size in sizes:
        size[int(np.argmax(size))] = np.inf
    stays = [_largest(size, sparsity) for size in sizes] if per_layer else _split(sizes, sparsity)
    return {name: stay.reshape(weights[name].shape) for name, stay in zip(names, stays, strict=True)}


def _split(sizes: list[NDArray[np.float32]], sparsity: float) -> list[NDArray[np.bool_]]:
    together = _largest(np.concatenate(sizes), sparsity)
    return np.split(together, np.cumsum([len(size) for size in sizes])[:-1])


def _largest(sizes: NDArray[np.float32], sparsity: float) -> NDArray[np.bool_]:
    """All but the smallest share."""
    gone = round(sparsity * len(sizes))
    if gone == 0:
        return np.ones(len(sizes), dtype=np.bool_)
    edge = np.partition(sizes, gone - 1)[gone - 1]
    stays = sizes > edge
    even = np.flatnonzero(sizes == edge)
    stays[even[gone - int((sizes < edge).sum()) :]] = True
    return stays | np.isinf(sizes)


def zeros(masks: Masks) -> float:
    """Share of the weights that masks set to zero."""
    return 1.0 - sum(int(mask.sum()) for mask in masks.values()) / sum(mask.size for mask in masks.values())
