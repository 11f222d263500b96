"""Work on a few pictures of a batch: those that drew an operation, and on a CPU so few at a time that their floats stay
in the processor's cache, which is several times faster than a whole batch of large ones."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsmith.train.devices import send

BLOCK = 2**16
"""Pixels that a CPU works on at once."""
LARGE_BLOCK = 2**24
"""Pixels that a GPU works on at once, for the sake of its memory."""


def blocks(members: NDArray[np.int64], *, size: int, at_once: int = BLOCK) -> Iterator[NDArray[np.int64]]:
    """The numbers of pictures of `size` pixels a side, int64 [M], about `at_once` pixels at a time."""
    count = max(1, at_once // size**2)
    for first in range(0, len(members), count):
        yield members[first : first + count]


def in_memory(images: Tensor) -> bool:
    """Whether numpy reaches the pictures, because they are not on a GPU."""
    return images.is_cpu


def change_some(
    change: Callable[[Tensor, Tensor], Tensor], images: Tensor, members: NDArray[np.int64], amounts: Tensor
) -> None:
    """Change some pictures of a batch in place.

    Args:
        change: of n pictures uint8 [n,3,R,R] by n amounts, to the same.
        images: uint8 [B,3,R,R], contiguous.
        members: int64 [M], which of them.
        amounts: [B,...] on the CPU, of every picture.
    """
    if in_memory(images):
        pixels = images.numpy()  # numpy picks and puts back whole pictures by memory copies; torch goes pixel by pixel
        for block in blocks(members, size=images.shape[-1]):
            pixels[block] = change(torch.from_numpy(pixels[block]), amounts[block]).numpy()
        return
    for block in blocks(members, size=images.shape[-1], at_once=LARGE_BLOCK):
        chosen = send(torch.from_numpy(block), images.device)
        some = send(amounts[block].float(), images.device)
        images.index_copy_(0, chosen, change(images.index_select(0, chosen), some))
