"""Iterative stratification: pictures with several tags dealt out so that every side gets its share of every tag.

Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-label Data, algorithm 1: the tag with the fewest
pictures left is dealt out first, each of its pictures to the side that still wants most of that tag, then most
pictures. Rare tags are so spread before frequent ones leave no choice. Having no tag counts as a tag.

Made deterministic: pictures come in the order given and ties go to the earlier side. One thing is added: a tag that
was left without a picture on the first side, to train on, takes one back.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratified(tags: Sequence[tuple[int, ...]], sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Deal pictures out to sides.

    Args:
        tags: of each of N groups of pictures, all of which stay together.
        sizes: pictures of each group.
        shares: of the pictures for each side, the first the one that every tag must have; sum 1.

    Returns:
        The side of each group. Every tag has a group on the first side; another side has none only where all pictures
        are needed for that.
    """
    classes = 1 + max((label for row in tags for label in row), default=-1)
    tags = [row or (classes,) for row in tags]
    members: list[list[int]] = [[] for _ in range(classes + 1)]
    for group, row in enumerate(tags):
        for label in row:
            members[label].append(group)
    left = np.array([sum(sizes[group] for group in rows) for rows in members], np.int64)
    wanted = np.outer(shares, left)  # pictures with each tag that each side still wants, [sides, C]
    total = np.array(shares) * sum(sizes)
    sides = [-1] * len(tags)

    def put(group: int, side: int) -> None:
        sides[group] = side
        total[side] -= sizes[group]
        for label in tags[group]:
            wanted[side, label] -= sizes[group]
            left[label] -= sizes[group]

    while (open_tags := np.flatnonzero(left > 0)).size:
        rarest = int(open_tags[left[open_tags].argmin()])
        for group in members[rarest]:
            if sides[group] < 0:
                put(group, _neediest(wanted[:, rarest], total))
    for rows in members:
        if rows and all(sides[group] for group in rows):
            sides[rows[0]] = 0
    _fill_empty(sides, tags, count=len(shares))
    return sides


def _neediest(first: NDArray[np.float64], then: NDArray[np.float64]) -> int:
    """The side with the largest need, by the second where the first leaves several."""
    best = np.flatnonzero(first >= first.max() - 1e-9)
    return int(best[then[best].argmax()])


def _fill_empty(sides: list[int], tags: Sequence[tuple[int, ...]], *, count: int) -> None:
    """Give every side a group: one whose tags the first side has elsewhere too, else any that it can spare."""
    for side in range(1, count):
        if side in sides:
            continue
        first = [group for group, at in enumerate(sides) if at == 0]
        spare = [g for g in first if all(any(t in tags[o] for o in first if o != g) for t in tags[g])]
        if spare:
            sides[spare[-1]] = side
