"""Which range of numbers each tensor's 255 steps are spent on, from what it held on pictures.

- minmax: all that was seen. Exact where nothing is extreme; one extreme number costs all others their precision.
- percentile: all but one in ten thousand on either side.
- entropy: the range whose rounded distribution tells least apart from the one that was seen (Kullback-Leibler, Migacz
  2017, 8-bit inference with TensorRT), among `TRIED` ranges that are cut on both sides alike.

A first pass finds the extremes, and the means by channel that correcting biases needs; only percentile and entropy need
a second one, which counts in `BINS` between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.insides import Insides
from netsmith.artifact.quantization import Calibration
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.numbers import Floats
from netsmith.errors import InputError
from netsmith.run.progress import Progress, silent

METHODS: tuple[Calibration, ...] = get_args(Calibration)
BINS = 4096
KEPT = 0.9999
"""Of the numbers on each side, by percentile."""
TRIED = 64
STEPS = 255
MEMORY = 128_000_000
"""Bytes of inner tensors at a time, about."""
BATCH = 32

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Observed:
    """What the float tensors of a graph held on N pictures.

    Attributes:
        extremes: smallest and largest number by tensor.
        means: by tensor that a layer reads, the mean of every channel, float32 [C].
        peaks: by tensor that a clip gives, the largest number of every channel, float32 [C].
        counts: by tensor, how many numbers fell into each of `BINS` equal parts of its extremes, int64 [BINS].
    """

    extremes: Ranges
    means: Mapping[str, Floats]
    peaks: Mapping[str, Floats]
    counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict[str, NDArray[np.int64]])

    def ranges(self, method: Calibration) -> dict[str, tuple[float, float]]:
        """The range to round each tensor over."""
        if method == "minmax":
            return dict(self.extremes)
        choose = percentile_range if method == "percentile" else entropy_range
        return {name: choose(self.counts[name], *ends) for name, ends in self.extremes.items()}


def observe(
    graph: Graph,
    pixels: NDArray[np.uint8],
    *,
    counted: bool,
    threads: int = 1,
    progress: Progress = silent,
) -> Observed:
    """Run pictures through the float graph and look at its tensors.

    Args:
        graph: float.
        pixels: uint8 [N,R,R,3], N >= 1, as `prepare` gives them.
        counted: whether percentile and entropy will be asked for.
        threads: of the runtime.
        progress: told the number of pictures that are done.

    Raises:
        InputError: the model computes what is no number.
    """
    names = graph.tensors()
    insides = Insides(graph.model, names, threads=threads)
    layers = {*graph.layers()}
    read_by_layers = {node.input[0] for node in graph.nodes if node.name in layers}
    clipped = {node.output[0] for node in graph.nodes if node.op_type == "Clip"}
    first = insides.run(np.ascontiguousarray(pixels[:1]))
    per_picture = sum(tensor.nbytes for tensor in first.values())
    batch = int(np.clip(MEMORY // max(1, per_picture), 1, BATCH))
    total = len(pixels) * (2 if counted else 1)
    lows, highs = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    sums: dict[str, NDArray[np.float64]] = {}
    peaks: dict[str, Floats] = {}
    for start in range(0, len(pixels), batch):
        found = insides.run(np.ascontiguousarray(pixels[start : start + batch]))
        for name, tensor in found.items():
            low, high = float(tensor.min()), float(tensor.max())
            if not np.isfinite(high - low):
                raise InputError(f"{name} is not a finite number for a calibration picture; train the model again")
            lows[name], highs[name] = min(lows[name], low), max(highs[name], high)
            if name in clipped:
                largest: Floats = tensor.max(axis=(0, *range(2, tensor.ndim)))
                peaks[name] = np.maximum(peaks.get(name, largest), largest)
            if name in read_by_layers:
                by_channel = tensor.reshape(*tensor.shape[:2], -1).mean(axis=2, dtype=np.float64).sum(axis=0)
                sums[name] = sums.get(name, 0.0) + by_channel
        progress("calibrating", min(start + batch, len(pixels)), total)
    extremes = {name: (lows[name], highs[name]) for name in names}
    means = {name: (each / len(pixels)).astype(np.float32) for name, each in sums.items()}
    if not counted:
        return Observed(extremes, means, peaks)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for start in range(0, len(pixels), batch):
        found = insides.run(np.ascontiguousarray(pixels[start : start + batch]))
        for name, tensor in found.items():
            counts[name] += _histogram(tensor, *extremes[name])
        progress("calibrating", len(pixels) + min(start + batch, len(pixels)), total)
    return Observed(extremes, means, peaks, counts)


def _histogram(values: Floats, low: float, high: float) -> NDArray[np.int64]:
    if not high > low:
        return np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)
    place = ((values.ravel() - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int32)
    return np.bincount(np.clip(place, 0, BINS - 1), minlength=BINS)


def percentile_range(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The part of a range that holds `KEPT` of the numbers from either end."""
    edges = np.linspace(low, high, BINS + 1)
    share = np.cumsum(counts) / max(1, int(counts.sum()))
    first = int(np.searchsorted(share, 1 - KEPT, side="right"))
    last = int(np.searchsorted(share, KEPT, side="left"))
    return float(edges[first]), float(edges[min(last + 1, BINS)])


def entropy_range(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The range, cut on both sides alike, whose rounding loses least information; see the module."""
    best, least = (low, high), np.inf
    if not high > low:
        return best
    centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    counts = _without_zeros(counts, low, high)
    total = int(counts.sum())
    for share in np.linspace(1.0, 1.0 / TRIED, TRIED):
        # An end on the near side of 0 is no end of the levels, which always reach to 0.
        cut = (min(low, 0.0) * share, max(high, 0.0) * share)
        inside = np.flatnonzero((centres >= cut[0]) & (centres <= cut[1]))
        if len(inside) < 2 or counts[inside].sum() < 0.5 * total:
            break
        seen = counts[inside].astype(np.float64)
        clipped = seen.copy()
        clipped[0] += counts[: inside[0]].sum()
        clipped[-1] += counts[inside[-1] + 1 :].sum()
        level = ((centres[inside] - cut[0]) * (STEPS / (cut[1] - cut[0]))).astype(np.int64)
        there = seen > 0
        mass = np.bincount(level, weights=seen)
        spread = np.bincount(level, weights=there)
        rounded = np.where(there, (mass / np.maximum(spread, 1))[level], 0.0)
        # What is cut off lands on the last level, which the rounded distribution of what is inside knows nothing of.
        lost = _divergence(clipped / clipped.sum(), rounded / max(1.0, rounded.sum()))
        if lost < least:
            least, best = lost, cut
    return best


def _without_zeros(counts: NDArray[np.int64], low: float, high: float) -> NDArray[np.int64]:
    """Counts as if zeros were as frequent as the numbers beside them.

    A ReLU and padding make many, all of which a level holds exactly. Left in, spreading them over their level would be
    nearly all of the divergence, and the narrowest range always the best.
    """
    zero = int(np.clip(-low / (high - low) * BINS, 0, BINS - 1))
    beside = [int(counts[at]) for at in (zero - 1, zero + 1) if 0 <= at < BINS]
    kept = counts.copy()
    kept[zero] = min(int(counts[zero]), max(beside))
    return kept


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of q from p, nats; what q lacks counts as one in a million."""
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-6))).sum())
