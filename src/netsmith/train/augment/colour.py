"""Changes of colour on whole batches: Pillow's, to the level, except for the hue.

Choices made on purpose:

- Brightness, contrast, saturation and sharpness are Pillow's `ImageEnhance` (which torchvision calls), posterizing,
  solarizing, autocontrast and equalizing its `ImageOps`: blends in float32, cut to whole levels; the same levels come
  out. Greys are Pillow's `convert("L")`, whose sums of 24 bits float32 holds exactly.
- The hue turns in float32, where Pillow (and torchvision on its pictures) goes through 8-bit hue and saturation and
  loses up to a dozen levels even when it turns by nothing; torchvision on tensors differs by its rounding alone.
- Float work runs on as many pictures at a time as stay in the processor's cache.
"""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 2**16
"""Pixels whose floats are worked on at once."""

_LEVELS = 256


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black.

    Args:
        images: uint8 [N,3,R,R]; so in all of these, which return the same.
        factors: [N]; 0 is black, 1 the picture.
    """
    return _by_blocks(lambda block, factor: _levels(block.float().mul_(factor)), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean grey; factors as in `brightness`."""

    def change(block: Tensor, factor: Tensor) -> Tensor:
        grey = _grey(block)
        mean = (
            grey.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).div_(grey[0].numel()).add_(0.5).floor_().float()
        )
        return _blend(mean, block, factor)

    return _by_blocks(change, images, factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the grey picture; factors as in `brightness`."""
    return _by_blocks(lambda block, factor: _blend(_grey(block), block, factor), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the smoothed picture, whose outermost pixels are the picture's; factors as in `brightness`."""
    if images.shape[-1] < 3:
        return images
    return _by_blocks(lambda block, factor: _blend(_smooth(block), block, factor), images, factors)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour circle; value and saturation stay.

    Args:
        images: as in `brightness`.
        turns: [N], shares of the circle; 1/3 makes red green.
    """
    return _by_blocks(_turn, images, turns)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` [N] of every level, 0 to 8."""
    masks = (_LEVELS - 2.0 ** (8 - bits)).to(torch.uint8)
    return images & masks[:, None, None, None]


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the levels from `thresholds` [N] on."""
    first = thresholds.ceil().to(torch.int16)[:, None, None, None]
    return torch.where(images >= first, 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel so that its darkest level is 0 and its lightest 255; one of a single level stays."""
    flat = images.flatten(2)
    low, high = (level.double() for level in (flat.amin(dim=2, keepdim=True), flat.amax(dim=2, keepdim=True)))
    scale = torch.full_like(low, 255.0) / (high - low)  # a number over a tensor would go through the reciprocal
    stretched = (torch.arange(_LEVELS) * scale - low * scale).clamp_(0.0, 255.0)
    return _look_up(images, torch.where(high > low, stretched, torch.arange(_LEVELS)).to(torch.uint8))


def equalize(images: Tensor) -> Tensor:
    """Give each channel's levels about equal shares of the pixels; one of too few levels or pixels stays."""
    counts = _histograms(images)
    last = (counts > 0) * torch.arange(_LEVELS)
    top = counts.gather(2, last.amax(dim=2, keepdim=True))
    step = (counts.sum(dim=2, keepdim=True) - top) // 255
    below = counts.cumsum(dim=2) - counts
    equal = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    return _look_up(images, torch.where(step > 0, equal, torch.arange(_LEVELS)).to(torch.uint8))


def _by_blocks(change: Callable[[Tensor, Tensor], Tensor], images: Tensor, amounts: Tensor) -> Tensor:
    """`change` of a few pictures at a time, with their amounts float32 [n,1,1,1]."""
    count = max(1, BLOCK // (images.shape[-1] * images.shape[-2]))
    shaped = amounts.float()[:, None, None, None]
    out = torch.empty_like(images)
    for first in range(0, len(images), count):
        out[first : first + count] = change(images[first : first + count], shaped[first : first + count])
    return out


def _blend(base: Tensor, block: Tensor, factor: Tensor) -> Tensor:
    # base + factor * (image - base), in these steps and no fused ones: Pillow's float arithmetic.
    return _levels((block - base).mul_(factor).add_(base))


def _levels(values: Tensor) -> Tensor:
    return values.clamp_(0.0, 255.0)  # cut to whole levels by the copy into uint8


def _grey(block: Tensor) -> Tensor:
    """float32 [n,1,R,R] of whole levels."""
    weights = torch.tensor([19595.0, 38470.0, 7471.0])
    red, green, blue = (block[:, channel : channel + 1].float().mul_(weights[channel]) for channel in range(3))
    return red.add_(green).add_(blue).add_(32768.0).mul_(1 / 65536).floor_()


def _smooth(block: Tensor) -> Tensor:
    """float32 of whole levels: neighbours and five times the middle, over 13."""
    levels = block.to(torch.int16)
    rows = levels[:, :, :-2] + levels[:, :, 1:-1] + levels[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * levels[..., 1:-1, 1:-1]
    smooth = block.float()
    smooth[..., 1:-1, 1:-1] = sums.float().div_(13.0).round_()  # 13 is odd: no sum lies between two levels
    return smooth


def _turn(block: Tensor, turn: Tensor) -> Tensor:
    red, green, blue = block.float().split(1, dim=1)
    low, high = torch.minimum(torch.minimum(red, green), blue), torch.maximum(torch.maximum(red, green), blue)
    spread = high - low
    # The hue in sixths of the circle from red; where all channels are equal it does not matter.
    sixths = torch.where(high == red, green - blue, torch.where(high == green, blue - red, red - green)).div_(
        spread.clamp(min=1.0)
    )
    sixths = torch.where(high == red, sixths, torch.where(high == green, sixths + 2.0, sixths + 4.0))
    sixths = (sixths + 6.0 * turn).remainder_(6.0)
    ways = [
        (sixths - 3.0).abs_().sub_(1.0),
        (sixths - 2.0).abs_().neg_().add_(2.0),
        (sixths - 4.0).abs_().neg_().add_(2.0),
    ]
    return torch.cat([way.clamp_(0.0, 1.0).mul_(spread).add_(low).add_(0.5) for way in ways], dim=1)


def _histograms(images: Tensor) -> Tensor:
    """int64 [N,3,256]."""
    count, channels = images.shape[:2]
    places = images.long().flatten(2).add_(_LEVELS * torch.arange(count * channels).view(count, channels, 1))
    return torch.bincount(places.flatten(), minlength=count * channels * _LEVELS).view(count, channels, _LEVELS)


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace every level by its entry in uint8 [N,3,256]."""
    return tables.flatten(0, 1).gather(1, images.flatten(2).flatten(0, 1).long()).view_as(images)
