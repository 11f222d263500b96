"""Work on a few pictures at a time, so that their floats stay in the processor's cache: several times faster than on
a whole batch of large ones."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2**16
"""Pixels that are worked on at once."""


def blocks(members: NDArray[np.int64], *, size: int) -> Iterator[NDArray[np.int64]]:
    """The numbers of pictures of `size` pixels a side, int64 [M], a few at a time."""
    count = max(1, BLOCK // size**2)
    for first in range(0, len(members), count):
        yield members[first : first + count]


def change_some(
    change: Callable[[Tensor, Tensor], Tensor], images: Tensor, members: NDArray[np.int64], amounts: Tensor
) -> None:
    """Change some pictures of a batch in place.

    Args:
        change: of n pictures uint8 [n,3,R,R] by n amounts, to the same.
        images: uint8 [B,3,R,R], contiguous.
        members: int64 [M], which of them.
        amounts: [B,...], of every picture.
    """
    pixels = images.numpy()  # numpy picks and puts back whole pictures by memory copies; torch goes pixel by pixel
    for block in blocks(members, size=images.shape[-1]):
        pixels[block] = change(torch.from_numpy(pixels[block]), amounts[block]).numpy()
