"""Latency measured where it counts: in a fresh process, on the file that ships.

Latency is that of one call with one prepared image (batch 1); turning an encoded picture into pixels is reported apart.
One measurement runs at a time on a machine (`netsmith.run.alone`): `call_alone` alone takes that lock, around the fresh
process that measures, so a process that waits for another which measures for it, as `fit` for `verify`, never holds it.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from netsmith.artifact import process
from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.latency import Measurement, ThreadChoice, fewest_threads, refuse_seconds
from netsmith.artifact.runtimes import Warn, choose_runtime
from netsmith.errors import InputError
from netsmith.run.alone import alone
from netsmith.run.clock import SystemClock
from netsmith.run.machine import machine
from netsmith.run.progress import Progress, silent

_WAIT_S = 60.0  # for another process on this machine that measures, at most
_START_S = 30.0  # for starting Python and opening the first model on a busy machine


def measure(
    folder: Path,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    seconds: float = 2.0,
    runs: int | None = None,
    warn: Warn | None = None,
    progress: Progress = silent,
) -> Measurement:
    """Latency of an artifact.

    Args:
        folder: the artifact, or a run that holds one.
        threads, runtime, warn: as `open_session`.
        seconds: of timed calls.
        runs: number of timed calls in place of `seconds`.
        progress: is told the share that is done.

    Raises:
        InputError: no artifact, or it cannot be opened; `seconds` or `runs` out of range.
        CheckError: the process died or did not end.
    """
    refuse_seconds(seconds)
    if runs is not None and runs < 1:
        raise InputError(f"runs is {runs}; a measurement needs at least one")
    bundle = load_bundle(folder)
    name, count = choose_runtime(bundle, runtime=runtime, threads=threads, warn=warn)
    [measurement] = _time(
        [(str(bundle.model_path.resolve()), count, name)],
        what=f"measuring {bundle.model_path}",
        seconds=seconds,
        runs=runs,
        artifact=str(bundle.folder.resolve()),
        deadline_s=600.0 if runs is not None else 10 * seconds,
        progress=progress,
    )
    assert measurement is not None
    return measurement


def measure_many(
    models: Sequence[Path | bytes],
    *,
    threads: int | Sequence[int],
    seconds_each: float = 0.4,
    limit_ms: float | None = None,
    deadline_s: float | None = None,
    runtime: str | Sequence[str] = "onnxruntime",
    worker: str = process.WORKER,
    on_result: Callable[[int, Measurement | None], None] | None = None,
    progress: Progress = silent,
) -> list[Measurement | None]:
    """Latencies of many ONNX files, taken in turns in one fresh process.

    Args:
        models: paths of ONNX files, or their contents.
        threads: of every model, or of each, >= 1.
        seconds_each: timed calls per model, warm-up excluded.
        limit_ms: a model clearly above or below is decided early, see `netsmith.artifact.latency.settled`.
        deadline_s: no call begins after so many seconds; None is 4 * seconds_each * number of models.
        runtime: name of the runtime of all models, or of each.
        worker: module that the fresh process runs, see `netsmith.artifact.process.call`.
        on_result: is given each model's index and measurement.
        progress: is told the share that is done.

    Returns:
        One measurement per model; None where the deadline left no time for it.

    Raises:
        InputError: a model that the runtime refuses; the message says which by its path or, for contents, its index.
        CheckError: the process died or did not end.
    """
    if not models:
        return []
    with tempfile.TemporaryDirectory(prefix="netsmith-measure-") as scratch:
        paths: list[Path] = []
        for index, model in enumerate(models):
            path = model.resolve() if isinstance(model, Path) else Path(scratch, f"model-{index}.onnx")
            if isinstance(model, bytes):
                path.write_bytes(model)
            paths.append(path)
        runtimes = [runtime] * len(paths) if isinstance(runtime, str) else runtime
        counts = [threads] * len(paths) if isinstance(threads, int) else threads
        return _time(
            [(str(path), count, name) for path, count, name in zip(paths, counts, runtimes, strict=True)],
            what=f"measuring {len(models)} models",
            worker=worker,
            seconds=seconds_each,
            limit_ms=limit_ms,
            deadline_s=4 * seconds_each * len(models) if deadline_s is None else deadline_s,
            on_result=on_result,
            progress=progress,
            scratch=scratch,
        )


def preferred_threads(
    model: Path | bytes, *, seconds_each: float = 0.5, runtime: str = "onnxruntime", progress: Progress = silent
) -> ThreadChoice:
    """The number of threads that is fastest by p90, the fewer where two cannot be told apart.

    Args:
        model: path of an ONNX file, or its content.
        seconds_each: timed calls per number of threads.
        runtime: name of the runtime.
        progress: is told the share that is done.

    Returns:
        The choice among 1 to the physical cores in use (above 4: powers of two and the number of cores), with all
        measurements.

    Raises:
        InputError, CheckError: as `measure_many`.
    """
    counts = thread_counts(min(machine().cores_physical, machine().cores_usable))
    with tempfile.TemporaryDirectory(prefix="netsmith-measure-") as scratch:
        path = model.resolve() if isinstance(model, Path) else Path(scratch, "model.onnx")
        if isinstance(model, bytes):
            path.write_bytes(model)
        measured = _time(
            [(str(path), count, runtime) for count in counts],
            what="measuring numbers of threads",
            seconds=seconds_each,
            deadline_s=10 * seconds_each * len(counts),
            progress=progress,
            scratch=scratch,
        )
    measurements = tuple(measurement for measurement in measured if measurement is not None)
    return ThreadChoice(threads=fewest_threads(measurements), measurements=measurements)


def thread_counts(cores: int) -> list[int]:
    """Numbers of threads worth trying: each up to 4, then powers of two, and all cores."""
    return [count for count in range(1, cores + 1) if count <= 4 or count == cores or count & (count - 1) == 0]


def _time(
    models: list[tuple[str, int, str]],
    *,
    what: str,
    seconds: float,
    deadline_s: float,
    runs: int | None = None,
    limit_ms: float | None = None,
    artifact: str | None = None,
    worker: str = process.WORKER,
    on_result: Callable[[int, Measurement | None], None] | None = None,
    progress: Progress = silent,
    scratch: str | None = None,
) -> list[Measurement | None]:
    results: dict[int, Measurement | None] = {}

    def on_row(row: dict[str, Any]) -> None:
        if "index" in row:
            found = row["measurement"]
            results[row["index"]] = Measurement(**found) if found is not None else None
            if on_result is not None:
                on_result(row["index"], results[row["index"]])
        else:
            progress(what, row["done"], 1.0)

    request: dict[str, Any] = {
        "models": models,
        "seconds": seconds,
        "runs": runs,
        "limit_ms": limit_ms,
        "deadline_s": deadline_s,
        "artifact": artifact,
        "scratch": scratch,
    }
    call_alone("measure", request, what=what, deadline_s=deadline_s, on_row=on_row, worker=worker, progress=progress)
    return [results[index] for index in range(len(models))]


def call_alone(
    task: str,
    request: process.Row,
    *,
    what: str,
    deadline_s: float,
    on_row: Callable[[process.Row], None],
    worker: str = process.WORKER,
    progress: Progress = silent,
) -> None:
    """`netsmith.artifact.process.call` while no other process of netsmith on this machine measures.

    Arguments and errors as there; `deadline_s` counts from when the process has started, `progress` is told for whom it
    waits.
    """
    with alone(wait_s=min(_WAIT_S, deadline_s), clock=SystemClock(), progress=progress):
        process.call(task, request, what=what, deadline_s=deadline_s + _START_S, on_row=on_row, worker=worker)
