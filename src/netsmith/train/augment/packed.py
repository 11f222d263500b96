"""Framing of pictures of many sizes that lie on a device, a whole batch at a time.

Choices made on purpose:

- The same boxes, translations and flips as `framing` carries out on a CPU, picture by picture. Where a box is as large
  as the result, levels are copied, and come out the same; where it is resized they agree to one level: the CPU's
  kernels weigh in 16-bit integers. Both round after each of the two directions.
- Resizing is two products with matrices of weights, one per picture and direction. A GPU multiplies the zeros in them
  faster than it would look up which numbers are none.
- Translation, flip and border are one look-up: every pixel of the result says where it comes from.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsmith.train.augment.blocks import blocks
from netsmith.train.augment.framing import Colour, Moves
from netsmith.train.devices import send

PIXELS_AT_ONCE = 2**24
"""Of crops that are resized together: their floats take 12 bytes each."""


@dataclass(frozen=True)
class Packed:
    """B pictures among others.

    Attributes:
        pixels: uint8 [P,3] on any device, pictures one after the other, row by row.
        starts: int64 [B], where each of the B begins.
        shapes: int64 [B,2], height and width of each.
    """

    pixels: Tensor
    starts: NDArray[np.int64]
    shapes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


def frame_packed(
    sources: Packed,
    moves: Moves,
    *,
    size: int,
    mode: str,
    border: Colour,
    layout: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Carry out `moves`; arguments and result as of `framing.frame`, on the device of the pictures."""
    widths = sources.shapes[:, 1]
    corners = sources.starts + moves.top * widths + moves.left
    pixels = sources.pixels
    shifted = bool(moves.down.any() or moves.right.any())
    if ((moves.height != size) | (moves.width != size)).any():
        boxes = np.stack([corners, widths, moves.height, moves.width], axis=1)
        most = moves.height.max() * moves.width.max()
        parts = blocks(np.arange(len(sources)), size=int(most**0.5) + 1, at_once=PIXELS_AT_ONCE)
        resized = torch.cat([_resized(pixels, boxes[part], size=size, mode=mode) for part in parts])
        if not shifted and not moves.flip.any():
            return resized.contiguous(memory_format=layout)
        pixels = resized.permute(0, 2, 3, 1).reshape(-1, 3)
        corners, widths = size**2 * np.arange(len(sources)), np.full(len(sources), size)
    places = np.stack([corners, widths, moves.down, moves.right, moves.flip.astype(np.int64)])
    moved = _moved(pixels, places, size=size, border=border if shifted else None)
    return moved.permute(0, 3, 1, 2).contiguous(memory_format=layout)


def _moved(pixels: Tensor, places: NDArray[np.int64], *, size: int, border: Colour | None) -> Tensor:
    """uint8 [B,R,R,3]: boxes of R x R pixels, moved and mirrored.

    Args:
        pixels: uint8 [P,3].
        places: int64 [5,B], see `frame_packed`.
        size: R.
        border: of uncovered pixels; None where there are none.
    """
    corner, width, down, right, flip = send(torch.from_numpy(places), pixels.device)[:, :, None, None]
    line = torch.arange(size, device=pixels.device)
    rows = line[:, None] - down
    columns = torch.where(flip > 0, size - 1 - line, line) - right
    if border is None:
        return _look_up(pixels, corner + rows * width + columns)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    found = _look_up(pixels, corner + rows.clamp(0, size - 1) * width + columns.clamp(0, size - 1))
    return torch.where(inside[..., None], found, levels_of(border, pixels.device))


def _look_up(pixels: Tensor, places: Tensor) -> Tensor:
    return pixels.index_select(0, places.flatten()).view(*places.shape, 3)


def _resized(pixels: Tensor, boxes: NDArray[np.int64], *, size: int, mode: str) -> Tensor:
    """uint8 [B,3,R,R]: boxes of the pixels resized with antialiasing, as torch does it.

    Args:
        pixels: uint8 [P,3].
        boxes: int64 [B,4]: first pixel, width of the picture, height and width of the box.
        size: R.
        mode: "bilinear", "bicubic" or "nearest-exact".
    """
    tallest, widest = boxes[:, 2].max(), boxes[:, 3].max()
    corner, width, heights, widths = send(torch.from_numpy(np.ascontiguousarray(boxes.T)), pixels.device)
    line = torch.arange(int(max(tallest, widest)), device=pixels.device)
    rows = torch.minimum(line[: int(tallest)], heights[:, None] - 1)  # what lies beyond a smaller box weighs nothing
    columns = torch.minimum(line[: int(widest)], widths[:, None] - 1)
    places = corner[:, None, None] + rows[:, :, None] * width[:, None, None] + columns[:, None, :]
    crops = _look_up(pixels, places).permute(0, 3, 1, 2).float()  # [B,3,tallest,widest]
    across = _weights(widths, columns.shape[1], size=size, mode=mode)
    down = _weights(heights, rows.shape[1], size=size, mode=mode)
    narrow = torch.bmm(crops.flatten(1, 2), across.transpose(1, 2)).round_().clamp_(0.0, 255.0)
    narrow = narrow.view(len(boxes), 3, rows.shape[1], size)
    return torch.matmul(down[:, None], narrow).round_().clamp_(0.0, 255.0).to(torch.uint8)


def _weights(lengths: Tensor, longest: int, *, size: int, mode: str) -> Tensor:
    """float32 [B,R,longest]: what each of `lengths` pixels counts for each of R.

    Args:
        lengths: int64 [B], at most `longest`.
        longest: columns of the matrices.
        size: R.
        mode: as torch names it.
    """
    scale = (lengths.float() / size)[:, None, None]
    centre = (torch.arange(size, device=lengths.device) + 0.5)[:, None] * scale  # [B,R,1]
    place = torch.arange(longest, device=lengths.device)
    if mode == "nearest-exact":
        return (place == centre.floor().clamp(max=lengths[:, None, None] - 1)).float()
    distance = ((place + 0.5 - centre) / scale.clamp(min=1.0)).abs()
    weights = _cubic(distance) if mode == "bicubic" else (1.0 - distance).clamp(min=0.0)
    weights = weights * (place < lengths[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, which Pillow and torch resize with."""
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((2.5 - 0.5 * distance) * distance - 4.0) * distance + 2.0
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, torch.zeros_like(far)))


@lru_cache(maxsize=64)
def levels_of(colour: Colour, device: torch.device) -> Tensor:
    """uint8 [3] on a device; kept there, because sending a number makes Python wait."""
    return torch.tensor(colour, dtype=torch.uint8, device=device)
