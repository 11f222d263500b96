"""The two ways a command can fail that are not defects.

The command line turns them into one sentence on stderr and an exit code; every other exception is a bug and keeps its
traceback.
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used: exit code 2.

    The message is one sentence that says what is wrong, where (file, flag, class) and how to mend it.
    """


class CheckError(Exception):
    """A check or a budget failed: exit code 1.

    The message says which number does not hold, its limit and what was measured.
    """


class Diverged(CheckError):
    """Loss, gradients or weights of a training are not finite; the message is both of its parts.

    Attributes:
        where: that began, which is all there is to say of a training whose recipe is not the user's to change.
        advice: how to go on.
    """

    def __init__(self, where: str, advice: str) -> None:
        super().__init__(where, advice)
        self.where, self.advice = where, advice

    def __str__(self) -> str:
        return f"{self.where}; {self.advice}"


def first_line(error: BaseException) -> str:
    """What an error of a library says, without the lines of advice and traces that it adds."""
    return (_lines(error) or [type(error).__name__])[0]


def last_line(error: BaseException) -> str:
    """What an error that holds a trace ends in: what happened."""
    return (_lines(error) or [type(error).__name__])[-1]


def cause(error: BaseException) -> str:
    """What happened, of a message of ours: without the mend, which stands behind the first semicolon."""
    return last_line(error).partition("; ")[0]


def _lines(error: BaseException) -> list[str]:
    return [line.strip()[:300] for line in str(error).strip().splitlines()]


def near(name: str, choices: Iterable[str], *, limit: int = 3) -> str:
    """How a message goes on after a name that is not known: the names most like it, or all when they are few.

    Args:
        name: what the user wrote.
        choices: the names that exist.
        limit: most names to give.

    Returns:
        "did you mean 'a' or 'b'?", or "choose from a, b, c" when none is alike; "" when there are no choices.
    """
    known = list(choices)
    by_lower = {choice.lower(): choice for choice in known}
    alike = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.6)]
    if alike:
        return f"did you mean {' or '.join(repr(choice) for choice in alike)}?"
    return f"choose from {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}" if known else ""
