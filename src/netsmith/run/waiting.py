"""How the threads of a parallel loop wait for each other: for a moment on their core, then asleep.

A step of a small network has thousands of loops, and waking a thread may cost as much as one of them, in a virtual
machine above all: threads that sleep at once made a step of ResNet-20 1.1 to 1.7 times as long. Threads that never
sleep make everything many times slower as soon as anything else wants a core, and something does: the thread that
prepares batches.

GNU's OpenMP, which torch brings along on Linux, reads its environment when it is loaded, so this holds for what imports
torch afterwards and for child processes. Others read the first of the two alone, and sleep at once.
"""

from collections.abc import Mapping

WAITING: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}
"""5,000 turns are 0.1 to 0.3 ms: longer than most pauses between two loops. Twice as many gain nothing, and cost a
fifth where another program keeps one of two cores busy (benchmarks/LOG.md)."""


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment; nothing where it says itself how threads wait.

    Args:
        environment: of this process.
    """
    return {} if WAITING.keys() & environment.keys() else dict(WAITING)
