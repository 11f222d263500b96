"""What pictures of classes and tags of very unequal size count for in a loss, so that all count alike."""

import numpy as np
from numpy.typing import NDArray

from netsmith.errors import InputError

MOST_POSITIVE_WEIGHT = 20.0
"""Of a tag's positive over its negatives: where one of thousands has it, a single picture would make the update."""


def balanced_weights(labels: NDArray[np.int64], *, classes: int | None = None) -> list[float]:
    """What each class's pictures count for so that all classes count alike and a picture 1 on average.

    Args:
        labels: int64 [N] of the training pictures.
        classes: C, all of which must have pictures; as many as the labels name when None.

    Returns:
        C weights, N / (C * pictures of the class).

    Raises:
        InputError: a class has no picture.
    """
    counts = np.bincount(labels, minlength=classes or 0)
    if not counts.all():
        raise InputError(
            f"--class-balance loss weighs classes by how many pictures they have to train on, and class number "
            f"{int(np.argmin(counts))} has none; add some, or leave --class-balance out"
        )
    return (len(labels) / (len(counts) * counts)).tolist()


def positive_weights(labels: NDArray[np.bool_]) -> list[list[float]]:
    """What each tag's negatives and positives count for so that both count alike and a picture 1 on average.

    A positive counts at most `MOST_POSITIVE_WEIGHT` negatives.

    Args:
        labels: bool [N,C] of the training pictures.

    Returns:
        Two rows of C weights: of negatives, of positives.
    """
    positives = labels.sum(axis=0)
    ratio = np.minimum((len(labels) - positives) / np.maximum(positives, 1), MOST_POSITIVE_WEIGHT)
    ratio = np.where((positives == 0) | (positives == len(labels)), 1.0, ratio)
    negative = len(labels) / (ratio * positives + len(labels) - positives)
    return [negative.tolist(), (ratio * negative).tolist()]
