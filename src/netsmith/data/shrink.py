"""Training masters: a picture decoded fast and reduced once, larger than the crops that training takes from it.

Only training may use this: JPEGs are decoded at a half, quarter or eighth of their size where the master is smaller
(simplejpeg where installed, else Pillow's `draft`), which changes pixels slightly: `benchmarks/decode.py` says how
much, and what it does to accuracy. The fractions between, which libjpeg also has, are slower than the next larger power
of two. Evaluation goes through `prepare`.
"""

import functools
import importlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from netsmith.data.prepare import MAX_PIXELS, Pixels, as_pixels, centre, format_of, opened, orientation, turned

MASTER_ASPECT = 2
"""The longer side of a master is at most this many times the shorter; what is beyond, at both ends, is cut."""


def shrink(image: bytes | Pixels, *, side: int, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A picture with its shorter side reduced to `side` pixels, never enlarged, aspect ratio kept up to
    `MASTER_ASPECT`.

    Args:
        image: an encoded picture, or uint8 [H,W], [H,W,1] or [H,W,3].

    Returns: uint8 [H,W,3]. Raises ImageError (an InputError) as `prepare` does.
    """
    decoded = _fast_jpeg(image, side, max_pixels) if isinstance(image, bytes) else None
    if decoded is None:
        pixels = as_pixels(image, max_pixels=max_pixels)
        height, width, _ = pixels.shape
    else:
        pixels, height, width = decoded.pixels, decoded.height, decoded.width
    pixels = centre(pixels, MASTER_ASPECT * min(pixels.shape[:2]))
    if min(height, width) <= side:
        return np.ascontiguousarray(pixels)
    # from the size of the file, not of the reduced decoding, so that every decoder gives the same shape
    rows, columns = master_shape(height, width, side=side)
    return np.array(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BICUBIC))


def master_shape(height: int, width: int, *, side: int) -> tuple[int, int]:
    """Height and width of the master of an upright picture of `height` x `width` pixels, known before it is decoded."""
    short = min(height, width)
    long = min(max(height, width), MASTER_ASPECT * short)
    if short > side:
        short, long = side, round(side * long / short)
    return (long, short) if width <= height else (short, long)


def whole_jpeg(encoded: bytes) -> Pixels:
    """uint8 [H,W,3] of a JPEG that netsmith wrote itself, as fast as this machine can."""
    simplejpeg = _simplejpeg()
    if simplejpeg is not None:
        return simplejpeg.decode_jpeg(encoded, "RGB")
    with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
        return np.array(image)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """Pixels decoded at a fraction of the `height` x `width` that the upright picture has."""

    pixels: Pixels
    height: int
    width: int


def _fast_jpeg(encoded: bytes, side: int, max_pixels: int) -> _Reduced | None:
    """An RGB or grey JPEG decoded no smaller than needed, upright; None for anything else and for damaged files."""
    with opened(encoded, max_pixels=max_pixels) as image:
        if format_of(image) != "JPEG" or image.mode not in ("L", "RGB"):
            return None
        turn = orientation(image)
        size = image.size
        power = _power(min(size), side)
        simplejpeg = _simplejpeg()
        try:
            if simplejpeg is not None:
                width, height = (-(-length // power) for length in size)
                pixels = simplejpeg.decode_jpeg(encoded, "RGB", min_height=height, min_width=width, min_factor=power)
            else:
                image.draft("RGB", (size[0] // power, size[1] // power))
                pixels = np.array(image.convert("RGB"))
        except (ValueError, OSError):  # damaged, or a kind of JPEG this decoder lacks: the exact decoder says which
            return None
    upright = np.array(turned(Image.fromarray(pixels), turn)) if turn != 1 else pixels
    return _Reduced(upright, *(size if turn >= 5 else size[::-1]))


def _power(short: int, side: int) -> int:
    """The largest power of two up to 8 by which a shorter side can be divided and still be `side` pixels."""
    return next((power for power in (8, 4, 2) if -(-short // power) >= side), 1)


@functools.cache
def _simplejpeg() -> Any | None:
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None
