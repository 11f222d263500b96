"""Calls that run in a fresh Python process: `netsmith.artifact.worker`, one JSON request in, JSON rows out.

A fresh process has no warm caches, threads or memory of the caller. It never outlives the caller: it is ended when the
call returns or is interrupted, and ends itself when its standard input closes.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

from netsmith.errors import CheckError, InputError
from netsmith.run.clock import SystemClock

Row = dict[str, Any]
# Only the runtime under measurement decides how many threads compute.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUTF8": "1"}


WORKER = "netsmith.artifact.worker"


def call(
    task: str, request: Row, *, what: str, deadline_s: float, on_row: Callable[[Row], None], worker: str = WORKER
) -> None:
    """Run a task of the worker to its end.

    Args:
        task: name in `netsmith.artifact.worker.TASKS`.
        request: its arguments, JSON values.
        what: names the work in messages, such as "measuring model.onnx".
        deadline_s: the process is ended after so many seconds.
        on_row: is given every row as it comes.
        worker: module that the process runs, which ends in `netsmith.artifact.worker.main`.

    Raises:
        InputError, CheckError: as the task raised them.
        CheckError: no end before the deadline, or the process was killed.
        RuntimeError: the task has a defect; holds its traceback.
    """
    clock = SystemClock()
    end = clock.now() + deadline_s
    command = [sys.executable, "-P", "-m", worker]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | _ENVIRONMENT,
            start_new_session=True,  # Ctrl-C goes to the caller alone, which ends the process
        )
        assert process.stdin is not None
        assert process.stdout is not None
        rows: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(process.stdout, rows), daemon=True)
        reader.start()
        try:
            try:
                process.stdin.write(json.dumps({"task": task} | request).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                pass  # it died at once; what it said about that is reported below
            while line := _next(rows, end - clock.now(), what=what, deadline_s=deadline_s):
                _handle(json.loads(line), on_row)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdin.close()
            process.stdout.close()
        if code != 0:
            errors.seek(0)
            raise _failure(code, errors.read().decode(errors="replace").strip(), what)


def _read(stream: IO[bytes], rows: "queue.SimpleQueue[bytes]") -> None:
    for line in stream:
        if line.endswith(b"\n"):
            rows.put(line)
    rows.put(b"")


def _next(rows: "queue.SimpleQueue[bytes]", seconds: float, *, what: str, deadline_s: float) -> bytes:
    """The next line, or b"" at the end."""
    try:
        return rows.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise CheckError(
            f"{what} did not end within {deadline_s:.0f} s; close other programs or allow more time"
        ) from None


def _handle(row: Row, on_row: Callable[[Row], None]) -> None:
    if "error" in row:
        raise {"InputError": InputError, "CheckError": CheckError}[row["error"]](row["message"])
    on_row(row)


def _failure(code: int, errors: str, what: str) -> Exception:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = "; the memory may have run out" if code == -signal.SIGKILL else ""
        return CheckError(f"{what} failed: its process was ended by {name}{hint}")
    return RuntimeError(f"{what} failed with exit code {code}:\n{errors}")
