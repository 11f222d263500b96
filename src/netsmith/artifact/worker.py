"""The fresh process behind `netsmith.artifact.process.call`: `python -m netsmith.artifact.worker`.

Reads one line of JSON from standard input, writes rows of JSON to standard output, and ends when standard input closes;
it then removes the folder that the request calls "scratch", if any.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from netsmith.errors import CheckError, InputError

Row = dict[str, Any]
Emit = Callable[[Row], None]


def _measure(request: Row, emit: Emit) -> None:
    from netsmith.artifact.timing import Timing, time_models

    time_models(Timing(**request), emit)


def _verify(request: Row, emit: Emit) -> None:
    from pathlib import Path

    from netsmith.artifact.verify import verify

    def progress(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        emit({"progress": [title, done, total, note]})

    verify(
        Path(request["path"]),
        seconds=request["seconds"],
        runtime=request["runtime"],
        on_check=lambda check: emit(asdict(check)),
        progress=progress,
    )


def _compare(request: Row, emit: Emit) -> None:
    from netsmith.artifact.timing import Visit, time_batches

    time_batches(Visit(**request), emit)


TASKS: dict[str, Callable[[Row, Emit], None]] = {
    "measure": _measure,
    "compare": _compare,
    "verify": _verify,
}


def main(tasks: Mapping[str, Callable[[Row, Emit], None]] = TASKS) -> None:
    """Carry out the request on standard input; `tasks` are what may be asked for."""
    # Whatever a library prints must not fall between the rows.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(row: Row) -> None:
        out.write(json.dumps(row) + "\n")
        out.flush()

    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            sys.exit(0)
        line += part
    request = json.loads(line)
    threading.Thread(target=_end_with_caller, args=(request.pop("scratch", None),), daemon=True).start()
    try:
        tasks[request.pop("task")](request, emit)
    except (InputError, CheckError) as error:
        emit({"error": type(error).__name__, "message": str(error)})
    except BrokenPipeError:
        os._exit(0)  # the caller is gone


def _end_with_caller(scratch: str | None) -> None:
    while os.read(0, 1024):
        pass
    if scratch is not None:  # a caller that was killed could not remove it
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
