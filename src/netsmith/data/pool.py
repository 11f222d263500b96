"""Reading and decoding in threads: Pillow, hashing and files release the interpreter lock, so threads are enough."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def cpu_count() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(function: Callable[[In], Out], inputs: Iterable[In], *, workers: int) -> Iterator[Out]:
    """function(x) for every x of `inputs`, in their order, computed by `workers` threads a few items ahead.

    Memory holds a bounded number of results. Closing the iterator early, or an exception, drops what has not begun.
    """
    waiting: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        for value in inputs:
            waiting.append(pool.submit(function, value))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
