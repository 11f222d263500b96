"""RandAugment and TrivialAugment (wide): operations drawn from one list, with torchvision's strengths.

Each picture draws its operations, strengths and signs; then, round by round, the pictures that drew the same operation
are changed together, and all that drew a geometric one by a single resampling.

Source: Cubuk et al. 2020 (RandAugment), Müller and Hutter 2021 (TrivialAugment); lists, strengths and signs as in
torchvision's `RandAugment` and `TrivialAugmentWide`, bilinear as in its reference recipes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsmith.run.recipe import Recipe
from netsmith.train.augment.blocks import change_some
from netsmith.train.augment.colour import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from netsmith.train.augment.framing import Colour
from netsmith.train.augment.geometry import rotation, shear_x, shear_y, translation, warp

BINS = 31
"""Strengths of an operation, from none to the strongest."""

_MATRICES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "ShearX": lambda amounts, size: shear_x(amounts, size=size),
    "ShearY": lambda amounts, size: shear_y(amounts, size=size),
    "TranslateX": lambda pixels, size: translation(pixels.trunc(), torch.zeros_like(pixels)),
    "TranslateY": lambda pixels, size: translation(torch.zeros_like(pixels), pixels.trunc()),
    "Rotate": lambda degrees, size: rotation(degrees),
}
_COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": lambda images, changes: brightness(images, 1.0 + changes),
    "Color": lambda images, changes: saturation(images, 1.0 + changes),
    "Contrast": lambda images, changes: contrast(images, 1.0 + changes),
    "Sharpness": lambda images, changes: sharpness(images, 1.0 + changes),
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": lambda images, _: autocontrast(images),
    "Equalize": lambda images, _: equalize(images),
}
OPERATIONS = ("Identity", *_MATRICES, *_COLOURS)
_GEOMETRIC = [number for number, name in enumerate(OPERATIONS) if name in _MATRICES]
SIGNED = frozenset({*_MATRICES, "Brightness", "Color", "Contrast", "Sharpness"})


@dataclass(frozen=True)
class Drawn:
    """What B pictures drew.

    Attributes:
        operation: int64 [B,S], positions in `OPERATIONS`, one per round.
        strength: float64 [B,S], in the operation's own units, signed; 0 where it has none.
    """

    operation: NDArray[np.int64]
    strength: NDArray[np.float64]


@dataclass(frozen=True)
class Policy:
    """What is drawn from.

    Attributes:
        rounds: S, operations per picture.
        bin: the strength of all, 0 to `BINS` - 1, or None where each draws its own.
        shear, rotate, enhance: strongest, as a share, in degrees, and as a change of a factor.
        translate: strongest in pixels.
        bits: most bits that posterizing drops.
        std: standard deviation of `bin`, drawn for every operation; the strength stays one of the `BINS`.
        probability: of an operation; one that is left out is the identity.
    """

    rounds: int
    bin: int | None
    shear: float
    translate: float
    rotate: float
    enhance: float
    bits: int
    std: float = 0.0
    probability: float = 1.0

    @classmethod
    def of(cls, recipe: Recipe, *, size: int) -> Self | None:
        """What `recipe` asks for on pictures of `size` pixels, None where it asks for none."""
        if recipe.auto_augment == "randaugment":
            return cls(
                rounds=recipe.ra_ops,
                bin=recipe.ra_magnitude,
                shear=0.3,
                translate=150.0 / 331.0 * size,
                rotate=30.0,
                enhance=0.9,
                bits=4,
                std=recipe.ra_std,
                probability=recipe.ra_prob,
            )
        if recipe.auto_augment == "trivialaugment":
            return cls(rounds=1, bin=None, shear=0.99, translate=32.0, rotate=135.0, enhance=0.99, bits=6)
        return None

    @property
    def strengths(self) -> NDArray[np.float64]:
        """float64 [operations, BINS], computed in float32 as torchvision's: translations are cut to whole pixels."""
        strongest = {
            "ShearX": self.shear,
            "ShearY": self.shear,
            "TranslateX": self.translate,
            "TranslateY": self.translate,
            "Rotate": self.rotate,
            **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), self.enhance),
        }
        rows = {name: torch.linspace(0.0, most, BINS) for name, most in strongest.items()}
        rows["Posterize"] = 8.0 - (torch.arange(BINS) / ((BINS - 1) / self.bits)).round()  # bits that stay
        rows["Solarize"] = torch.linspace(255.0, 0.0, BINS)  # the level from which colours are inverted
        return np.stack([rows.get(name, torch.zeros(BINS)).numpy() for name in OPERATIONS]).astype(np.float64)

    @property
    def varies(self) -> bool:
        """Whether `draw` needs the second draws."""
        return self.std > 0.0 or self.probability < 1.0

    def draw(self, draws: NDArray[np.float64], varied: NDArray[np.float64] | None = None) -> Drawn:
        """Decide.

        Args:
            draws: [B, 3 S] in [0, 1): of each round the operation, its strength and its sign.
            varied: [B, 3 S] in [0, 1) where the policy `varies`: of each round two for the normal deviation of the
                strength, and whether the operation is done.
        """
        chosen = draws.reshape(len(draws), self.rounds, 3)
        operation = np.floor(chosen[:, :, 0] * len(OPERATIONS)).astype(np.int64)
        bins = np.floor(chosen[:, :, 1] * BINS).astype(np.int64) if self.bin is None else self.bin
        if varied is not None:
            more = varied.reshape(chosen.shape)
            normal = np.sqrt(-2.0 * np.log1p(-more[:, :, 0])) * np.cos(2.0 * np.pi * more[:, :, 1])
            bins = np.clip(np.rint(bins + self.std * normal), 0, BINS - 1).astype(np.int64)
            operation = np.where(more[:, :, 2] < self.probability, operation, OPERATIONS.index("Identity"))
        signed = np.array([name in SIGNED for name in OPERATIONS])[operation]
        sign = np.where(signed & (chosen[:, :, 2] < 0.5), -1.0, 1.0)
        return Drawn(operation, sign * self.strengths[operation, bins])


def apply_policy(images: Tensor, drawn: Drawn, *, border: Colour) -> None:
    """Change pictures in place.

    Args:
        images: uint8 [B,3,R,R].
        drawn: of the same B pictures.
        border: colour beyond the edges.
    """
    size = images.shape[-1]
    strengths = torch.from_numpy(drawn.strength)
    for turn, operation in enumerate(drawn.operation.T):
        strength = strengths[:, turn]
        matrices = rotation(torch.zeros(len(images)))
        for number, name in enumerate(OPERATIONS):
            members = np.flatnonzero(operation == number)
            if name in _MATRICES:
                matrices[members] = _MATRICES[name](strength[members], size)
            elif name in _COLOURS:
                change_some(_COLOURS[name], images, members, strength)
        moved = np.flatnonzero(np.isin(operation, _GEOMETRIC))
        change_some(lambda block, maps: warp(block, maps, border), images, moved, matrices)
