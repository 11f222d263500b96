"""Small pictures and folders of them for tests of data."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """uint8 [H,W,3]: smooth enough that JPEG keeps it recognisable, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 4, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def class_files(counts: dict[str, int], *, seed: int = 0) -> dict[str, bytes]:
    """Relative path -> bytes of a PNG, all different, e.g. {"cat/0.png": ...} for {"cat": 1}."""
    files: dict[str, bytes] = {}
    for name, count in counts.items():
        for index in range(count):
            seed += 1
            files[f"{name}/{index}.png"] = encoded(noise(seed))
    return files


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """Write relative paths below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
