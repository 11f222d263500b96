"""Rotation, shear and translation of whole batches by one bilinear resampling.

Choices made on purpose:

- A map is a matrix from places of the result to places of the source, in pixels from the picture's centre, as
  torchvision's `affine` and `rotate` compute them; so one call serves pictures that are turned, sheared and moved.
- Beyond its edge the picture goes on in the border colour, and the edge itself is interpolated like any other place.
  Pillow cuts it hard, torchvision fades it towards the colour twice; inside all three agree.
- Sums in float32, rounded half up: whole-pixel translations are exact.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from netsmith.train.augment.framing import Colour
from netsmith.train.augment.packed import levels_of


def rotation(degrees: Tensor) -> Tensor:
    """Matrices of counter-clockwise turns about the centre.

    Args:
        degrees: [N].

    Returns:
        float32 [N,2,3].
    """
    turn = torch.deg2rad(degrees)
    sine, cosine, none = turn.sin(), turn.cos(), torch.zeros_like(turn)
    return _matrices(cosine, -sine, none, sine, cosine, none)


def shear_x(amounts: Tensor, *, size: int) -> Tensor:
    """Matrices that move each row to the left by `amounts` times its distance from the top edge; as `rotation`."""
    one, none = torch.ones_like(amounts), torch.zeros_like(amounts)
    return _matrices(one, amounts, amounts * size / 2, none, one, none)


def shear_y(amounts: Tensor, *, size: int) -> Tensor:
    """Matrices that move each column up by `amounts` times its distance from the left edge; as `rotation`."""
    one, none = torch.ones_like(amounts), torch.zeros_like(amounts)
    return _matrices(one, none, none, amounts, one, amounts * size / 2)


def translation(right: Tensor, down: Tensor) -> Tensor:
    """Matrices of moves by `right` and `down` pixels, each [N]; as `rotation`."""
    one, none = torch.ones_like(right), torch.zeros_like(right)
    return _matrices(one, none, -right, none, one, -down)


def _matrices(*entries: Tensor) -> Tensor:
    return torch.stack(entries, dim=1).view(-1, 2, 3).float()


def warp(images: Tensor, matrices: Tensor, border: Colour) -> Tensor:
    """Resample pictures.

    Args:
        images: uint8 [N,3,R,R].
        matrices: float32 [N,2,3], from (x, y, 1) of the result to (x, y) of the source, pixels from the centre.
        border: colour beyond the edges.

    Returns:
        uint8 [N,3,R,R].
    """
    size = images.shape[-1]
    line = torch.arange(size, dtype=torch.float32, device=images.device)
    places = (line - (size - 1) / 2) * (2 / size)  # of grids: the half side is 1
    across = matrices[:, None, None, :, 0] * places[:, None]
    down = matrices[:, None, None, :, 1] * places[:, None, None] + matrices[:, None, None, :, 2] * (2 / size)
    grid = across + down  # [N,R,R,2]
    offset = levels_of(border, images.device).float()[:, None, None]
    inside = F.grid_sample(images.float().sub_(offset), grid, mode="bilinear", align_corners=False)
    return inside.add_(offset + 0.5).to(torch.int16).to(torch.uint8)  # three times as fast as at once
