"""What a command shows: its result on stdout, everything else on stderr.

Progress is a live bar on a terminal, its note on a line below, and plain lines anywhere else: one every two seconds at
first, ever fewer as the work grows longer, one a minute in the end. `--quiet` leaves the result, warnings and errors;
`--json` makes the result one JSON document.

Names of files and classes come from strangers, and so does what their models and runs say of themselves: nothing that a
terminal obeys, or that no terminal can show, is printed as it is.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

from cyclopts import Parameter

from netsmith.run.clock import Clock, SystemClock
from netsmith.run.files import FULL_DISK

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from netsmith.fit.session import Session

INTERVAL, LONGEST_INTERVAL = 2.0, 60.0  # seconds between plain lines of progress
LINES = 60  # of one piece of work, about, before the interval is longest
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters other than tab and end of line, what reorders text, and halves of characters."""


@Parameter(name="*", group="Output")
@dataclass(frozen=True, kw_only=True)
class Output:
    """Flags that every verb has.

    Attributes:
        quiet: Print the result, warnings and errors only.
        json: Print the result as one JSON document.
    """

    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], show_default=False)] = False
    json: Annotated[bool, Parameter(name="--json", show_default=False)] = False


PLAIN = Output()
"""The default of every verb's `output` argument."""


class Console:
    """Shows what a verb does; use it in a `with` statement, which ends the live bar before anything else is printed.

    Args:
        output: the flags.
        clock: decides when a plain line of progress is due and how much time is left.
    """

    def __init__(self, output: Output, *, clock: Clock | None = None) -> None:
        self.output = output
        self._clock = clock or SystemClock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._began = 0.0
        self._shown = 0.0
        self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def session(self, data: str, *, output: Path, command: Sequence[str], strict: bool = False) -> "Session":
        """A command at work on a run, shown here; see `netsmith.fit.session.Session`."""
        from netsmith.fit.session import Session

        return Session(
            data=data,
            output=output,
            command=command,
            strict=strict,
            progress=self.progress,
            say=self.say,
            warn=self.warn,
        )

    def say(self, text: str) -> None:
        """A remark on stderr, unless `--quiet`."""
        if not self.output.quiet:
            self._error(text)

    def warn(self, text: str) -> None:
        """A warning on stderr, always."""
        self._error(f"warning: {text}")

    def result(self, document: Any, text: str, *, exact: bool = False) -> None:
        """The outcome of the command, on stdout.

        Args:
            document: any JSON value without NaN and infinity, printed with `--json`.
            text: printed without it.
            exact: `text` is for programs, which get it as it is; otherwise it is for people.
        """
        self._end()
        if self.output.json:
            shown = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
            print(_OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", shown))  # in JSON they stand in strings only
        else:
            print(text if exact and not sys.stdout.isatty() else harmless(text))

    def progress(
        self, title: str, done: float, total: float | None, note: str = "", *, left: float | None = None
    ) -> None:
        """Show how far the work is; this method is a `netsmith.run.progress.Progress`."""
        if self.output.quiet:
            return
        now = self._clock.now()
        title, note = harmless(title), harmless(note)
        if title != self._title:
            self._end()
            self._title, self._began, self._shown = title, now, now
        if sys.stderr.isatty():
            self._draw(title, done, total, note, left)
            return
        elapsed = now - self._began
        self._line = _line(title, done, total, note, elapsed=elapsed, left=left)
        if now - self._shown >= min(max(INTERVAL, elapsed / LINES), LONGEST_INTERVAL):
            self._shown = now
            tell(self._line)
            self._line = ""

    def _draw(self, title: str, done: float, total: float | None, note: str, left: float | None) -> None:
        if self._bar is None:
            self._bar = _live_bar()
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, note=note, left=left)
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, note=note, left=left)

    def _end(self) -> None:
        """Finish the current piece of progress."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._tell_line()
        self._title = ""

    def _tell_line(self) -> None:
        """Tell the last state of work that took long enough to show."""
        if self._line and self._shown > self._began:
            tell(self._line)
        self._line = ""

    def _error(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(harmless(text), highlight=False, markup=False, soft_wrap=True)
        else:
            self._tell_line()  # what is said comes after it
            tell(text)


def harmless(text: str) -> str:
    """Text that a terminal shows and does not obey: what it would obey is written as an escape."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def tell(text: str) -> None:
    """A line on stderr; where that is a file on a full disk, the work goes on without."""
    try:
        print(harmless(text), file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise


def _live_bar() -> "Progress":
    """A bar of one line with its note below, cut at the terminal's width rather than wrapped."""
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Left(ProgressColumn):
        """Time left: as the work says, else by its share."""

        def render(self, task: Task) -> Text:
            left: float | None = task.fields["left"]
            seconds = task.time_remaining if left is None else left
            return Text("" if seconds is None or task.finished else f"{_whole(seconds)} left")

    class TwoLines(Progress):
        """The bar, and under it what changes."""

        def get_renderables(self):  # pyright: ignore
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if note := task.fields["note"]:
                    yield Text(f"  {note}", style="dim", no_wrap=True, overflow="ellipsis")

    return TwoLines(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        Left(),
        console=Terminal(stderr=True),
    )


def _whole(seconds: float) -> str:
    """A duration without fractions of a second, which would flicker."""
    from netsmith.run.budget import format_duration

    return format_duration(seconds) if seconds >= 10 else f"{seconds:.0f}s"


def _line(title: str, done: float, total: float | None, note: str, *, elapsed: float, left: float | None) -> str:
    from netsmith.run.budget import format_duration

    parts = [title]
    if total:
        parts.append(f"{100 * done / total:.0f}%")
        if left is None and 0 < done < total and elapsed > 0:
            left = elapsed * (total - done) / done
        if left is not None and done < total:
            parts.append(f"{format_duration(left)} left")
    elif done:
        parts.append(f"{done:g}")
    return "  ".join([*parts, *([note] if note else [])])
