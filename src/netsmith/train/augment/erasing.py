"""Random erasing: a box of the picture takes the mean colour.

The box is drawn as torchvision's RandomErasing draws it, with the same shares and aspects; the mean colour is zero
after normalisation, as there.

Source: Zhong et al. 2020.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsmith.train.augment.blocks import in_memory
from netsmith.train.augment.framing import Colour
from netsmith.train.augment.packed import levels_of
from netsmith.train.devices import send

TRIES = 10
SCALE = (0.02, 0.33)
"""Smallest and largest share of the picture's area."""
RATIO = (0.3, 3.3)
"""Smallest and largest height / width; the logarithm is uniform."""
ERASE_DRAWS = 1 + 2 * TRIES + 2


def erased_boxes(draws: NDArray[np.float64], *, size: int, probability: float) -> NDArray[np.int64]:
    """The boxes to erase.

    Args:
        draws: [B, ERASE_DRAWS] in [0, 1): whether, area and aspect of each try, then the place.
        size: side of the pictures, pixels.
        probability: of erasing.

    Returns:
        int64 [B,4]: top, left, height, width; height and width are 0 where nothing is erased: not drawn, or no try
        fitted.
    """
    area = size**2 * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[:, 1:-2:2])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    aspect = np.exp(low + (high - low) * draws[:, 2:-2:2])
    heights = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    widths = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (heights < size) & (widths < size)
    first = (np.arange(len(draws)), fits.argmax(axis=1))
    erased = fits.any(axis=1) & (draws[:, 0] < probability)
    height, width = np.where(erased, heights[first], 0), np.where(erased, widths[first], 0)
    top = np.floor(draws[:, -2] * (size - height + 1)).astype(np.int64)
    left = np.floor(draws[:, -1] * (size - width + 1)).astype(np.int64)
    return np.stack([top, left, height, width], axis=1)


def erase(images: Tensor, boxes: NDArray[np.int64], colour: Colour) -> None:
    """Erase in place.

    Args:
        images: uint8 [B,3,R,R], on any device.
        boxes: int64 [B,4], as `erased_boxes` gives them.
        colour: of what is erased.
    """
    if in_memory(images):
        pixels = images.permute(0, 2, 3, 1).numpy()
        for image, (top, left, height, width) in zip(pixels, boxes.tolist(), strict=True):
            image[top : top + height, left : left + width] = colour
        return
    top, left, height, width = send(torch.from_numpy(np.ascontiguousarray(boxes.T)), images.device)[:, :, None]
    line = torch.arange(images.shape[-1], device=images.device)
    rows, columns = (line >= top) & (line < top + height), (line >= left) & (line < left + width)
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    images.copy_(torch.where(inside, levels_of(colour, images.device)[:, None, None], images))
