"""Which picture comes when: every picture once per epoch, or every class equally often.

Both orders are functions of (seed, epoch), so training goes on at any step and batches do not depend on workers.

- **Plain**: each epoch is a fresh permutation of the pictures.
- **Balanced**: the places of all epochs are one stream, cut into rounds of one place per class in a fresh order. A
  class fills its places with its own pictures, again and again in a fresh order. So in any C consecutive places of a
  round every class comes exactly once (not only in expectation, as with weighted drawing), and no picture of a class
  comes a second time before all others of its class came once. An epoch keeps its length, the number of pictures: it
  repeats those of rare classes and leaves out some of common ones, which later epochs show.
"""

import numpy as np
from numpy.typing import NDArray

from netsmith.train.draws import permutation, permutations, stream_key


def plain_order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A fresh permutation of `count` pictures, int64 [count]."""
    return permutation(stream_key(seed, "order", epoch), count)


def balanced_order(labels: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The pictures of an epoch in which every class comes equally often.

    Args:
        labels: int64 [N], at least one.
        seed: of the run.
        epoch: pass over the data.

    Returns:
        int64 [N], numbers of pictures; over all epochs each class has every C-th place, give or take one.
    """
    count = len(labels)
    by_class = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    classes = len(sizes)
    first, last = epoch * count // classes, -(-(epoch + 1) * count // classes)  # rounds that the epoch touches
    rounds = np.arange(first, last)
    turn = permutations(stream_key(seed, "class order", 0), rounds, classes)  # [rounds, C]: who has which place
    shown = np.empty((len(rounds), classes), dtype=np.int64)
    for number, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
        passes = np.arange(first // size, -(-last // size))  # through the class, one picture per round
        members = permutations(stream_key(seed, "class pictures", number), passes, size).reshape(-1)
        shown[:, number] = by_class[start + members[rounds - passes[0] * size]]
    places = np.take_along_axis(shown, turn, axis=1).reshape(-1)
    skipped = epoch * count - first * classes
    return places[skipped : skipped + count]
