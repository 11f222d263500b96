"""Batches as a pure function of the step, prepared ahead by threads.

The training split is read as one endless stream: the order of epoch 0, then that of epoch 1, and so on, each a fresh
permutation (or, balanced, one that shows every class equally often, see `order`). Batch number s holds the stream's
places s * B ... s * B + B - 1, so it may begin in one epoch and end in the next. Hence

- every picture is seen exactly once per epoch and nothing is dropped or repeated to fill up; mixed pictures come once
  themselves and once as the partner of the next in the batch;
- every batch has exactly B pictures (batch norm never meets a stray single one), also when the split is smaller than B;
- training can go on at any step without replaying the earlier ones, and batches do not depend on the number of workers.

Threads rather than processes: the work is numpy and torch code that releases the interpreter, and the pictures are
not copied between address spaces. Each computes alone: what it works on is small and in its cache, and sharing it with
threads that training wants for itself costs more than it gains. Where nobody says how many, one keeps up with pictures
that are kept as pixels. Those that are decoded at every use get a thread per core: the threads work only while fewer
batches are ready than were asked for, so they take from training what it would spend waiting for them.
"""

import ctypes
import hashlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from netsmith.data.cache import Prepared
from netsmith.data.items import Targets
from netsmith.data.masters import Masters, decoded_at_every_use, filled_ahead
from netsmith.run.machine import machine
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.run.scores import are_tags
from netsmith.run.world import World
from netsmith.train.augment.mixing import Mixing, mix, mixed_targets
from netsmith.train.augment.pipeline import Augmentation, Images
from netsmith.train.batch import Batch, Delivery, Sent
from netsmith.train.order import balanced_order, plain_order
from netsmith.train.rendering import Rendered

AHEAD = 2  # batches ready or in work per worker, beside one more
MOST_WORKERS = 16  # that are not asked for


@dataclass(frozen=True)
class TrainingData:
    """Pictures to train on and to validate with.

    Attributes:
        images: N pictures uint8 [H,W,3], of one size or many.
        labels: int64 [N], or bool [N,C] of tags.
        val_pixels: uint8 [M,R,R,3], as `prepare` gives them; M may be 0.
        val_labels: int64 [M], or bool [M,C].
        preprocess: of the network.
        fingerprint: equal only for the same pictures in the same order.
    """

    images: Images
    labels: Targets
    val_pixels: NDArray[np.uint8]
    val_labels: Targets
    preprocess: Preprocess
    fingerprint: str

    @classmethod
    def of(cls, train: Masters, val: Prepared, preprocess: Preprocess) -> Self:
        """From the pixel caches of two splits."""
        shown = _tags_as_text(train.labels) if are_tags(train.labels) else train.labels.tolist()
        rows = (f"{key} {label}\n" for key, label in zip(train.keys, shown, strict=True))
        fingerprint = hashlib.sha256("".join(rows).encode()).hexdigest()
        return cls(train, train.labels, val.pixels, val.labels, preprocess, fingerprint)


def _tags_as_text(labels: NDArray[np.bool_]) -> list[str]:
    return [",".join(map(str, np.flatnonzero(row))) for row in labels]


def _unchanged(step: int) -> int | None:
    return None


