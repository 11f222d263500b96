"""What a latency measurement says, and how its numbers come from samples.

p90 is the 90th percentile of single calls; `low` and `high` are order statistics that hold it with 95 % for any
distribution of independent samples. From fewer than 36 samples there is no such upper bound; the largest sample then
stands for it (and the smallest for the lower). `noise` says how uneven the machine was: a fixed numpy workload, each
reading as long as a call of the model, runs between the calls, and noise = p90 / p50 - 1 of its times. 0.05 is a quiet
machine; above 0.5 other work took the processor, and the latencies hold little. What slows a machine evenly for longer
than a measurement, such as a neighbour on a shared one, is no noise; `reference_us` tells it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netsmith.errors import InputError
from netsmith.run.metrics import Interval, quantile_interval, samples_for_quantile

LONGEST_S = 3600.0
"""Of one measurement."""


def refuse_seconds(seconds: float) -> None:
    """Raise InputError for a time that cannot be measured for: none, endless, not a number."""
    if not 0 < seconds <= LONGEST_S:
        raise InputError(f"--seconds is {seconds:g}; give a time above 0 and at most {LONGEST_S:g}")


ALIKE = 1.05


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency of a model, batch 1 where nothing else is said, resize excluded.

    Attributes:
        p50_ms, p90_ms: median and 90th percentile of a call, milliseconds.
        low, high: 95 % interval of p90, milliseconds; a budget is held against `high`.
        noise: unevenness of the machine, see the module.
        peak_memory_bytes: largest resident memory of the whole fresh process, None where several models shared it or
            the system does not tell.
        threads, runtime: with which it ran.
        warmup: calls before the first that counts.
        runs: calls that count.
        resize_ms: median time that `prepare` takes for one golden picture, None where none was at hand.
        reference_us: median time of one product of the reference workload, microseconds: how fast the machine was; None
            where it was not read.
    """

    p50_ms: float
    p90_ms: float
    low: float
    high: float
    noise: float
    peak_memory_bytes: int | None
    threads: int
    runtime: str
    warmup: int
    runs: int
    resize_ms: float | None
    reference_us: float | None = None


@dataclass(frozen=True, kw_only=True)
class ThreadChoice:
    """The number of threads to prefer, and the measurements by which it was chosen."""

    threads: int
    measurements: tuple[Measurement, ...]


def p90_interval(samples: Sequence[float]) -> Interval:
    """The 90th percentile of n >= 1 samples with its 95 % interval; see the module for n < 36."""
    if len(samples) >= samples_for_quantile(0.9):
        return quantile_interval(np.asarray(samples), q=0.9)
    return Interval(value=float(np.quantile(samples, 0.9)), low=min(samples), high=max(samples), n=len(samples))


def measurement_of(
    samples: Sequence[float],
    reference: Sequence[float],
    *,
    runtime: str,
    threads: int,
    warmup: int,
    memory: int | None = None,
    resize_ms: float | None = None,
) -> Measurement:
    """What n >= 1 samples in milliseconds and seconds of a product of the reference workload by each reading say; the
    rest as in `Measurement`."""
    p90 = p90_interval(samples)
    return Measurement(
        p50_ms=float(np.median(samples)),
        p90_ms=p90.value,
        low=p90.low,
        high=p90.high,
        noise=noise_of(reference),
        peak_memory_bytes=memory,
        threads=threads,
        runtime=runtime,
        warmup=warmup,
        runs=len(samples),
        resize_ms=resize_ms,
        reference_us=1e6 * float(np.median(reference)) if reference else None,
    )


def noise_of(reference: Sequence[float]) -> float:
    """p90 / p50 - 1 of the times of the reference workload; 0 from fewer than 2."""
    if len(reference) < 2:
        return 0.0
    p50, p90 = np.quantile(reference, (0.5, 0.9))
    return float(p90 / p50 - 1)


def settled(samples: Sequence[float], *, limit_ms: float) -> bool:
    """Whether more samples would not change on which side of a limit the model is.

    Either p90's interval, from 40 samples or more, lies 10 % away from the limit, or even the fastest of three calls
    took half as long again as the limit.
    """
    if len(samples) >= 3 and min(samples) > 1.5 * limit_ms:
        return True
    if len(samples) < 40:
        return False
    p90 = p90_interval(samples)
    return p90.high < 0.9 * limit_ms or p90.low > 1.1 * limit_ms


def fewest_threads(measurements: Sequence[Measurement]) -> int:
    """Threads of the measurement to prefer: the fewest that are alike the best."""
    return min(alike(measurements), key=lambda measurement: measurement.threads).threads


def alike(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those that cannot be told from the best by p90: its median and p90 times `ALIKE` are not below theirs.

    Overlapping intervals would not do: with few samples they overlap for threads that are half as fast.
    """
    best = min(measurements, key=lambda measurement: measurement.p90_ms)
    return [
        measurement
        for measurement in measurements
        if measurement.p90_ms <= ALIKE * best.p90_ms and measurement.p50_ms <= ALIKE * best.p50_ms
    ]
