"""Golden examples: encoded pictures, their pixels and their probabilities, so that a foreign runtime can test both
halves.

`golden.npz` holds plain arrays and no objects: `bytes` uint8 [total] and `offsets` int64 [K+1] (picture k is
`bytes[offsets[k]:offsets[k+1]]`), `pixels` uint8 [K,R,R,3], `probabilities` float32 [K,C], which are ONNX Runtime's,
and `probabilities_RUNTIME`, alike, for another runtime that the artifact was judged in: what is rounded as it computes
differs from one to another by more than a tolerance could bear. The file is the same for the same content. Generated
pictures are PNG, because decoders of JPEG differ in the last bit and PNG is exact.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netsmith.data.arrays import read_arrays
from netsmith.data.prepare import prepare
from netsmith.errors import InputError
from netsmith.run.preprocess import Preprocess

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pixels uint8 [K,R,R,3] -> probabilities float32 [K,C]."""
_OTHERS = "probabilities_"
_MAX_BYTES = 2**30  # of the unpacked file: examples are few, and a hostile archive must not fill the memory


@dataclass(frozen=True)
class Golden:
    """K examples.

    Attributes:
        encoded: the pictures as files.
        pixels: what they are prepared to, uint8 [K,R,R,3].
        probabilities: ONNX Runtime's, float32 [K,C].
        others: those of other runtimes that the artifact was judged in, by their names.
    """

    encoded: tuple[bytes, ...]
    pixels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    others: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])

    def __post_init__(self) -> None:
        count = len(self.encoded)
        assert count > 0, "an artifact has at least one golden example"
        assert (self.pixels.dtype, self.pixels.ndim, len(self.pixels)) == (np.uint8, 4, count)
        assert (self.probabilities.dtype, self.probabilities.ndim, len(self.probabilities)) == (np.float32, 2, count)
        assert all((a.dtype, a.shape) == (np.float32, self.probabilities.shape) for a in self.others.values())

    def of(self, runtime: str) -> NDArray[np.float32]:
        """Probabilities float32 [K,C] that a runtime is held against: its own where the artifact was judged in it."""
        return self.others.get(runtime, self.probabilities)

    def to_bytes(self) -> bytes:
        """Content of `golden.npz`."""
        offsets = np.cumsum([0, *map(len, self.encoded)], dtype=np.int64)
        others: dict[str, Any] = {f"{_OTHERS}{runtime}": self.others[runtime] for runtime in sorted(self.others)}
        content = io.BytesIO()
        np.savez_compressed(
            content,
            bytes=np.frombuffer(b"".join(self.encoded), np.uint8),
            offsets=offsets,
            pixels=self.pixels,
            probabilities=self.probabilities,
            **others,
        )
        return content.getvalue()

    @classmethod
    def load(cls, path: Path, *, of: tuple[int, int] | None = None) -> Self:
        """Read `golden.npz`.

        Args:
            path: of the file.
            of: R and C of the model that they must be of; None takes those of any.

        Raises:
            InputError: the file is missing, damaged, too large, of another model, or its arrays do not agree.
        """
        try:
            arrays = read_arrays(path, largest=_MAX_BYTES)
            joined, offsets = arrays["bytes"], arrays["offsets"]
            pixels, probabilities = arrays["pixels"], arrays["probabilities"]
            others = {name.removeprefix(_OTHERS): arrays[name] for name in arrays if name.startswith(_OTHERS)}
            _check(joined, offsets, pixels, probabilities, others)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); export the artifact again") from error
        if of is not None and (pixels.shape[1:], probabilities.shape[1]) != ((of[0], of[0], 3), of[1]):
            raise InputError(f"{path} is not of the model in config.json; export the artifact again")
        bounds = offsets.tolist()
        encoded = tuple(joined[a:b].tobytes() for a, b in pairwise(bounds))
        return cls(encoded, pixels, probabilities, others)


def _check(
    joined: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    pixels: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    others: Mapping[str, NDArray[np.float32]],
) -> None:
    kinds = [(array.dtype.name, array.ndim) for array in (joined, offsets, pixels, probabilities)]
    if kinds != [("uint8", 1), ("int64", 1), ("uint8", 4), ("float32", 2)]:
        raise ValueError("its arrays have other types than golden examples have")
    if not len(offsets) - 1 == len(pixels) == len(probabilities) > 0:
        raise ValueError("its arrays do not agree in their number of examples")
    if any((each.dtype.name, each.shape) != ("float32", probabilities.shape) for each in others.values()):
        raise ValueError("its probabilities of other runtimes are not like those of ONNX Runtime")
    if not all(np.isfinite(each).all() for each in (probabilities, *others.values())):
        raise ValueError("its probabilities are no numbers")
    bounds = [0, *offsets.tolist(), len(joined)]
    if offsets[0] != 0 or offsets[-1] != len(joined) or bounds != sorted(bounds):
        raise ValueError("its offsets do not fit its bytes")


def make_golden(
    encoded: Sequence[bytes], preprocess: Preprocess, run: Run, *, others: Mapping[str, Run] | None = None
) -> Golden:
    """Prepare and classify examples.

    Args:
        encoded: at least one picture, encoded.
        preprocess: of the model.
        run: the artifact in ONNX Runtime.
        others: it in other runtimes that it was judged in, by their names.
    """
    pixels = np.stack([prepare(picture, preprocess) for picture in encoded])
    return Golden(tuple(encoded), pixels, run(pixels), {name: other(pixels) for name, other in (others or {}).items()})


def synthetic_examples(preprocess: Preprocess, *, count: int = 4, seed: int = 0) -> list[bytes]:
    """Generate pictures that show nothing private: smooth waves under rectangles and noise, encoded as PNG.

    Sizes and aspect ratios differ so that both resizing directions and the crop are exercised; RGB, grey and RGBA take
    turns.

    Args:
        preprocess: of the model; sizes are between 0.6 and 2.2 times its R.
        count: number of pictures, >= 1.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    return [_picture(rng, preprocess.size, ("RGB", "L", "RGBA")[index % 3]) for index in range(count)]


def _picture(rng: np.random.Generator, size: int, mode: str) -> bytes:
    height, width = (max(1, round(size * rng.uniform(0.6, 2.2))) for _ in range(2))
    y, x = np.mgrid[0:height, 0:width] / size
    channels: list[NDArray[np.float64]] = []
    for _ in range(len(mode)):
        fy, fx, phase = rng.uniform(-3, 3), rng.uniform(-3, 3), rng.uniform(0, 2 * np.pi)
        channels.append(127 + 90 * np.cos(2 * np.pi * (fy * y + fx * x) + phase))
    image = np.stack(channels, axis=-1)
    for _ in range(4):
        top, left = rng.integers(0, height), rng.integers(0, width)
        bottom, right = top + 1 + rng.integers(0, height), left + 1 + rng.integers(0, width)
        image[top:bottom, left:right] = rng.uniform(0, 255, len(mode))
    image += rng.normal(0, 12, image.shape)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels).save(content, "PNG")
    return content.getvalue()
