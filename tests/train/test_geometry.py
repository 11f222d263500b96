"""Rotation, shear and translation against torchvision inside the picture and a plain resampling everywhere."""

import math

import numpy as np
import pytest
import torch
from reference_transforms import largest_difference, photos, torchvision_transforms
from torch import Tensor

from netsmith.train.augment.geometry import rotation, shear_x, shear_y, translation, warp

BORDER = (124, 116, 104)
SIZE = 33
ANGLES = torch.linspace(-180, 180, 17)


def resampled(image: Tensor, matrix: Tensor) -> np.ndarray:
    """One picture, place by place in double precision: it lies on an endless plane of the border colour."""
    size = image.shape[-1]
    pixels = image.permute(1, 2, 0).numpy().astype(np.float64)

    def at(row: int, column: int) -> np.ndarray:
        inside = 0 <= row < size and 0 <= column < size
        return pixels[row, column] if inside else np.array(BORDER, dtype=np.float64)

    out = np.empty_like(pixels)
    middle = (size - 1) / 2
    for row in range(size):
        for column in range(size):
            x, y = (matrix.double().numpy() @ [column - middle, row - middle, 1.0]) + middle
            left, top = math.floor(x), math.floor(y)
            right, down = x - left, y - top
            upper = (1 - right) * at(top, left) + right * at(top, left + 1)
            lower = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
            out[row, column] = (1 - down) * upper + down * lower
    return out


def matrices() -> Tensor:
    return torch.cat(
        [
            rotation(torch.tensor([0.0, 12.5, -71.0, 180.0])),
            shear_x(torch.tensor([0.3, -0.99]), size=13),
            shear_y(torch.tensor([0.21, -0.3]), size=13),
            translation(torch.tensor([3.0, -20.0]), torch.tensor([-2.0, 0.0])),
        ]
    )


def test_places_are_those_of_a_plain_resampling() -> None:
    maps = matrices()
    images = photos(len(maps), 13)
    for image, ours, matrix in zip(images, warp(images, maps, BORDER), maps, strict=True):
        exact = resampled(image, matrix)
        assert np.abs(ours.permute(1, 2, 0).numpy() - exact).max() <= 0.51


def test_whole_pixels_and_quarter_turns_are_exact() -> None:
    images = photos(4, 16)
    assert torch.equal(warp(images, rotation(torch.zeros(4)), BORDER), images)
    assert torch.equal(warp(images, rotation(torch.full((4,), 90.0)), BORDER), images.rot90(1, (2, 3)))
    moved = warp(images, translation(torch.full((4,), 5.0), torch.full((4,), -3.0)), BORDER)
    assert torch.equal(moved[:, :, :-3, 5:], images[:, :, 3:, :-5])
    assert (moved[:, :, :, :5] == torch.tensor(BORDER)[:, None, None]).all()
    assert (moved[:, :, -3:] == torch.tensor(BORDER)[:, None, None]).all()


@pytest.mark.reference
@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_inside_the_picture_they_are_torchvisions(name: str) -> None:
    transforms = torchvision_transforms()
    bilinear = transforms.InterpolationMode.BILINEAR
    amounts = {"Rotate": ANGLES, "ShearX": ANGLES / 200, "ShearY": ANGLES / 200}.get(name, (ANGLES / 10).round())
    maps = {
        "Rotate": rotation(amounts),
        "ShearX": shear_x(amounts, size=SIZE),
        "ShearY": shear_y(amounts, size=SIZE),
        "TranslateX": translation(amounts, torch.zeros_like(amounts)),
        "TranslateY": translation(torch.zeros_like(amounts), amounts),
    }[name]
    images = photos(len(amounts), SIZE)
    for image, ours, amount, matrix in zip(images, warp(images, maps, BORDER), amounts.tolist(), maps, strict=True):
        theirs = transforms.autoaugment._apply_op(image, name, amount, bilinear, list(BORDER))
        # The edge is another matter: it is compared above, with what it should be.
        inside = torch.from_numpy(resampled(torch.full_like(image, 255), matrix)).amin(dim=2) == 255
        assert inside.any()
        assert largest_difference(ours[:, inside], theirs[:, inside]) <= 1
