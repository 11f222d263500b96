"""Framing of training pictures: random resized crop or evaluation's centre, translation with a border (pad-crop,
shift), flip.

Choices made on purpose:

- The border that a translation uncovers has the mean colour, which is zero after normalisation. So the padding looks
  like the zero padding of the convolutions, and stays right when the mean is folded into the first convolution;
  reflection would show the network mirrored objects that deployment never does.
- A crop is a box of whole pixels resized with antialiasing, as torchvision's RandomResizedCrop does on tensors; the
  box is drawn as there.
- Without a random crop the picture is framed as evaluation frames it (`Preprocess.resize` and `crop`).

Source: Szegedy et al. 2015 (crops of random area and aspect), Lee et al. 2015 / He et al. 2016 (pad and crop).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from netsmith.train.augment.blocks import blocks

CROP_TRIES = 10  # as torchvision: then the centre
SMALL = 64  # longer side up to which pictures of one shape are resized together

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Moves:
    """What is done to each of B pictures: a box of the source, resized to R x R, moved by an offset, mirrored.

    Attributes:
        top, left, height, width: int64 [B], the box in source pixels.
        down, right: int64 [B], translation after the resize in pixels of the result, may be negative.
        flip: bool [B], mirrored left to right after that.
    """

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]
    down: NDArray[np.int64]
    right: NDArray[np.int64]
    flip: NDArray[np.bool_]


def frame(
    sources: Sequence[NDArray[np.uint8]],
    moves: Moves,
    *,
    size: int,
    mode: str,
    border: Colour,
    layout: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Carry out `moves`.

    Args:
        sources: B pictures uint8 [H,W,3].
        moves: for the same B pictures.
        size: R, pixels.
        mode: interpolation, as torch names it.
        border: of uncovered pixels.
        layout: of the result in memory.

    Returns:
        uint8 [B,3,R,R].
    """
    if _alike(sources, moves, size):
        sources, moves = _resize_alike(sources, moves, size, mode)
    out = torch.empty((len(sources), 3, size, size), dtype=torch.uint8, memory_format=layout)
    targets = out.permute(0, 2, 3, 1).numpy()
    canvas = np.full((size, size, 3), border, dtype=np.uint8)
    columns = (moves.top, moves.left, moves.height, moves.width, moves.down, moves.right)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for index, (source, (top, left, height, width, down, right)) in enumerate(zip(sources, rows, strict=True)):
        box = source[top : top + height, left : left + width]
        if (height, width) != (size, size):
            resized = _resize(box, size, mode, layout)
            if not down and not right:
                out[index] = resized
                continue
            box = resized.permute(1, 2, 0).numpy()
        if down or right:
            _place(targets[index], box, down, right, canvas)
        else:
            targets[index] = box
    whole = targets if layout == torch.channels_last else out.numpy()  # as it lies in memory
    for block in blocks(np.flatnonzero(moves.flip), size=size):
        picked = torch.from_numpy(whole[block])
        # torch mirrors [B,3,R,R] by pixels, a [B,R,R,3] by bytes
        mirrored = picked.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1) if whole is targets else picked.flip(3)
        whole[block] = mirrored.numpy()
    return out


