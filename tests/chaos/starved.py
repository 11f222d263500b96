"""`netsmith` as typed, with a limit on the memory of its process while it trains.

python starved.py MEBIBYTES netsmith's arguments...

It may take so much beyond what it has when training begins; the limit is the kernel's. The allocator gives large blocks
back and reserves none for threads to come, or the limit would be met by what it keeps ahead and not by what the batch
needs: small blocks are then refused too, which libraries do not survive.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path

from netsmith.cli.main import main
from netsmith.train.trainer import Trainer

M_ARENA_MAX = -8  # malloc.h


def starve(mebibytes: int) -> None:
    """Limit the address space while training advances."""
    advance = Trainer.advance

    def limited(self: Trainer, until: int | None = None) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (mebibytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            advance(self, until)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    Trainer.advance = limited


if __name__ == "__main__":
    os.environ["NETSMITH_KEEP_MEMORY"] = "0"
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    starve(int(sys.argv.pop(1)))
    main()
