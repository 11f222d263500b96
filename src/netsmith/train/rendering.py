"""Training pictures for a device that renders them itself: kept there where they fit, else sent batch by batch.

Choices made on purpose:

- CUDA devices render (`augment.packed`), others are given rendered batches: mps shares memory and bandwidth with the
  CPU, and on xla every size of box would be compiled.
- Whether a device renders decides the last bit of resized pictures, so it is a plan row, obeyed wherever the run goes
  on, on a CPU too. Whether pictures are kept there decides nothing but speed.
- They move there at once when all of them are decoded: those of a cache that is still filled are sent until then.
- Trainings of one process that are given the same pictures share them there, as the candidates of a race are.
"""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from netsmith.data.masters import Masters
from netsmith.data.store import offsets_of
from netsmith.train.augment.packed import Packed
from netsmith.train.augment.pipeline import Images
from netsmith.train.devices import free_memory
from netsmith.train.planning import Planner

RESIDENT_SHARE = 0.4
"""Of the device's free memory that pictures may take; the rest is for the network and its activations."""
COPIED_AT_ONCE = 2**28
"""Bytes."""

Place = Literal["resident", "streamed", "host"]
"""Where a plan says that pictures are: on the device that renders them, sent there for every batch, or rendered by the
CPU."""


_kept_here: dict[tuple[int, torch.device], tuple["weakref.ref[Images]", "weakref.ref[torch.Tensor]"]] = {}
"""What trainings of this process have on devices, by the pictures' identity, which is another's once they are gone."""
_turn = threading.Lock()


class Rendered:
    """Pictures that a device renders.

    Args:
        images: the training pictures.
        device: that renders.
        keep: keep them all on the device, once they are decoded.
        warn: told when they cannot be kept after all.
    """

    def __init__(
        self, images: Images, device: torch.device, *, keep: bool, warn: Callable[[str], None] | None = None
    ) -> None:
        self._images, self._device = images, device
        self._keep, self._warn = keep, warn
        self._shapes = shapes_of(images)
        self._starts = offsets_of(self._shapes) // 3
        self._pixels: torch.Tensor | None = None

    @property
    def resident(self) -> bool:
        """Whether all pictures are on the device."""
        return self._pixels is not None

    def take(self, chosen: NDArray[np.int64]) -> Packed:
        """Pictures int64 [B], on the device or on their way.

        Raises:
            InputError: one cannot be read any more.
        """
        pixels = self._kept()
        if pixels is not None:
            return Packed(pixels, self._starts[chosen], self._shapes[chosen])
        sources = [self._images[index].reshape(-1) for index in chosen.tolist()]
        shapes = self._shapes[chosen]
        offsets = offsets_of(shapes)
        together = torch.empty(int(offsets[-1]), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        np.concatenate(sources, out=together.numpy())
        pixels = together.to(self._device, non_blocking=True).view(-1, 3)
        return Packed(pixels, offsets[:-1] // 3, shapes)

    def _kept(self) -> torch.Tensor | None:
        if self._pixels is not None or not self._keep:
            return self._pixels
        with _turn:
            if self._pixels is None:
                self._pixels = _shared(self._images, self._device)
            if self._pixels is None and self._keep and (flat := _flat(self._images)) is not None:
                try:
                    self._pixels = _copied(flat, self._device)
                    _share(self._images, self._pixels, self._device)
                except torch.OutOfMemoryError:
                    self._keep = False
                    if self._warn is not None:
                        self._warn(
                            f"there is no room for the training pictures on {self._device} after all: they are sent "
                            "batch by batch, which gives the same weights"
                        )
        return self._pixels


def choose_rendering(
    images: Images, device: torch.device, *, planner: Planner, warn: Callable[[str], None]
) -> Rendered | None:
    """Let a device render where the plan says so, or as suits the device of the training; None: the CPU, its own way.

    Args:
        images: the training pictures.
        device: of the training.
        planner: of the run.
        warn: told where pictures do not fit, or where they are rendered on another device than before.
    """
    if device.type != "cuda":
        if planner.rendering("host") == "host":
            return None
        warn(
            f"this run began on a GPU that renders pictures; on {device} the CPU renders them the same way, more slowly"
        )
        return Rendered(images, torch.device("cpu"), keep=False)
    count, room = int(offsets_of(shapes_of(images))[-1]), _room(device)
    place: Place = "resident" if count <= room or _shared(images, device) is not None else "streamed"
    if planner.rendering(place) == "host":
        return None
    if place == "streamed":
        warn(
            f"the training pictures ({count / 1e9:.2f} GB) do not fit into {RESIDENT_SHARE:.0%} of what is free on "
            f"{device} ({room / 1e9:.2f} GB): they are sent batch by batch, which gives the same weights"
        )
    return Rendered(images, device, keep=place == "resident", warn=warn)


def _room(device: torch.device) -> int:
    """Bytes that pictures may take."""
    free = free_memory(device)
    return 0 if free is None else int(RESIDENT_SHARE * free)


def _share(images: Images, pixels: torch.Tensor, device: torch.device) -> None:
    with suppress(TypeError):  # what nothing can refer to weakly, such as a list, is not shared
        _kept_here[id(images), device] = weakref.ref(images), weakref.ref(pixels)


def _shared(images: Images, device: torch.device) -> torch.Tensor | None:
    """All pictures, where another training has them on the device."""
    if (id(images), device) not in _kept_here:
        return None
    of, there = _kept_here[id(images), device]
    pixels = there() if of() is images else None
    if pixels is not None and pixels.is_cuda:
        pixels.record_stream(torch.cuda.current_stream(device))  # which is another than where their memory was taken
    return pixels


def shapes_of(images: Images) -> NDArray[np.int64]:
    """int64 [N,2]: height and width of each picture, without decoding any that says so itself."""
    if isinstance(images, Masters):
        return images.shapes
    shapes = [images[index].shape[:2] for index in range(len(images))]
    return np.array(shapes, dtype=np.int64).reshape(-1, 2)


def _flat(images: Images) -> NDArray[np.uint8] | None:
    """uint8 [bytes of all pictures], None while some are not decoded."""
    if isinstance(images, Masters):
        return images.pictures.pixels
    return np.concatenate([images[index].reshape(-1) for index in range(len(images))])


def _copied(flat: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """uint8 [P,3] on the device, a piece at a time: the whole may be larger than the computer's memory."""
    there = torch.empty(len(flat), dtype=torch.uint8, device=device)
    for first in range(0, len(flat), COPIED_AT_ONCE):
        piece = np.array(flat[first : first + COPIED_AT_ONCE])  # a copy: caches are read-only
        there[first : first + len(piece)].copy_(torch.from_numpy(piece))
    return there.view(-1, 3)