def random_boxes(
    shapes: NDArray[np.int64], tries: NDArray[np.float64], *, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[NDArray[np.int64], ...]:
    """Boxes of random area and aspect, drawn as torchvision's `RandomResizedCrop.get_params` draws them.

    Args:
        shapes: int64 [B,2], height and width.
        tries: [B, 2 * CROP_TRIES + 2] in [0, 1): area and aspect of each try, then the place.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height; the logarithm is uniform.

    Returns:
        top, left, height, width: int64 [B]. The first try that fits inside the picture; where none does, the largest
        central box whose aspect is within `ratio`.
    """
    full_height, full_width = shapes[:, 0], shapes[:, 1]
    area = (full_height * full_width)[:, None] * (scale[0] + (scale[1] - scale[0]) * tries[:, 0:-2:2])
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = np.exp(low + (high - low) * tries[:, 1:-2:2])
    widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (widths > 0) & (widths <= full_width[:, None]) & (heights > 0) & (heights <= full_height[:, None])
    first = (np.arange(len(shapes)), fits.argmax(axis=1))
    found = fits.any(axis=1)
    too_wide = full_width > full_height * ratio[1]
    too_tall = full_width < full_height * ratio[0]
    centre_width = np.where(too_wide, np.rint(full_height * ratio[1]).astype(np.int64), full_width)
    centre_height = np.where(too_tall, np.rint(full_width / ratio[0]).astype(np.int64), full_height)
    height = np.where(found, heights[first], np.maximum(centre_height, 1))
    width = np.where(found, widths[first], np.maximum(centre_width, 1))
    top = np.where(
        found, np.floor(tries[:, -2] * (full_height - height + 1)).astype(np.int64), (full_height - height) // 2
    )
    left = np.where(
        found, np.floor(tries[:, -1] * (full_width - width + 1)).astype(np.int64), (full_width - width) // 2
    )
    return top, left, height, width


def centre_boxes(shapes: NDArray[np.int64], *, squash: bool, centre: float) -> tuple[NDArray[np.int64], ...]:
    """Evaluation's boxes: the whole picture, or the central square of `centre` times the shorter side.

    Returns:
        top, left, height, width: int64 [B].
    """
    if squash:
        sides = shapes
    else:
        side = np.maximum(1, np.rint(shapes.min(axis=1) * centre).astype(np.int64))
        sides = np.stack([side, side], axis=1)
    corner = (shapes - sides) // 2
    return corner[:, 0], corner[:, 1], sides[:, 0], sides[:, 1]


def _alike(sources: Sequence[NDArray[np.uint8]], moves: Moves, size: int) -> bool:
    """Whether all pictures are resized from whole small ones of the same shape."""
    height, width = sources[0].shape[:2]
    return (
        max(height, width) <= SMALL
        and (height, width) != (size, size)
        and all(source.shape[:2] == (height, width) for source in sources)
        and bool((moves.height == height).all() and (moves.width == width).all())
    )


def _resize_alike(
    sources: Sequence[NDArray[np.uint8]], moves: Moves, size: int, mode: str
) -> tuple[Sequence[NDArray[np.uint8]], Moves]:
    """The pictures resized in one go: of small ones a call each costs more than the work. What is left to be done."""
    planes = torch.from_numpy(np.stack(sources)).permute(0, 3, 1, 2)
    resized = F.interpolate(planes, size=(size, size), mode=mode, antialias=mode != "nearest-exact")
    none, all_of_it = np.zeros_like(moves.top), np.full_like(moves.height, size)
    return (
        list(resized.permute(0, 2, 3, 1).contiguous().numpy()),
        replace(moves, top=none, left=none, height=all_of_it, width=all_of_it),
    )


def _resize(box: NDArray[np.uint8], size: int, mode: str, layout: torch.memory_format) -> Tensor:
    """uint8 [3,R,R]."""
    source = torch.from_numpy(box.copy()[None]).permute(0, 3, 1, 2)  # a copy: caches are read-only
    resized = F.interpolate(source, size=(size, size), mode=mode, antialias=mode != "nearest-exact")
    return resized.contiguous(memory_format=layout)[0]  # it comes planar; a picture at a time this is fastest


def _place(
    target: NDArray[np.uint8], image: NDArray[np.uint8], down: int, right: int, canvas: NDArray[np.uint8]
) -> None:
    size = len(target)
    target[...] = canvas
    if abs(down) < size and abs(right) < size:
        target[max(down, 0) : size + min(down, 0), max(right, 0) : size + min(right, 0)] = image[
            max(-down, 0) : size - max(down, 0), max(-right, 0) : size - max(right, 0)
        ]
