"""`netsmith` as typed, observed: SIGUSR1 writes where its main thread stands, and checkpoints come often.

python observed.py WHERE netsmith's arguments...

The stack is written by faulthandler, in C, without a line of Python being run; a run of seconds has checkpoints every
fraction of one. All else is the command itself.
"""

import faulthandler
import os
import signal
import sys

from netsmith.cli.main import main
from netsmith.train.pacing import Pacing

CHECKPOINT_SECONDS = 0.25


def observe(where: str) -> None:
    """Answer SIGUSR1 in the file `where`; write a checkpoint every quarter of a second."""
    written = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # for good
    faulthandler.register(signal.SIGUSR1, file=written, all_threads=False)
    Pacing._checkpoint_interval = property(lambda self: CHECKPOINT_SECONDS)  # pyright: ignore


if __name__ == "__main__":
    observe(sys.argv.pop(1))
    main()
