"""Updates on copies of the network, to find out how fast each way to compute is; the network itself is not touched.

A whole batch is timed where there is time for it, else as many pictures as let the warm-up and two more updates of
every way fit. Where not even a few fit, the default is compared with the first other way alone; where that does not fit
either, nothing is compared and the default stands.
"""

import copy
from collections.abc import Callable, Sequence

import torch

from netsmith.run.clock import Clock
from netsmith.run.recipe import Recipe
from netsmith.train.accumulation import Parts
from netsmith.train.devices import synchronize
from netsmith.train.feed import Batch
from netsmith.train.objectives import Objective
from netsmith.train.optimizers import build_optimizer
from netsmith.train.pacing import Pacing
from netsmith.train.precision import WARM_UPS, Precision, Timing, Way, measure
from netsmith.train.shortage import OutOfMemory
from netsmith.train.step import update
from netsmith.train.sync_norm import plain

FEWEST = 4  # pictures per update

Trial = Callable[[Way, int], Callable[[], object]]
"""For a way and a number of pictures, a function that does one update."""


class Trials:
    """Times updates.

    Args:
        objective: with the network, on its device.
        recipe: its optimizer is used.
        batch: gives a batch on the device.
        parts: that batches are computed in; more where memory runs out here.
        pacing: its pace is used where it is known.
        clock: reads time.
    """

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        batch: Callable[[], Batch],
        *,
        parts: Parts,
        pacing: Pacing,
        clock: Clock,
    ) -> None:
        self._objective, self._recipe, self._batch, self._parts = objective, recipe, batch, parts
        self._pacing, self._clock = pacing, clock

    def precisions(self, ways: Sequence[Precision], seconds: float) -> list[Timing[Precision]]:
        """Time precisions in about `seconds`, the default first; those for which no time is left are missing."""
        return self._measure(ways, self._trial, seconds, default=ways[0])

    def threads(self, ways: Sequence[int], seconds: float, *, precision: Precision) -> list[Timing[int]]:
        """Time numbers of CPU threads, as `precisions`; afterwards torch has the first of them."""

        def trial(threads: int, pictures: int) -> Callable[[], object]:
            once = self._trial(precision, pictures)

            def update() -> object:
                torch.set_num_threads(threads)  # ways are timed in turn
                return once()

            return update

        timings = self._measure(ways, trial, seconds, default=precision)
        torch.set_num_threads(ways[0])
        return timings

    def _measure(
        self, ways: Sequence[Way], trial: Trial[Way], seconds: float, *, default: Precision
    ) -> list[Timing[Way]]:
        batch_size = len(self._batch().targets)
        few = min(FEWEST, batch_size)
        per_picture = self._pacing.per_step / batch_size or self._seconds_per_picture(default, few)
        for several in (ways, ways[:2]):
            fitting = int(seconds / max(len(several) * (WARM_UPS + 2) * per_picture, 1e-9))
            if fitting >= few:
                break
        else:
            return [Timing(ways[0], per_picture * batch_size)]
        pictures = min(batch_size, fitting)
        timings = measure(several, lambda way: trial(way, pictures), clock=self._clock, seconds=seconds)
        return [Timing(timing.way, timing.seconds * batch_size / pictures) for timing in timings]

    def _seconds_per_picture(self, way: Precision, pictures: int) -> float:
        once = self._trial(way, pictures)
        once()  # builds and caches kernels
        began = self._clock.now()
        once()
        return (self._clock.now() - began) / pictures

    def _trial(self, way: Precision, pictures: int) -> Callable[[], object]:
        whole = self._batch()
        batch = Batch(whole.images[:pictures], whole.targets[:pictures])
        objective = copy.deepcopy(self._objective).train()
        plain(objective.network)  # other processes wait meanwhile
        way.apply(objective.network)
        optimizer = build_optimizer(objective.network, self._recipe)

        def once() -> object:
            while True:
                parts = self._parts.of(pictures, step=0)
                try:
                    # At a rate of 0 the copy's weights stay ordinary numbers, which all take the same time.
                    done = update(objective, optimizer, batch, rate=0.0, precision=way, parts=parts, check=False)
                    synchronize(batch.images.device)
                    return done.loss
                except OutOfMemory as error:
                    self._parts.divide(0, error)

        return once
