"""Updates on a copy of the network, to find out how fast each way to compute is; the network itself is not touched.

A whole batch is timed where there is time for it, else as many pictures as let the warm-up and two more updates of
every way fit. Where not even a few fit, the default is compared with the first other way alone; where that does not fit
either, nothing is compared and the default stands.

All ways take turns on one copy, so that measuring needs no more memory than a network and an update beside the one that
is to be trained. Where even that is too much, the way is timed in smaller parts of the batch, as it would be trained;
what the run does about its own memory is found out by its own updates. Where there is no room for the copy at all,
whoever asked learns that nothing can be timed.
"""

import copy
from collections.abc import Callable, Sequence

import torch

from netsmith.run.clock import Clock
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.train.accumulation import Parts
from netsmith.train.devices import synchronize
from netsmith.train.feed import Batch
from netsmith.train.objectives import Objective
from netsmith.train.optimizers import build_optimizer
from netsmith.train.pacing import Pacing
from netsmith.train.precision import WARM_UPS, Precision, Timing, Way, measure
from netsmith.train.shortage import OutOfMemory, enough_memory
from netsmith.train.step import update
from netsmith.train.sync_norm import plain

FEWEST = 4  # pictures per update


class Trials:
    """Times updates.

    Args:
        objective: with the network, on its device.
        recipe: its optimizer and `grad_accum` are used.
        batch: gives a batch on the device.
        pacing: its pace is used where it is known.
        clock: reads time.
        show: told how far the measurement is.
    """

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        batch: Callable[[], Batch],
        *,
        pacing: Pacing,
        clock: Clock,
        show: Progress = silent,
    ) -> None:
        self._objective, self._recipe, self._batch = objective, recipe, batch
        self._pacing, self._clock, self._show = pacing, clock, show

    def precisions(self, ways: Sequence[Precision], seconds: float) -> list[Timing[Precision]]:
        """Time precisions in about `seconds`, the default first; those for which no time is left are missing.

        Raises:
            NoMemory: there is none for a copy of the network and its updates.
        """
        return self._measure(ways, seconds, what="dtypes and layouts", first=ways[0], turn_to=_Copy.compute_as)

    def threads(self, ways: Sequence[int], seconds: float, *, precision: Precision) -> list[Timing[int]]:
        """Time numbers of CPU threads, as `precisions`; afterwards torch has the first of them."""
        try:
            return self._measure(
                ways,
                seconds,
                what="threads",
                first=precision,
                turn_to=lambda _, threads: torch.set_num_threads(threads),
            )
        finally:
            torch.set_num_threads(ways[0])

    def _measure(
        self,
        ways: Sequence[Way],
        seconds: float,
        *,
        what: str,
        first: Precision,
        turn_to: Callable[["_Copy", Way], None],
    ) -> list[Timing[Way]]:
        began = self._clock.now()

        def tell() -> None:
            self._show(f"measuring {what}", min(self._clock.now() - began, seconds), seconds)

        tell()
        return enough_memory(
            lambda: self._timed(ways, seconds, first=first, turn_to=turn_to, tell=tell),
            of="a copy of the network, on which ways to compute are timed",
            mend="take a smaller network or --batch-size",
        )

    def _timed(
        self,
        ways: Sequence[Way],
        seconds: float,
        *,
        first: Precision,
        turn_to: Callable[["_Copy", Way], None],
        tell: Callable[[], None],
    ) -> list[Timing[Way]]:
        whole = self._batch()
        batch_size = len(whole.targets)
        few = min(FEWEST, batch_size)
        copied = _Copy(self._objective, self._recipe, first)
        parts = {way: Parts(self._objective.network, self._recipe, batch_size=batch_size) for way in ways}
        per_picture = self._pacing.costs.ahead(1.0) / batch_size or self._seconds_per_picture(
            copied, _some(whole, few), parts[ways[0]]
        )
        for several in (ways, ways[:2]):
            fitting = int(seconds / max(len(several) * (WARM_UPS + 2) * per_picture, 1e-9))
            if fitting >= few:
                break
        else:
            return [Timing(ways[0], per_picture * batch_size)]
        batch = _some(whole, min(batch_size, fitting))

        def ready(way: Way) -> Callable[[], object]:
            tell()
            turn_to(copied, way)
            return lambda: copied.update(batch, parts[way])

        timings = measure(several, ready, clock=self._clock, seconds=seconds)
        return [Timing(timing.way, timing.seconds * batch_size / len(batch.targets)) for timing in timings]

    def _seconds_per_picture(self, copied: "_Copy", batch: Batch, parts: Parts) -> float:
        copied.update(batch, parts)  # builds and caches kernels
        began = self._clock.now()
        copied.update(batch, parts)
        return (self._clock.now() - began) / len(batch.targets)


def _some(batch: Batch, pictures: int) -> Batch:
    return Batch(batch.images[:pictures], batch.targets[:pictures])


class _Copy:
    """A copy of a network with an optimizer of its own."""

    def __init__(self, objective: Objective, recipe: Recipe, way: Precision) -> None:
        self._objective = copy.deepcopy(objective).train()
        plain(self._objective.network)  # other processes wait meanwhile
        way.apply(self._objective.network)
        self._optimizer = build_optimizer(self._objective.network, recipe)
        self._way = way

    def compute_as(self, way: Precision) -> None:
        """Compute another way from now on."""
        if way == self._way:
            return
        way.apply(self._objective.network)
        for parameter, memory in self._optimizer.state.items():
            for key, value in memory.items():
                if value.shape == parameter.shape:  # fused kernels walk both side by side
                    memory[key] = torch.empty_like(parameter).copy_(value)
        self._way = way

    def update(self, batch: Batch, parts: Parts) -> object:
        """One update, waited for; in more parts, which `parts` remembers, where memory runs out."""
        while True:
            number = parts.of(len(batch.targets), step=0)
            try:
                # At a rate of 0 the copy's weights stay ordinary numbers, which all take the same time.
                done = update(
                    self._objective, self._optimizer, batch, rate=0.0, precision=self._way, parts=number, check=False
                )
                synchronize(batch.images.device)
                return done.loss
            except OutOfMemory as error:
                parts.divide(0, error)
