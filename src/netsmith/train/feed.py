"""Batches as a pure function of the step, prepared ahead by threads.

The training split is read as one endless stream: the order of epoch 0, then that of epoch 1, and so on, each a fresh
permutation. Batch number s holds the stream's places s * B ... s * B + B - 1, so it may begin in one epoch and end
in the next. Hence

- every picture is seen exactly once per epoch and nothing is dropped or repeated to fill up;
- every batch has exactly B pictures (batch norm never meets a stray single one), also when the split is smaller than B;
- training can go on at any step without replaying the earlier ones, and batches do not depend on the number of workers.

Threads rather than processes: the work is numpy and torch code that releases the interpreter, and the pictures are
not copied between address spaces. One thread keeps up on a few cores.
"""

import hashlib
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from netsmith.data.cache import Prepared
from netsmith.data.masters import Masters, filled_ahead
from netsmith.run.preprocess import Preprocess
from netsmith.train.augment import Augmentation, Images
from netsmith.train.draws import permutation, stream_key

AHEAD = 3  # batches ready or in work per worker


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        images: uint8 [B,3,R,R], channels last in memory.
        targets: int64 [B].
    """

    images: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class TrainingData:
    """Pictures to train on and to validate with.

    Attributes:
        images: N pictures uint8 [H,W,3], of one size or many.
        labels: int64 [N].
        val_pixels: uint8 [M,R,R,3], as `prepare` gives them; M may be 0.
        val_labels: int64 [M].
        preprocess: of the network.
        fingerprint: equal only for the same pictures in the same order.
    """

    images: Images
    labels: NDArray[np.int64]
    val_pixels: NDArray[np.uint8]
    val_labels: NDArray[np.int64]
    preprocess: Preprocess
    fingerprint: str

    @classmethod
    def of(cls, train: Masters, val: Prepared, preprocess: Preprocess) -> Self:
        """From the pixel caches of two splits."""
        rows = (f"{key} {label}\n" for key, label in zip(train.keys, train.labels.tolist(), strict=True))
        fingerprint = hashlib.sha256("".join(rows).encode()).hexdigest()
        return cls(train, train.labels, val.pixels, val.labels, preprocess, fingerprint)


class Feed:
    """The stream of augmented batches.

    Args:
        images: the training pictures, at least one.
        labels: int64 [N].
        augmentation: what is done to them.
        batch_size: B >= 1.
        seed: of the run.
    """

    def __init__(
        self,
        images: Images,
        labels: NDArray[np.int64],
        *,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
    ) -> None:
        assert len(images) == len(labels) > 0, (len(images), len(labels))
        self.images = images
        self.labels = labels
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.seed = seed
        self._order = lru_cache(maxsize=4)(self._permute)

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        return permutation(stream_key(self.seed, "order", epoch), len(self.labels))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch visits the pictures, int64 [N]."""
        return self._order(epoch)

    def batch(self, step: int) -> Batch:
        """The batch of `step`, a function of the seed and the step alone."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, positions = np.divmod(places, len(self.labels))
        parts = [self._part(epoch, positions[epochs == epoch]) for epoch in np.unique(epochs).tolist()]
        if len(parts) == 1:
            return parts[0]
        images = torch.cat([part.images for part in parts])
        return Batch(images, torch.cat([part.targets for part in parts]))

    def _part(self, epoch: int, positions: NDArray[np.int64]) -> Batch:
        chosen = self.order(epoch)[positions]
        sources = [self.images[index] for index in chosen.tolist()]
        shapes = np.array([source.shape[:2] for source in sources], dtype=np.int64)
        moves = self.augmentation.draw(shapes, seed=self.seed, epoch=epoch, positions=positions)
        return Batch(self.augmentation.render(sources, moves), torch.from_numpy(self.labels[chosen]))

    def batches(self, start: int, *, workers: int = 1) -> Generator[Batch, None, None]:
        """Batches of steps `start`, `start` + 1, ... without end, prepared ahead.

        Close the generator to stop the threads; whatever goes wrong in a thread is raised here, at the step it
        belongs to.

        Args:
            start: first step.
            workers: threads; 0 prepares each batch when it is asked for.
        """
        with filled_ahead(self.images, self._from(start)):
            yield from self._batches(start, workers)

    def _from(self, step: int) -> Generator[int]:
        """All pictures, in the order in which batches from `step` on need them."""
        epoch, position = divmod(step * self.batch_size, len(self.labels))
        yield from self.order(epoch)[position:].tolist()
        yield from range(len(self.labels))

    def _batches(self, start: int, workers: int) -> Generator[Batch, None, None]:
        if workers == 0:
            step = start
            while True:
                yield self.batch(step)
                step += 1
        pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="netsmith-feed")
        pending: deque[Future[Batch]] = deque()
        try:
            for step in range(start, start + AHEAD * workers):
                pending.append(pool.submit(self.batch, step))
            step = start + len(pending)
            while True:
                batch = pending.popleft().result()
                pending.append(pool.submit(self.batch, step))
                step += 1
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
