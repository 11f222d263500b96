"""Pictures that are decoded when they are first needed, by whoever needs them, and only then.

Training begins at once: the thread that prepares a batch decodes what the batch lacks, and while batches are drawn
(`ahead`) further threads decode what the coming batches will need. What a picture looks like does not depend on who
decoded it or when, so batches stay a function of the step.

A picture that cannot be read any more stops only the batch that needs it, with one sentence; those that were decoded
before need no file. To go on without it would give other weights than the same plan gives with it. A cache that cannot
be written any more stops nothing: what is not in it is decoded whenever it is needed, said once.
"""

import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from netsmith.data.items import Progress
from netsmith.data.pool import cpu_count, in_order
from netsmith.data.prepare import Pixels
from netsmith.data.shelves import Shelf
from netsmith.errors import InputError

_ABSENT, _WORKING, _THERE = range(3)
_NICENESS = 10


class Filling:
    """Pictures by index, each decoded once, or at every use where they are not kept.

    Args:
        shapes: int64 [N,2], height and width of each picture.
        load: decodes a picture, always to the same pixels; raises InputError.
        shelf: keeps them; None keeps none.
        warn: told once when pictures cannot be kept any more.
    """

    def __init__(
        self,
        shapes: NDArray[np.int64],
        load: Callable[[int], Pixels],
        shelf: Shelf | None,
        warn: Callable[[str], None],
    ) -> None:
        self.shapes = shapes
        self._load, self._shelf, self._warn = load, shelf, warn
        self._keeps = shelf is not None
        self._states = bytearray(len(shapes))
        self._left = len(shapes)
        self._finished = False
        self._turn = threading.Condition()

    def __getitem__(self, index: int) -> Pixels:
        """uint8 [H,W,3] of one picture.

        Raises:
            InputError: it is needed for the first time and cannot be read any more.
        """
        if self._states[index] == _THERE and self._shelf is not None:
            return self._shelf.fetch(index)
        return self._obtain(index)

    @property
    def pixels(self) -> Pixels | None:
        """uint8 [bytes of all pictures], read-only, once they all are there as pixels."""
        return self._shelf.pixels() if self._shelf is not None and self._left == 0 else None

    @property
    def keeps_pixels(self) -> bool:
        """Whether a picture that was decoded is there as pixels from then on, and not decoded at its next use again."""
        return self._shelf is not None and self._keeps and self._shelf.pixels() is not None

    def _obtain(self, index: int) -> Pixels:
        shelf = self._shelf
        if shelf is None:
            return self._load(index)
        with self._turn:
            self._turn.wait_for(lambda: self._states[index] != _WORKING)
            if self._states[index] == _THERE:
                return shelf.fetch(index)
            self._states[index] = _WORKING
        there = False
        try:
            there = shelf.holds(index)
            if not there:
                packed = shelf.pack(self._load(index))
                there = self._stored(shelf, index, packed)
                if not there:
                    return shelf.unpack(index, packed)
        finally:
            with self._turn:
                self._states[index] = _THERE if there else _ABSENT
                self._left -= there
                self._turn.notify_all()
        return shelf.fetch(index)

    def _stored(self, shelf: Shelf, index: int, packed: bytes | memoryview) -> bool:
        if not self._keeps:
            return False
        try:
            return shelf.store(index, packed)
        except OSError as error:
            self._give_up(error)
            return False

    def _give_up(self, error: OSError) -> None:
        with self._turn:
            first, self._keeps = self._keeps, False
        if first:
            self._warn(
                f"decoded pictures cannot be kept any more ({error.strerror}): those that are not are decoded whenever "
                "they are needed, which is slower and gives the same weights"
            )

    # Ahead of their use

    def fill(self, *, progress: Progress | None = None, workers: int | None = None) -> None:
        """Decode all pictures that are not there, in order; a no-op where they are not kept.

        Args:
            progress: called as progress(done, total).
            workers: threads, by default one per CPU.

        Raises:
            InputError: a picture cannot be read any more.
        """
        shelf = self._shelf
        if shelf is None or self._finished:
            return
        with shelf.exclusive(wait=True):
            count = len(self.shapes)
            workers = workers if workers is not None else cpu_count()
            for done, _ in enumerate(in_order(self.__getitem__, range(count), workers=workers), start=1):
                if not self._keeps:
                    return
                if progress is not None:
                    progress(done, count)
            self._finish(shelf, lambda: False)

    @contextmanager
    def ahead(self, order: Iterable[int], *, workers: int | None = None) -> Generator[None]:
        """While this is entered, decode in the background what is not there.

        Args:
            order: indices in the order in which they will be needed; all of them where the cache is to become whole.
            workers: threads, by default one less than CPUs; they yield to those that train.
        """
        shelf = self._shelf
        if shelf is None or self._finished:
            yield
            return
        stop, take = threading.Event(), threading.Lock()
        waiting = iter(order)

        def work() -> None:
            while self._keeps and not stop.is_set():
                with take:
                    index = next(waiting, None)
                if index is None:
                    return
                if self._states[index] == _ABSENT:
                    self._prefetch(index)

        def finish() -> None:
            for worker in working:
                worker.result()
            self._try_to_finish(shelf, stop.is_set)

        count = workers if workers is not None else max(1, cpu_count() - 1)
        pool = ThreadPoolExecutor(count + 1, thread_name_prefix="netsmith-fill", initializer=_yield_to_others)
        try:
            working = [pool.submit(work) for _ in range(count)]
            finishing = pool.submit(finish)
            yield
        finally:
            stop.set()
            pool.shutdown(wait=True)
        finishing.result()

    def _prefetch(self, index: int) -> None:
        with suppress(InputError):  # the batch that needs it says so
            self._obtain(index)

    def _try_to_finish(self, shelf: Shelf, stopped: Callable[[], bool]) -> None:
        with self._turn:  # batches may be at the last ones
            self._turn.wait_for(lambda: _WORKING not in self._states)
        with shelf.exclusive(wait=False) as alone:
            if alone:
                self._finish(shelf, stopped)

    def _finish(self, shelf: Shelf, stopped: Callable[[], bool]) -> None:
        if self._left or self._finished:
            return
        try:
            shelf.finish(stopped)
        except OSError as error:
            self._give_up(error)
        self._finished = not stopped()


def _yield_to_others() -> None:
    """Let this thread have only what other threads leave of the CPUs."""
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