class Feed:
    """The stream of augmented batches.

    Args:
        images: the training pictures, at least one.
        labels: int64 [N], or bool [N,C] of tags.
        augmentation: what is done to them.
        batch_size: B >= 1.
        seed: of the run.
        mixing: of the pictures of a batch, or None.
        balanced: show every class equally often.
        rendered: the pictures on the device that renders them; None renders here.
        delivery: brings batches to the device that trains; None leaves them where they are rendered.
        part: gives this process's part of so many places of a batch; all of them when None.
    """

    def __init__(
        self,
        images: Images,
        labels: Targets,
        *,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        mixing: Mixing | None = None,
        balanced: bool = False,
        rendered: Rendered | None = None,
        delivery: Delivery | None = None,
        part: Callable[[int], slice] | None = None,
    ) -> None:
        assert len(images) == len(labels) > 0, (len(images), len(labels))
        self.images = images
        self.labels = labels
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.seed = seed
        self.mixing = mixing
        self.balanced = balanced
        self.rendered = rendered
        self.delivery = delivery or Delivery(torch.device("cpu"))
        self.part = slice(batch_size) if part is None else part(batch_size)
        self.classes = labels.shape[1] if are_tags(labels) else 1 + int(labels.max())
        self._order = lru_cache(maxsize=4)(self._order_of)
        self._augmentation_at = lru_cache(maxsize=16)(augmentation.at)

    @classmethod
    def of(
        cls,
        data: TrainingData,
        recipe: Recipe,
        *,
        batch_size: int,
        rendered: Rendered | None = None,
        delivery: Delivery | None = None,
        part: Callable[[int], slice] | None = None,
    ) -> Self:
        """What `recipe` makes of the training pictures; other arguments as above."""
        return cls(
            data.images,
            data.labels,
            augmentation=Augmentation.of(recipe, data.preprocess),
            batch_size=batch_size,
            seed=recipe.seed,
            mixing=Mixing.of(recipe),
            balanced=recipe.class_balance == "sampling",
            rendered=rendered,
            delivery=delivery,
            part=part,
        )

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if self.balanced:
            assert not are_tags(self.labels), "refused where the recipe is made"
            return balanced_order(cast(NDArray[np.int64], self.labels), seed=self.seed, epoch=epoch)
        return plain_order(len(self.labels), seed=self.seed, epoch=epoch)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch visits the pictures, int64 [N]."""
        return self._order(epoch)

    def batch(self, step: int, side: int | None = None) -> Batch:
        """The batch of `step`, or this process's part of it: a function of the seed, the step and the side of its
        pictures alone.

        Args:
            step: its number.
            side: R, pixels, where it is not the augmentation's.
        """
        augmentation = self._augmentation_at(side or self.augmentation.size)
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        images, labels = self._pictures(places[self.part], augmentation)
        if self.mixing is None:
            targets = torch.from_numpy(labels)
            return Batch(images, targets.float() if are_tags(labels) else targets)
        mixture = self.mixing.draw(seed=self.seed, step=step, size=augmentation.size)
        alone = len(labels) == self.batch_size
        if not alone:  # the partner of the first is another process's picture
            before, its_label = self._pictures(places[self.part.start - 1 :][:1], augmentation)
            images, labels = torch.cat([before, images]), cast(Targets, np.concatenate([its_label, labels]))
        images, targets = mix(images, mixture), mixed_targets(labels, mixture, classes=self.classes)
        return Batch(images, targets) if alone else Batch(images[1:], targets[1:])

    def _pictures(self, places: NDArray[np.int64], augmentation: Augmentation) -> tuple[torch.Tensor, Targets]:
        """What is shown at places of the stream, in ascending order, and its labels."""
        epochs, positions = np.divmod(places, len(self.labels))
        parts = [
            self._of_epoch(epoch, positions[epochs == epoch], augmentation) for epoch in np.unique(epochs).tolist()
        ]
        images = parts[0][0] if len(parts) == 1 else torch.cat([images for images, _ in parts])
        return images, cast(Targets, np.concatenate([labels for _, labels in parts]))

    def _of_epoch(
        self, epoch: int, positions: NDArray[np.int64], augmentation: Augmentation
    ) -> tuple[torch.Tensor, Targets]:
        chosen = self.order(epoch)[positions]
        if self.rendered is None:
            sources = [self.images[index] for index in chosen.tolist()]
            shapes = np.array([source.shape[:2] for source in sources], dtype=np.int64)
        else:
            sources = self.rendered.take(chosen)
            shapes = sources.shapes
        changes = augmentation.draw(shapes, seed=self.seed, epoch=epoch, positions=positions, pictures=chosen)
        return augmentation.render(sources, changes), self.labels[chosen]

    def delivered(self, step: int, side: int | None = None) -> Batch:
        """The batch of `step` on the device that trains; arguments as `batch`."""
        return self.delivery.receive(self._dispatched(step, side))

    def _dispatched(self, step: int, side: int | None) -> Sent:
        return self.delivery.dispatch(lambda: self.batch(step, side))

    def batches(
        self, start: int, *, workers: int | None = None, side: Callable[[int], int | None] = _unchanged
    ) -> Generator[Batch, None, None]:
        """Batches of steps `start`, `start` + 1, ... without end, on the device that trains, prepared ahead.

        Close the generator to stop the threads; whatever goes wrong in a thread is raised here, at the step it
        belongs to.

        Args:
            start: first step.
            workers: threads; 0 prepares each batch when it is asked for; None: as many as suit the pictures.
            side: of the pictures of a step, see `batch`. What it says of coming steps may change until their batch is
                asked for: those that were prepared at another side are prepared again.
        """
        with filled_ahead(self.images, self._from(start)):
            yield from self._batches(start, self.own_workers() if workers is None else workers, side)

    def own_workers(self) -> int:
        """Threads that prepare batches where nobody says how many; on a CPU training keeps a core for itself."""
        if not decoded_at_every_use(self.images):
            return 1
        cores = machine().cores_usable // World.here().local_size
        return max(1, min(MOST_WORKERS, cores - (self.delivery.device.type == "cpu")))

    def _from(self, step: int) -> Generator[int]:
        """All pictures, in the order in which batches from `step` on need them, this process's of an epoch first."""
        epoch, position = divmod(step * self.batch_size, len(self.labels))
        order = self.order(epoch)[position:]
        places = np.arange(len(order)) % self.batch_size
        ours = (places >= (self.part.start or 0)) & (places < self.part.stop)
        yield from order[ours].tolist()
        yield from order[~ours].tolist()
        yield from range(len(self.labels))

    def _batches(self, start: int, workers: int, side: Callable[[int], int | None]) -> Generator[Batch, None, None]:
        if workers == 0:
            for step in count(start):
                yield self.delivered(step, side(step))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="netsmith-feed", initializer=_compute_alone)

        def prepare(step: int) -> tuple[int | None, Future[Sent]]:
            wanted = side(step)
            return wanted, pool.submit(self._dispatched, step, wanted)

        pending: deque[tuple[int | None, Future[Sent]]] = deque()
        try:
            ahead = AHEAD * workers + 1
            pending.extend(prepare(step) for step in range(start, start + ahead))
            for step in count(start):
                if pending[0][0] != side(step):
                    for _, future in pending:
                        future.cancel()
                    pending = deque(prepare(each) for each in range(step, step + ahead))
                sent = pending.popleft()[1].result()
                pending.append(prepare(step + ahead))
                yield self.delivery.receive(sent)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _compute_alone() -> None:
    """Let torch compute with one thread when the calling thread asks it to, and leave the other threads as they are.

    `torch.set_num_threads` would also be the default of threads that begin to compute later; OpenMP's own setting
    belongs to the thread alone. Where there is no such function nothing changes but the speed.
    """
    torch.get_num_threads()  # torch gives a thread its default when it first computes; that must lie behind
    alone = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    if alone is not None:
        alone(1)
