"""Mixup and cutmix: each picture of a batch is mixed with its neighbour, and so are their labels.

Choices made on purpose:

- The partner of a picture is the one before it in its batch, the first one's the last. The order is a fresh
  permutation, so this is a random pairing; a batch stays a function of its step, and in an epoch every picture still
  comes once, and once more as a partner.
- One draw for the whole batch, and where both are asked for, one of the two with equal chance.
- The mixture of mixup is rounded to whole grey levels, halves to even ones. Its error is at most half a level and
  none on average: as large as what rounding to 8 bits did to the pictures themselves, and far below bfloat16's
  steps. Batches stay uint8, a quarter of the memory to move; the labels keep the exact share.
- The area of a box that cutmix cuts at the picture's edge counts, not the area drawn.

Source: Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix); drawn as torchvision's MixUp and CutMix draw.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from netsmith.data.items import UNLABELLED, Targets
from netsmith.run.recipe import Recipe
from netsmith.run.scores import are_tags
from netsmith.train.augment.blocks import blocks, in_memory
from netsmith.train.draws import beta, stream_key, uniforms


@dataclass(frozen=True)
class Mixture:
    """How the pictures of a batch are mixed.

    Attributes:
        share: of each picture itself in its label, 0 to 1; the rest is its partner's.
        box: top, left, bottom, right in pixels of what the partner replaces; None where the two are blended.
    """

    share: float
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Mixing:
    """The part of a recipe that mixes pictures; at least one of the two is above 0.

    Attributes:
        mixup, cutmix: alpha of the Beta(alpha, alpha) that shares are drawn from; 0 is off.
    """

    mixup: float
    cutmix: float

    @classmethod
    def of(cls, recipe: Recipe) -> Self | None:
        """What `recipe` asks for, None where it asks for neither."""
        return cls(recipe.mixup, recipe.cutmix) if recipe.mixup or recipe.cutmix else None

    def draw(self, *, seed: int, step: int, size: int) -> Mixture:
        """Decide how the batch of a step is mixed.

        Args:
            seed: of the run.
            step: number of the batch.
            size: side of its pictures, pixels.
        """
        draws = uniforms(stream_key(seed, "mixing", 0), np.array([step]), 5)
        cut = draws[0, 0] < 0.5 if self.mixup and self.cutmix else bool(self.cutmix)
        share = float(beta(draws[:, 1:3], self.cutmix if cut else self.mixup)[0])
        if not cut:
            return Mixture(share, None)
        down, right = (math.floor(draw * size) for draw in draws[0, 3:].tolist())
        reach = int(0.5 * math.sqrt(1.0 - share) * size)
        top, left = max(down - reach, 0), max(right - reach, 0)
        bottom, right = min(down + reach, size), min(right + reach, size)
        return Mixture(1.0 - (bottom - top) * (right - left) / size**2, (top, left, bottom, right))


def mix(images: Tensor, mixture: Mixture) -> Tensor:
    """Mix each picture with the one before it, the first with the last.

    Args:
        images: uint8 [B,3,R,R] on any device, channels last in memory; they may be written to.
        mixture: how.

    Returns:
        uint8 [B,3,R,R], channels last in memory.
    """
    if mixture.box is not None:
        top, left, bottom, right = mixture.box
        place = (slice(None), slice(None), slice(top, bottom), slice(left, right))
        images[place] = images[place].roll(1, 0)
        return images
    if not in_memory(images):
        blend = images.float().mul_(mixture.share).add_(images.roll(1, 0), alpha=1.0 - mixture.share)
        return blend.round_().to(torch.uint8)
    pixels = images.permute(0, 2, 3, 1).numpy()  # as they lie in memory
    mixed = np.empty_like(pixels)
    for block in blocks(np.arange(len(images)), size=images.shape[-1]):
        blend = torch.from_numpy(pixels[block]).float().mul_(mixture.share)
        blend.add_(torch.from_numpy(pixels[block - 1]), alpha=1.0 - mixture.share)
        mixed[block] = blend.round_().to(torch.int16).numpy()
    return torch.from_numpy(mixed).permute(0, 3, 1, 2)


def mixed_targets(labels: Targets, mixture: Mixture, *, classes: int) -> Tensor:
    """What the mixed pictures show.

    Args:
        labels: int64 [B], or bool [B,C] of tags.
        mixture: how the pictures were mixed.
        classes: C.

    Returns:
        float32 [B,C], the share of each class, or of the pictures that have each tag; rows sum to less than 1 where a
        picture has no label.
    """
    given = torch.from_numpy(labels)
    if not are_tags(labels):
        given = F.one_hot(given.clamp(min=0), classes) * (given != UNLABELLED)[:, None]
    certain = given.float()
    return certain.mul(mixture.share).add_(certain.roll(1, 0), alpha=1.0 - mixture.share)
