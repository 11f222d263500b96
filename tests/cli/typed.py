"""netsmith as a person types it: in a fresh process, or in this one, which is what the many mistakes are tried in.

Starting Python and importing what a verb needs takes longer than most verbs. What only a process of its own can show
(what is imported, what libraries write past Python, signals) is for `fresh`.
"""

import io
import os
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import pytest

from netsmith.cli.main import run

Done = subprocess.CompletedProcess[str]


class Hangs(BaseException):
    """No error that a verb may take for one of its own."""


def fresh(*arguments: str, cwd: Path, timeout: float = 120) -> Done:
    """The command as typed in `cwd`, in a fresh process; a hang is killed and fails the test."""
    return subprocess.run(
        [sys.executable, "-m", "netsmith", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def here(*arguments: str, cwd: Path, timeout: float = 120) -> Done:
    """The command as typed in `cwd`, in this process; a hang is ended and fails the test."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"{' '.join(arguments)} took more than {timeout:g} s")

    out, err = io.BytesIO(), io.BytesIO()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        with (
            open(os.devnull, encoding="utf-8") as nothing,
            pytest.MonkeyPatch.context() as patch,
            chdir(cwd),
            redirect_stdout(io.TextIOWrapper(out, encoding="utf-8", write_through=True)),
            redirect_stderr(io.TextIOWrapper(err, encoding="utf-8", write_through=True)),
        ):
            patch.setattr(sys, "stdin", nothing)
            code = run(arguments)
            texts = out.getvalue().decode(), err.getvalue().decode()  # before the wrappers close them
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return subprocess.CompletedProcess(arguments, code, *texts)
