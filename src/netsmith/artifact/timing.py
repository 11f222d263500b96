"""The clockwork that runs in the fresh process: models timed in turns, or one at several sizes of batch, a reference
workload between the calls.

Choices: every model gets its share of every round, so that a disturbance of seconds meets all of them alike; garbage
collection is off; the input is one fixed noise image; the reference workload is small matrix products in the first
cache level, so that it feels the scheduler and the clock frequency but does not push the model's data out of the
caches.
"""

import gc
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.latency import Measurement, measurement_of, settled
from netsmith.artifact.runtimes import Outputs, Session, open_model
from netsmith.data.prepare import prepare
from netsmith.run.clock import Clock, SystemClock

_ROUNDS = 8
_REFERENCE_EVERY_S = 0.01
_MOST_RUNS = 5000


class Opens(Protocol):
    """Opens the file of a model in a runtime, as `open_model` does."""

    def __call__(self, model: Path, *, threads: int, runtime: str) -> Session: ...


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What to time.

    Attributes:
        models: (path of an ONNX file, threads, runtime), in the order of the results.
        seconds: for each model, warm-up excluded.
        runs: calls per model in place of `seconds`, or None.
        limit_ms: a model is given up as soon as it is clearly above or below, see `settled`; None times all of them to
            the end.
        deadline_s: no new call begins after so many seconds.
        artifact: folder whose golden pictures tell the time of `prepare`, or None.
    """

    models: list[tuple[str, int, str]]
    seconds: float
    runs: int | None
    limit_ms: float | None
    deadline_s: float
    artifact: str | None


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What to time when one runtime has its turn.

    Attributes:
        model: what `Opens` opens.
        runtime, threads: to open it with.
        batches: numbers of pictures in a call, ascending, so that the largest memory until then is that of each.
        seconds: of timed calls of each batch.
        artifact: folder whose golden pictures are to be answered too, or None.
        cache: folder for what a runtime keeps between its turns; it may not be there yet.
    """

    model: str
    runtime: str
    threads: int
    batches: list[int]
    seconds: float
    artifact: str | None
    cache: str


class _Reference:
    """The fixed workload whose times tell how uneven the machine is: products of 64x64 float32 matrices.

    One reading is as long as a call of the model beside it, because a pause of the scheduler is short against long
    calls and long against short ones. Readings take at most a sixth of the time.

    Args:
        call_s: seconds of a call of the model; readings are between 0.1 ms and 20 ms.
    """

    def __init__(self, clock: Clock, *, call_s: float) -> None:
        self._clock = clock
        self._a = np.random.default_rng(0).random((64, 64), np.float32)
        self._out = np.empty_like(self._a)
        self._products = 1
        unit_s = min(self._read() for _ in range(20))
        self._products = max(1, round(min(max(call_s, 1e-4), 0.02) / unit_s))
        self._newest = clock.perf()
        self.times: list[float] = []

    def _read(self) -> float:
        """Seconds of one reading."""
        begin = self._clock.perf()
        for _ in range(self._products):
            np.matmul(self._a, self._a, out=self._out)
        return (self._clock.perf() - begin) / 1e9

    def of_a_product(self) -> list[float]:
        """Seconds of one product by each reading, which readings of several lengths have in common."""
        return [time / self._products for time in self.times]

    def tick(self) -> None:
        """Take a reading if the last one was a while ago."""
        since_s = (self._clock.perf() - self._newest) / 1e9
        if not self.times or since_s >= max(_REFERENCE_EVERY_S, 5 * self.times[-1]):
            self.times.append(self._read())
            self._newest = self._clock.perf()


@dataclass(eq=False)
class _Timed:
    """A model on its way to a measurement; `samples` in milliseconds."""

    index: int
    session: Session
    image: NDArray[np.uint8]
    warmup: int
    reference: _Reference
    samples: list[float] = field(default_factory=list[float])


def time_models(timing: Timing, emit: Callable[[dict[str, Any]], None], *, opens: Opens = open_model) -> None:
    """Time models; emits {"done": share} after each round and {"index", "measurement"} for each model once it is
    decided.

    A model that the deadline leaves without a call has "measurement": None. `opens` opens a model.

    Raises:
        InputError: a model cannot be opened; the message names its file.
    """
    clock = SystemClock()
    end = clock.now() + timing.deadline_s
    gc.disable()
    resize_ms = _resize_ms(Path(timing.artifact), clock) if timing.artifact is not None else None
    total = len(timing.models)

    def settle(models: list[_Timed], *, last: bool = False) -> list[_Timed]:
        """Emit the models that are decided (all, when there is no more time) and return the others."""
        decided = [model for model in models if last or _is_decided(model, timing)]
        for model in decided:
            memory = _peak_memory() if total == 1 else None
            measurement = _measurement(model, memory=memory, resize_ms=resize_ms)
            emit({"index": model.index, "measurement": asdict(measurement)})
        return [model for model in models if model not in decided]

    active: list[_Timed] = []
    for index, (path, threads, runtime) in enumerate(timing.models):
        if index and clock.now() >= end:
            emit({"index": index, "measurement": None})
            continue
        session = opens(Path(path), threads=threads, runtime=runtime)
        model = _warmed_up(index, session, 1, seconds=timing.seconds, limit_ms=timing.limit_ms, clock=clock)
        _time(model, clock, seconds=0.0, runs=timing.runs)  # one call at least, so that every model has a number
        active.append(model)
        active = settle(active)
        emit({"done": (index + 1) / total / 4})
    for turn in range(_ROUNDS):
        for model in active:
            if clock.now() >= end:
                break
            _time(model, clock, seconds=min(timing.seconds / _ROUNDS, end - clock.now()), runs=timing.runs)
        active = settle(active, last=turn == _ROUNDS - 1 or clock.now() >= end)
        emit({"done": 0.25 + 0.75 * (turn + 1) / _ROUNDS})


