"""How work tells whoever waits for it how far it is; the command line shows it, a library user may ignore it."""

from collections.abc import Generator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Protocol


class Progress(Protocol):
    """Called often and cheaply; whoever implements it decides how often to show something."""

    def __call__(
        self, title: str, done: float, total: float | None, note: str = "", *, left: float | None = None
    ) -> None:
        """Say how far one piece of work is.

        Args:
            title: what is being done; a new title starts a new piece.
            done: so much of `total`, in any unit; it falls where work is taken back, such as a training that is rewound
                or whose length is planned anew.
            total: all of it, or None when that is not known.
            note: a few words that change, such as the accuracy so far.
            left: seconds to the end where the work knows them better than `done` and `total` say.
        """
        ...


def silent(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
    """Progress that nobody watches."""


@contextmanager
def lasting(show: Progress, title: str, *, every: float = 1.0) -> Generator[None]:
    """Tell from beside how long a block has lasted that cannot say how far it is.

    Args:
        show: told, from a thread of its own.
        title: what is being done.
        every: seconds between two tellings.
    """
    over = Event()

    def tell() -> None:
        told = 0
        while not over.wait(every):
            told += 1
            show(title, told * every, None, "seconds")

    show(title, 0, None)
    thread = Thread(target=tell, name="netsmith-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
