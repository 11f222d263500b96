"""One measurement at a time on a machine: a lock that all processes of netsmith on it share.

Two that measure at once would each see the other as a slow machine. The lock is the kernel's (flock) on a file of the
temporary folder, so it ends with the process that holds it, however that dies, and a child does not inherit it. It is
advisory and waited for only so long: who still does not get it measures beside the other, and the noise in its
measurement says so. So nothing hangs, whoever holds the lock.
"""

import fcntl
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from netsmith.run.clock import Clock
from netsmith.run.progress import Progress

POLL_S = 0.05


def lock_path() -> Path:
    """The file of the lock."""
    return Path(tempfile.gettempdir()) / "netsmith-measuring.lock"


@contextmanager
def alone(*, wait_s: float, clock: Clock, progress: Progress) -> Generator[bool]:
    """Measure while no other process of netsmith on this machine does.

    Args:
        wait_s: seconds to wait at most for the others.
        clock: reads time.
        progress: told for whom it waits.

    Yields:
        Whether the wait was long enough.
    """
    try:
        handle = _open(lock_path())
    except OSError:  # such as a folder that cannot be written: measured as if nobody else did
        yield False
        return
    try:
        yield _acquire(handle, wait_s=wait_s, clock=clock, progress=progress)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """Another user's file is opened for reading, which is all that flock needs; opening a pipe would wait for ever."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags)
    except FileNotFoundError:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)


def _acquire(handle: int, *, wait_s: float, clock: Clock, progress: Progress) -> bool:
    began = clock.now()
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = clock.now() - began
            given_up = waited >= wait_s
            note = "measuring beside it now" if given_up else ""
            progress("waiting for another netsmith to end its measurement", min(waited, wait_s), wait_s, note)
            if given_up:
                return False
            clock.sleep(POLL_S)
        else:
            return True
