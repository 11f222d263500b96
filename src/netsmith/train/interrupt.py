"""Ctrl-C and SIGTERM as a wish: the current step is finished, a checkpoint written, then the wish is passed on."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, Self

Handler = Callable[[int, FrameType | None], object] | int | None


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after a whole step; the message says how to go on.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class Interrupts:
    """Between `with` and its end the first Ctrl-C or SIGTERM is only noted; a second one acts as it would have before.

    Outside the main thread, where no signal arrives, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def pass_on(self, message: str) -> NoReturn:
        """Raise `Interrupted` with `message`, after the handler that stood before has learnt of the signal."""
        assert self.received is not None
        self._restore()
        handler = self._previous[self.received]
        if callable(handler):
            with contextlib.suppress(KeyboardInterrupt):  # ours says how to go on
                handler(self.received, None)
        raise Interrupted(message, self.received)
