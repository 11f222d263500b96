"""Augmentation of uint8 pictures, in torchvision's order: framing (crop, translation, flip), rotation, a policy's
operations, colour jitter, erasing. Mixing follows, on batches (`mixing`).

Choices made on purpose:

- What happens to a picture is drawn first, for a whole batch at once (`draw`), as plain arrays that a test can look
  at; carrying it out (`render`) has no randomness.
- The draws of one feature do not move when another is switched: each has its own stream.
- Pictures that drew the same operation are changed together: per picture a call would cost more than the work on
  small ones.
- What is drawn does not know where pictures are. A CPU carries it out picture by picture where that is fastest; a GPU
  carries out the same on whole batches: the same levels where levels are moved or looked up, within one where they are
  resized or resampled.
- Pictures stay uint8 between operations, as in torchvision: each is exact by itself and can be compared with Pillow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.augment.blocks import change_some
from netsmith.train.augment.erasing import ERASE_DRAWS, erase, erased_boxes
from netsmith.train.augment.framing import CROP_TRIES, Colour, Moves, centre_boxes, frame, random_boxes
from netsmith.train.augment.geometry import rotation, warp
from netsmith.train.augment.jitter import JITTER_DRAWS, Jitter, apply_jitter, draw_jitter
from netsmith.train.augment.packed import Packed, frame_packed
from netsmith.train.augment.policies import Drawn, Policy, apply_policy
from netsmith.train.draws import stream_key, uniforms

# Training pictures are resized by torch's vectorised uint8 kernels, which have no Lanczos.
_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "bicubic"}


class Images(Protocol):
    """Pictures by index: an array uint8 [N,H,W,3] or a cache of pictures of many sizes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """uint8 [H,W,3]."""
        ...


