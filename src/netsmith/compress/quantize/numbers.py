"""Numbers in eight bits: what stands for what, and how a layer's weights and bias are rounded.

Activations are unsigned with a zero point (U8), weights signed around zero (S8), which is the pair that processors with
VNNI multiply fastest and that ONNX Runtime has the fastest kernels for; a bias is int32 in the unit of both
(Krishnamoorthi 2018, arXiv 1806.08342; Jacob et al. 2018, arXiv 1712.05877).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LEVELS = 255
"""Steps between the smallest and the largest activation."""
LARGEST_BIAS = 2**31 - 1


@dataclass(frozen=True)
class Affine:
    """Levels 0 to 255 that stand for `scale * (level - zero)`."""

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> "Affine":
        """Levels over a range, which always holds 0 exactly: padding, and what an activation cuts off, is 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        if not high > low:
            return cls(1.0, 0)
        # In float32, which is what the file holds; too small a scale has no reciprocal there.
        scale = float(np.float32(max((high - low) / LEVELS, 1e-30)))
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, LEVELS)))

    def times(self, factor: float) -> "Affine":
        """What the same levels stand for after a multiplication by a positive number."""
        return Affine(float(np.float32(self.scale * factor)), self.zero)


@dataclass(frozen=True)
class Layer:
    """A layer's rounded weights.

    Attributes:
        weight: int8 [out,...].
        scales: float32 [out], or [] where one stands for all.
        bias: int32 [out], in units of scales * the input's scale; None without one.
    """

    weight: NDArray[np.int8]
    scales: Floats
    bias: NDArray[np.int32] | None

    @property
    def floats(self) -> Floats:
        """The weights that the rounded ones stand for, float32 [out,...]."""
        return self.weight.astype(np.float32) * _spread(self.scales, self.weight.ndim)


def round_layer(
    weight: Floats, bias: Floats | None, *, source: Affine, per_channel: bool, bits: int, mean: Floats | None = None
) -> Layer:
    """Round the weights and the bias of a convolution or linear layer.

    Args:
        weight: [out, in / groups, ...].
        bias: [out], or None.
        source: of the layer's input.
        per_channel: a scale for every output, or one for all.
        bits: of a weight, 8, or 7 where the processor's products of 8 saturate.
        mean: expected input by channel of each output's group, [out, in / groups]: corrects the bias by what rounding
            the weights adds to the expected output (Nagel et al. 2019, arXiv 1906.04721, section 4.2); None leaves it.
    """
    largest = 2 ** (bits - 1) - 1
    flat = np.abs(weight.reshape(len(weight), -1))
    reach = flat.max(axis=1) if per_channel else flat.max(keepdims=True).reshape(1)
    scales = reach / np.float32(largest)
    if bias is not None:  # a scale so small that the bias has no int32 is widened: that channel is all but constant
        least = np.abs(bias) / np.float32(0.5 * LARGEST_BIAS * source.scale)
        scales = np.maximum(scales, least if per_channel else least.max())
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    levels = np.clip(np.rint(weight / _spread(scales, weight.ndim)), -largest, largest).astype(np.int8)
    rounded = Layer(levels, scales if per_channel else scales.reshape(()), None)
    if mean is not None:
        added = (rounded.floats - weight).reshape(*weight.shape[:2], -1).sum(axis=2)
        bias = (0.0 if bias is None else bias) - (added * mean).sum(axis=1)
    if bias is None:
        return rounded
    units = np.float64(source.scale) * scales.astype(np.float64)
    whole = np.clip(np.rint(bias / units), -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32)
    return Layer(rounded.weight, rounded.scales, whole)


def _spread(scales: Floats, ndim: int) -> Floats:
    return scales.reshape(-1, *(1 for _ in range(ndim - 1))) if scales.ndim else scales
