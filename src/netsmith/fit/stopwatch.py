"""Untrained candidates on the stopwatch: exported with random weights, timed in a fresh process, remembered.

A timing is remembered per layout, runtime, threads and machine, in one JSON-lines file of the cache, so the same
network is timed once a machine. Appending rows is safe between processes and after a crash (see `run.files`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from netsmith.arch.layout import Layout, layout_to_json
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure_many
from netsmith.errors import InputError
from netsmith.run.clock import Clock
from netsmith.run.files import append_jsonl, read_jsonl
from netsmith.run.machine import machine, versions
from netsmith.run.metrics import samples_for_quantile
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress
from netsmith.run.scores import Task
from netsmith.search.candidates import Candidate
from netsmith.search.choose import Timing

RUNTIME = "onnxruntime"
QUIET = 0.25
"""Noise of the machine below which a timing is remembered for later runs."""


class Stopwatch:
    """Times candidates within a number of seconds.

    Args:
        cache: folder in which timings are remembered.
        threads: of the runtime.
        limit_ms: the budget's latency; candidates clearly above or below are decided early.
        label_bytes: that the names of the classes take in an artifact, see `label_bytes`.
        clock: reads time.
        progress: is told how far it is.
    """

    def __init__(
        self, cache: Path, *, threads: int, limit_ms: float | None, label_bytes: int, clock: Clock, progress: Progress
    ) -> None:
        name = f"{machine().key}-{RUNTIME}-{versions().get(RUNTIME, 'unknown')}-{threads}.jsonl"
        self.path = cache / "timings" / name
        self.threads = threads
        self.limit_ms = limit_ms
        self.label_bytes = label_bytes
        self.clock = clock
        self.progress = progress

    def times(self, candidates: Sequence[Candidate], *, seconds: float) -> dict[str, Timing]:
        """Timings by candidate id; those for which no time was left are missing.

        Args:
            candidates: the most wanted first.
            seconds: for those that are not remembered, all in all.
        """
        # Lazily: onnx takes a while to import and `fit` reads data first.
        from netsmith.export.probe import probe_onnx

        until = self.clock.now() + seconds
        known = self._remembered()
        found: dict[str, Timing] = {}
        fresh: list[tuple[Candidate, str, bytes]] = []
        for candidate in candidates:
            key = timing_key(candidate.layout)
            if key in known:
                row = known[key]
                size = row["size_bytes"] + self.label_bytes
                found[candidate.id] = Timing(p50_ms=row["p50_ms"], high_ms=row["high_ms"], size_bytes=size)
            elif self.clock.now() < until:
                model = probe_onnx(candidate.layout, preprocess=Preprocess(size=candidate.layout.input.size[0]))
                fresh.append((candidate, key, model))
        if fresh:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            found |= self._measure(fresh, seconds=max(until - self.clock.now(), 1.0))
        return found

    def _remembered(self) -> dict[str, dict[str, Any]]:
        """Rows of earlier runs by their key; a damaged file is begun anew."""
        try:
            return {row["key"]: row for row in read_jsonl(self.path)}
        except InputError:
            self.path.unlink(missing_ok=True)
            return {}

    def _measure(self, fresh: Sequence[tuple[Candidate, str, bytes]], *, seconds: float) -> dict[str, Timing]:
        found: dict[str, Timing] = {}

        def keep(index: int, measurement: Measurement | None) -> None:
            candidate, key, model = fresh[index]
            if measurement is None:
                return
            size = len(model) + config_bytes(candidate.layout)
            times = {"p50_ms": measurement.p50_ms, "high_ms": measurement.high}
            found[candidate.id] = Timing(**times, size_bytes=size + self.label_bytes)
            # Few calls (a network given up as far over the limit) or a busy machine: good enough for this run only.
            if measurement.runs >= samples_for_quantile(0.9) and measurement.noise < QUIET:
                row = {"key": key, "name": candidate.layout.name, **times, "size_bytes": size}
                append_jsonl(self.path, row)

        measure_many(
            [model for _, _, model in fresh],
            threads=self.threads,
            seconds_each=min(0.4, seconds / len(fresh)),
            limit_ms=self.limit_ms,
            deadline_s=seconds,
            runtime=RUNTIME,
            on_result=keep,
            progress=self.progress,
        )
        return found


THRESHOLD_BYTES = 30
"""That the threshold of a tag takes at most in `config.json`, on a line of its own."""


def timing_key(layout: Layout) -> str:
    """Hex digest that is equal where two layouts are the same network, whatever it is called."""
    document = layout_to_json(replace(layout, name=""))
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def config_bytes(layout: Layout) -> int:
    """Bytes that `config.json` takes in an artifact without its labels: the layout and 2 kB of settings."""
    return len(json.dumps(layout_to_json(layout), indent=2)) * 5 // 4 + 2000


def label_bytes(labels: Sequence[str], task: Task = "classify") -> int:
    """Bytes that the names of classes take in `config.json`, each on a line of its own, and of tags their
    thresholds."""
    threshold = THRESHOLD_BYTES if task == "tag" else 0
    return sum(len(json.dumps(name, ensure_ascii=False).encode()) + 6 + threshold for name in labels)


def timings_to_json(timings: Mapping[str, Timing]) -> dict[str, list[float]]:
    """Plain JSON of timings, for a plan row."""
    return {id_: [timing.p50_ms, timing.high_ms, timing.size_bytes] for id_, timing in timings.items()}


def timings_from_json(document: Mapping[str, Sequence[float]]) -> dict[str, Timing]:
    """Timings of a plan row."""
    return {id_: Timing(p50_ms=p50, high_ms=high, size_bytes=int(size)) for id_, (p50, high, size) in document.items()}
