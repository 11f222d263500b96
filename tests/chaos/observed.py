"""`netsmith` as typed, observed: SIGUSR1 writes where its main thread stands, and checkpoints come often.

python observed.py WHERE netsmith's arguments...

The stack is written by faulthandler, in C, without a line of Python being run; a run of seconds has checkpoints every
fraction of one. Where the environment asks for it, latencies that verdicts follow from are made up. All else is the
command itself.
"""

import faulthandler
import os
import signal
import sys
from pathlib import Path

import pytest
from watched import UNTIMED

from netsmith.cli.main import main
from netsmith.train.pacing import Pacing

CHECKPOINT_SECONDS = 0.25


def observe(where: str) -> None:
    """Answer SIGUSR1 in the file `where`; write a checkpoint every quarter of a second."""
    written = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # for good
    faulthandler.register(signal.SIGUSR1, file=written, all_threads=False)
    Pacing._checkpoint_interval = property(lambda self: CHECKPOINT_SECONDS)  # pyright: ignore


def make_up_latencies() -> None:
    """As the tests of stages do."""
    sys.path.append(str(Path(__file__).parents[1]))
    from untimed import untimed

    untimed(pytest.MonkeyPatch())


if __name__ == "__main__":
    observe(sys.argv.pop(1))
    if UNTIMED in os.environ:
        make_up_latencies()
    main()
