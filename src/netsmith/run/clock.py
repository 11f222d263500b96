"""The only place that reads time.

Everything that depends on time takes a `Clock`, so a test can replace it and a search for another reader of time finds
none. What time decides is written to the plan before it takes effect (see `plan.py`).
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a reader of time may ask."""

    def now(self) -> float:
        """Seconds on a clock that never goes back; the zero point means nothing."""
        ...

    def perf(self) -> int:
        """Nanoseconds on the clock with the finest steps, for measuring short calls; the zero point means nothing."""
        ...

    def wall(self) -> str:
        """Date and time of day: ISO 8601, UTC, milliseconds, such as "2026-11-22T06:00:00.000Z"."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(*, seconds: float) -> timedelta:
    """So many seconds, for libraries that take no number."""
    return timedelta(seconds=seconds)


def seconds_of(wall: str) -> float:
    """Seconds since 1970 of what `wall()` gave, comparable between machines."""
    return datetime.fromisoformat(wall).timestamp()


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.monotonic()

    def perf(self) -> int:
        return time.perf_counter_ns()

    def wall(self) -> str:
        return _iso(datetime.now(UTC))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class FakeClock:
    """A clock for tests: it stands still except for `advance` seconds after every reading, `sleep` and `tick`.

    Args:
        start: first value of `now()`, seconds.
        advance: seconds added after every call of `now()` or `perf()`.
    """

    def __init__(self, start: float = 0.0, advance: float = 0.0) -> None:
        self.seconds = start
        self.advance = advance

    def now(self) -> float:
        seconds = self.seconds
        self.tick(self.advance)
        return seconds

    def perf(self) -> int:
        return round(self.now() * 1e9)

    def wall(self) -> str:
        return _iso(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds))

    def sleep(self, seconds: float) -> None:
        self.tick(seconds)

    def tick(self, seconds: float) -> None:
        """Let `seconds` pass."""
        assert seconds >= 0, "time does not go back"
        self.seconds += seconds
