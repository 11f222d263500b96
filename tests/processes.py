"""Processes of one world, as torchrun would start them, for tests."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def of_one_world(script: Path, *arguments: object, size: int = 2, **variables: str) -> list[tuple[int, str, str]]:
    """Run a test's script in every process of a world to its end: exit code, output and errors of each, by rank."""
    shared = os.environ | {
        "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error",
        "PYTHONPATH": os.pathsep.join([str(script.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env=shared | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [process.communicate() for process in processes]
    return [(process.returncode, *each) for process, each in zip(processes, said, strict=True)]
