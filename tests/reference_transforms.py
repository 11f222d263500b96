"""torchvision's transforms, for tests that compare with them."""

import types

import numpy as np
import torch
from PIL import Image
from reference_models import without_operators
from torch import Tensor

Array = np.ndarray


def torchvision_transforms() -> types.ModuleType:
    """`torchvision.transforms`; ImportError where it is not installed."""
    without_operators()
    import torchvision.transforms.autoaugment
    import torchvision.transforms.functional
    import torchvision.transforms.v2

    return torchvision.transforms


def photos(count: int, side: int, *, seed: int = 0) -> Tensor:
    """uint8 [count,3,side,side]: smooth colours with some noise, some dark, some of few levels, one of a single one."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    pictures = np.empty((count, side, side, 3), dtype=np.uint8)
    for picture in pictures:
        scale, phase = draw.uniform(2, 9, (2, 3)), draw.uniform(0, 6, 3)
        waves = np.sin(rows[..., None] / scale[0] + phase) * np.cos(columns[..., None] / scale[1])
        level, reach = draw.uniform(40, 200, 3), draw.uniform(5, 120)
        picture[...] = np.clip(level + reach * waves + draw.normal(0, 3, waves.shape), 0, 255)
    pictures[1] //= 60
    pictures[2] = (12, 200, 77)
    pictures[3, :, :, 1:] = pictures[3, :, :, :1]  # grey
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def as_pillow(image: Tensor) -> Image.Image:
    """uint8 [3,R,R] as a Pillow picture."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def as_tensor(image: Image.Image) -> Tensor:
    """The reverse."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def largest_difference(ours: Tensor, theirs: Tensor) -> int:
    """In grey levels."""
    return int((ours.int() - theirs.int()).abs().max())
