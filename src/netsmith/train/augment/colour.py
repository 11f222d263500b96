"""Changes of colour on whole batches: Pillow's, to the level, except for the hue.

Choices made on purpose:

- Brightness, contrast, saturation and sharpness are Pillow's `ImageEnhance` (which torchvision calls), posterizing,
  solarizing, autocontrast and equalizing its `ImageOps`: blends in float32, cut to whole levels; the same levels come
  out. Greys are Pillow's `convert("L")`, whose sums of 24 bits float32 holds exactly.
- The hue turns in float32, where Pillow (and torchvision on its pictures) goes through 8-bit hue and saturation and
  loses up to a dozen levels even when it turns by nothing; torchvision on tensors differs by its rounding alone.
"""

import torch
from torch import Tensor

from netsmith.train.augment.blocks import in_memory

_LEVELS = 256


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black.

    Args:
        images: uint8 [N,3,R,R]; so in all of these, which return the same.
        factors: [N]; 0 is black, 1 the picture.
    """
    return _levels(images.float().mul_(_each(factors)))


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean grey; factors as in `brightness`."""
    grey = _grey(images)
    mean = grey.sum(dim=(2, 3), keepdim=True, dtype=torch.float64).div_(grey[0].numel()).add_(0.5).floor_()
    return _blend(mean.float(), images, factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the grey picture; factors as in `brightness`."""
    return _blend(_grey(images), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the smoothed picture, whose outermost pixels are the picture's; factors as in `brightness`."""
    return _blend(_smooth(images), images, factors)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the colour circle; value and saturation stay.

    Args:
        images: as in `brightness`.
        turns: [N], shares of the circle; 1/3 makes red green.
    """
    red, green, blue = images.float().split(1, dim=1)
    low, high = torch.minimum(torch.minimum(red, green), blue), torch.maximum(torch.maximum(red, green), blue)
    spread = high - low
    # The hue in sixths of the circle from red; where all channels are equal it does not matter. Sums of products with
    # 0 and 1, because torch.where takes ten times as long.
    of_red = (high == red).float()
    of_green = (high == green).float().mul_(1.0 - of_red)
    of_blue = 1.0 - of_red - of_green
    sixths = of_red.mul_(green - blue).add_((blue - red).mul_(of_green)).add_((red - green).mul_(of_blue))
    sixths.div_(spread.clamp(min=1.0)).add_(of_green, alpha=2.0).add_(of_blue, alpha=4.0).add_(6.0 * _each(turns))
    sixths.sub_((sixths / 6.0).floor_().mul_(6.0))
    turned = torch.cat([sixths - 3.0, sixths - 2.0, sixths - 4.0], dim=1).abs_()
    turned[:, :1].sub_(1.0)
    turned[:, 1:].neg_().add_(2.0)
    return _levels(turned.clamp_(0.0, 1.0).mul_(spread).add_(low).add_(0.5))


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` [N] of every level, 0 to 8."""
    masks = (_LEVELS - 2.0 ** (8 - bits)).to(torch.uint8)
    return images & masks[:, None, None, None]


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the levels from `thresholds` [N] on, 0 to 255."""
    first = _each(thresholds).ceil().to(torch.uint8)
    return (images >= first).view(torch.uint8).mul_(255).bitwise_xor_(images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel so that its darkest level is 0 and its lightest 255; one of a single level stays."""
    flat = images.flatten(2)
    low, high = (level.double() for level in (flat.amin(dim=2, keepdim=True), flat.amax(dim=2, keepdim=True)))
    scale = torch.full_like(low, 255.0) / (high - low)  # a number over a tensor would go through the reciprocal
    levels = torch.arange(_LEVELS, device=images.device)
    stretched = (levels * scale - low * scale).clamp_(0.0, 255.0)
    return _look_up(images, torch.where(high > low, stretched, levels).to(torch.uint8))


def equalize(images: Tensor) -> Tensor:
    """Give each channel's levels about equal shares of the pixels; one of too few levels or pixels stays."""
    counts = _histograms(images)
    levels = torch.arange(_LEVELS, device=images.device)
    last = (counts > 0) * levels
    top = counts.gather(2, last.amax(dim=2, keepdim=True))
    step = (counts.sum(dim=2, keepdim=True) - top) // 255
    below = counts.cumsum(dim=2) - counts
    equal = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    return _look_up(images, torch.where(step > 0, equal, levels).to(torch.uint8))


def _each(amounts: Tensor) -> Tensor:
    """[N] as float32 [N,1,1,1]."""
    return amounts.float()[:, None, None, None]


def _levels(values: Tensor) -> Tensor:
    """Floats cut to whole levels; by way of int16, which is three times as fast as at once."""
    return values.clamp_(0.0, 255.0).to(torch.int16).to(torch.uint8)


def _blend(base: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    # base + factor * (image - base), in these steps and no fused ones: Pillow's float arithmetic.
    return _levels(images.float().sub_(base).mul_(_each(factors)).add_(base))


def _grey(images: Tensor) -> Tensor:
    """float32 [N,1,R,R] of whole levels."""
    red, green, blue = images.float().split(1, dim=1)
    sums = red.mul_(19595.0).add_(green, alpha=38470.0).add_(blue, alpha=7471.0).add_(32768.0)
    return sums.mul_(1 / 65536).floor_()


def _smooth(images: Tensor) -> Tensor:
    """float32 of whole levels: neighbours and five times the middle, over 13."""
    smooth = images.float()
    if images.shape[-1] < 3:
        return smooth
    levels = images.to(torch.int16)
    rows = levels[:, :, :-2] + levels[:, :, 1:-1] + levels[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * levels[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = sums.float().div_(13.0).round_()  # 13 is odd: no sum lies between two levels
    return smooth


def _histograms(images: Tensor) -> Tensor:
    """int64 [N,3,256]."""
    count, channels = images.shape[:2]
    tables = torch.arange(count * channels, device=images.device).view(count, channels, 1)
    places = images.long().flatten(2).add_(_LEVELS * tables).flatten()
    if in_memory(images):
        counts = torch.bincount(places, minlength=count * channels * _LEVELS)
    else:  # bincount would make Python wait for a GPU
        counts = places.new_zeros(count * channels * _LEVELS)
        counts.scatter_add_(0, places, places.new_ones(1).expand_as(places))
    return counts.view(count, channels, _LEVELS)


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace every level by its entry in uint8 [N,3,256]."""
    return tables.flatten(0, 1).gather(1, images.flatten(2).flatten(0, 1).long()).view_as(images)
