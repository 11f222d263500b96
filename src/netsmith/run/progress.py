"""How work tells whoever waits for it how far it is; the command line shows it, a library user may ignore it."""

from typing import Protocol


class Progress(Protocol):
    """Called often and cheaply; whoever implements it decides how often to show something."""

    def __call__(
        self, title: str, done: float, total: float | None, note: str = "", *, left: float | None = None
    ) -> None:
        """Say how far one piece of work is.

        Args:
            title: what is being done; a new title starts a new piece.
            done: so much of `total`, in any unit, never falling within a piece.
            total: all of it, or None when that is not known.
            note: a few words that change, such as the accuracy so far.
            left: seconds to the end where the work knows them better than `done` and `total` say.
        """
        ...


def silent(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
    """Progress that nobody watches."""
