"""Colour jitter: random brightness, contrast, saturation and hue, in an order of each picture's own.

Ranges, order and the uint8 between the four are those of torchvision's ColorJitter.

Source: Howard 2013, "Some improvements on deep convolutional neural network based image classification".
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsmith.train.augment.blocks import change_some
from netsmith.train.augment.colour import brightness, contrast, hue, saturation

JITTER_DRAWS = 8
_PARTS = (brightness, contrast, saturation, hue)


@dataclass(frozen=True)
class Jitter:
    """What B pictures drew.

    Attributes:
        order: int64 [B,4], which of brightness, contrast, saturation, hue comes first, second, ...
        amount: float64 [B,4], factors of brightness, contrast and saturation (1 changes nothing) and the turn of the
            hue as a share of the circle.
    """

    order: NDArray[np.int64]
    amount: NDArray[np.float64]


def draw_jitter(draws: NDArray[np.float64], strongest: tuple[float, float, float, float]) -> Jitter:
    """Decide.

    Args:
        draws: [B, JITTER_DRAWS] in [0, 1).
        strongest: change of each of the four.
    """
    most = np.array(strongest)
    middle = np.array([1.0, 1.0, 1.0, 0.0])
    low = np.where(middle > 0, np.maximum(middle - most, 0.0), -most)
    order = np.argsort(draws[:, :4], axis=1, kind="stable").astype(np.int64)
    return Jitter(order, low + (middle + most - low) * draws[:, 4:])


def apply_jitter(images: Tensor, jitter: Jitter) -> None:
    """Change pictures in place.

    Args:
        images: uint8 [B,3,R,R].
        jitter: of the same B pictures.
    """
    unchanged = np.array([1.0, 1.0, 1.0, 0.0])
    amounts = torch.from_numpy(jitter.amount)
    for parts in jitter.order.T:
        for number, change in enumerate(_PARTS):
            members = np.flatnonzero((parts == number) & (jitter.amount[:, number] != unchanged[number]))
            change_some(change, images, members, amounts[:, number])