def time_batches(visit: Visit, emit: Callable[[dict[str, Any]], None], *, opens: Opens = open_model) -> None:
    """Time a model at several sizes of batch.

    Emits {"threads", "probabilities", "logits"} where there are golden pictures, answered one by one, and for each
    batch {"batch", "samples", "reference", "warmup", "memory"}: milliseconds of each call, seconds of a product of the
    reference workload by each reading, calls before them, largest resident memory so far.

    Raises:
        InputError: the model cannot be opened.
    """
    clock = SystemClock()
    gc.disable()
    session = opens(Path(visit.model), threads=visit.threads, runtime=visit.runtime)
    if visit.artifact is not None:
        probabilities, logits = answer_one_by_one(session, load_bundle(Path(visit.artifact)).golden().pixels)
        emit({"threads": session.threads, "probabilities": probabilities.tolist(), "logits": logits.tolist()})
    for batch in visit.batches:
        model = _warmed_up(0, session, batch, seconds=visit.seconds, limit_ms=None, clock=clock)
        _time(model, clock, seconds=visit.seconds, runs=None)
        emit(
            {
                "batch": batch,
                "samples": model.samples,
                "reference": model.reference.of_a_product(),
                "warmup": model.warmup,
                "memory": _peak_memory(),
            }
        )


def answer_one_by_one(session: Session, pixels: NDArray[np.uint8]) -> Outputs:
    """What a model says about N pictures in N calls, so that nothing is prepared for another size of batch."""
    answers = [session.run(pixels[index : index + 1]) for index in range(len(pixels))]
    return Outputs(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))


def _warmed_up(
    index: int, session: Session, batch: int, *, seconds: float, limit_ms: float | None, clock: Clock
) -> _Timed:
    """A model that is ready to be timed with `batch` pictures of noise.

    It had at least three calls and a tenth of a second (less where little is to be timed), or two that take longer than
    all that is to be timed, or one that is ten times over the limit.
    """
    image = np.random.default_rng(0).integers(0, 256, (batch, session.size, session.size, 3), np.uint8)
    begin, fastest, count = clock.now(), math.inf, 0
    while count < 3 or clock.now() - begin < min(0.1, seconds / 4):
        before = clock.perf()
        session.run(image)
        fastest = min(fastest, (clock.perf() - before) / 1e9)
        count += 1
        if (count > 1 and fastest > seconds) or (limit_ms is not None and 1000 * fastest > 10 * limit_ms):
            break
    return _Timed(index, session, image, count, _Reference(clock, call_s=fastest))


def _time(model: _Timed, clock: Clock, *, seconds: float, runs: int | None) -> None:
    """Take samples for so many seconds, at least one; with `runs` an equal part of so many calls."""
    begin, most = clock.now(), runs or _MOST_RUNS
    if runs is not None:
        most = min(most, len(model.samples) + math.ceil(runs / _ROUNDS))
    while len(model.samples) < most:
        model.reference.tick()
        before = clock.perf()
        model.session.run(model.image)
        model.samples.append((clock.perf() - before) / 1e6)
        if runs is None and clock.now() - begin >= seconds:
            return


def _is_decided(model: _Timed, timing: Timing) -> bool:
    if timing.runs is not None:
        return len(model.samples) >= timing.runs
    return timing.limit_ms is not None and settled(model.samples, limit_ms=timing.limit_ms)


def _measurement(model: _Timed, *, memory: int | None, resize_ms: float | None) -> Measurement:
    return measurement_of(
        model.samples,
        model.reference.of_a_product(),
        runtime=model.session.runtime,
        threads=model.session.threads,
        warmup=model.warmup,
        memory=memory,
        resize_ms=resize_ms,
    )


def _resize_ms(artifact: Path, clock: Clock) -> float:
    """Median time of `prepare` over the golden pictures, each three times."""
    bundle = load_bundle(artifact)
    times: list[float] = []
    for encoded in bundle.golden().encoded * 3:
        before = clock.perf()
        prepare(encoded, bundle.config.preprocess)
        times.append((clock.perf() - before) / 1e6)
    return float(np.median(times))


def _peak_memory() -> int | None:
    """Largest resident memory of this process, bytes.

    Linux's own count of this program is read, because that of getrusage begins with the size of the process that
    started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        if sys.platform != "darwin":
            return None
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