@dataclass(frozen=True)
class Changes:
    """What happens to each of B pictures, in this order; None is nothing.

    Attributes:
        moves: framing.
        angle: float64 [B], degrees of rotation, counter-clockwise.
        policy: operations of RandAugment or TrivialAugment.
        jitter: of colours.
        erased: int64 [B,4], boxes, see `erasing`.
    """

    moves: Moves
    angle: NDArray[np.float64] | None = None
    policy: Drawn | None = None
    jitter: Jitter | None = None
    erased: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Augmentation:
    """The part of a recipe that changes pictures.

    Attributes:
        size: R, pixels.
        crop_scale, crop_ratio: of the random resized crop, or None for evaluation's framing.
        squash, centre: evaluation's framing: the whole picture, or the central square times `centre`.
        pad: largest translation in pixels by pad-crop.
        shift: largest further translation in pixels.
        flip: mirror half of the pictures; "alternating": each in every second epoch.
        mode: interpolation, as torch names it.
        border: colour of uncovered and erased pixels.
        rotate: largest rotation, degrees.
        policy: RandAugment, TrivialAugment or None.
        color_jitter: largest change of brightness, contrast, saturation and hue.
        random_erase: probability of erasing a box.
    """

    size: int
    crop_scale: tuple[float, float] | None
    crop_ratio: tuple[float, float]
    squash: bool
    centre: float
    pad: int
    shift: int
    flip: bool | Literal["alternating"]
    mode: str
    border: Colour
    rotate: float
    policy: Policy | None
    color_jitter: tuple[float, float, float, float]
    random_erase: float

    @classmethod
    def of(cls, recipe: Recipe, preprocess: Preprocess) -> Self:
        """What `recipe` asks for, framed and bordered as `preprocess` says."""
        size = recipe.train_size or preprocess.size
        red, green, blue = (round(255 * value) for value in preprocess.mean)
        return cls(
            size=size,
            crop_scale=recipe.crop_scale,
            crop_ratio=recipe.crop_ratio,
            squash=preprocess.resize == "squash",
            centre=preprocess.crop,
            pad=recipe.pad,
            shift=round(recipe.shift * size),
            flip=recipe.flip,
            mode=_MODES[preprocess.interpolation],
            border=(red, green, blue),
            rotate=recipe.rotate,
            policy=Policy.of(recipe, size=size),
            color_jitter=recipe.color_jitter,
            random_erase=recipe.random_erase,
        )

    def at(self, size: int) -> Self:
        """The same for another side: what is moved by pixels is moved by the same share of the side."""
        if size == self.size:
            return self
        share = size / self.size
        policy = self.policy and replace(self.policy, translate=share * self.policy.translate)
        return replace(self, size=size, pad=round(share * self.pad), shift=round(share * self.shift), policy=policy)

    def draw(
        self,
        shapes: NDArray[np.int64],
        *,
        seed: int,
        epoch: int,
        positions: NDArray[np.integer],
        pictures: NDArray[np.integer] | None = None,
    ) -> Changes:
        """Decide what happens to each picture.

        Args:
            shapes: int64 [B,2], height and width of the source pictures.
            seed: of the run.
            epoch: pass over the data.
            positions: [B], place of each picture in the order of that epoch.
            pictures: [B], which of all pictures each is; needed where flips alternate.

        Returns:
            The changes, a function of the arguments; those of one position do not depend on the others in the batch.
        """

        def stream(name: str, draws: int) -> NDArray[np.float64]:
            return uniforms(stream_key(seed, name, epoch), positions, draws)

        if self.crop_scale is None:
            top, left, height, width = centre_boxes(shapes, squash=self.squash, centre=self.centre)
        else:
            tries = stream("crop", 2 * CROP_TRIES + 2)
            top, left, height, width = random_boxes(shapes, tries, scale=self.crop_scale, ratio=self.crop_ratio)
        offsets = np.zeros((len(shapes), 2), dtype=np.int64)
        for name, reach in (("pad", self.pad), ("shift", self.shift)):
            if reach:
                offsets += np.floor(stream(name, 2) * (2 * reach + 1)).astype(np.int64) - reach
        flip = stream("flip", 1)[:, 0] < 0.5 if self.flip else np.zeros(len(shapes), dtype=np.bool_)
        if self.flip == "alternating":
            assert pictures is not None, "what is mirrored in every second epoch is known by its number"
            flip = (uniforms(stream_key(seed, "flip", 0), pictures)[:, 0] < 0.5) ^ bool(epoch % 2)
        return Changes(
            moves=Moves(top, left, height, width, offsets[:, 0], offsets[:, 1], flip),
            angle=self.rotate * (2.0 * stream("rotate", 1)[:, 0] - 1.0) if self.rotate else None,
            policy=self._draw_policy(stream),
            jitter=draw_jitter(stream("jitter", JITTER_DRAWS), self.color_jitter) if any(self.color_jitter) else None,
            erased=erased_boxes(stream("erase", ERASE_DRAWS), size=self.size, probability=self.random_erase)
            if self.random_erase
            else None,
        )

    def _draw_policy(self, stream: Callable[[str, int], NDArray[np.float64]]) -> Drawn | None:
        if self.policy is None:
            return None
        draws = 3 * self.policy.rounds
        varied = stream("policy varied", draws) if self.policy.varies else None
        return self.policy.draw(stream("policy", draws), varied)

    def render(self, sources: Sequence[NDArray[np.uint8]] | Packed, changes: Changes) -> torch.Tensor:
        """Carry out `changes`.

        Args:
            sources: B pictures uint8 [H,W,3], or where they lie on a device.
            changes: for the same B pictures.

        Returns:
            uint8 [B,3,R,R], channels last in memory, on the device of the sources.
        """
        changed = changes.angle is not None or changes.policy is not None or changes.jitter is not None
        # One plane per channel, as the operations want it; then interleaved, as networks do.
        layout = torch.contiguous_format if changed else torch.channels_last
        framing: dict[str, Any] = {"size": self.size, "mode": self.mode, "border": self.border, "layout": layout}
        if isinstance(sources, Packed):
            images = frame_packed(sources, changes.moves, **framing)
        else:
            images = frame(sources, changes.moves, **framing)
        if changes.angle is not None:
            maps = rotation(torch.from_numpy(changes.angle))
            change_some(lambda block, some: warp(block, some, self.border), images, np.arange(len(images)), maps)
        if changes.policy is not None:
            apply_policy(images, changes.policy, border=self.border)
        if changes.jitter is not None:
            apply_jitter(images, changes.jitter)
        images = images.contiguous(memory_format=torch.channels_last)
        if changes.erased is not None:
            erase(images, changes.erased, self.border)
        return images
