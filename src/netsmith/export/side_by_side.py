"""Latencies in PyTorch and in ONNX Runtime side by side, by the same stopwatch in one fresh process.

All models take turns in both runtimes, so that a disturbance meets them alike. PyTorch runs the float network eager,
with random weights (`netsmith.export.torch_session`). It is left out where torch is not installed.
"""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netsmith.arch.layout import Layout, layout_to_json
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure_many
from netsmith.artifact.runtimes import REFERENCE
from netsmith.export.torch_session import TORCH, WORKER
from netsmith.run.progress import Progress, silent

OPENING_S = 10.0
"""For importing torch and opening a network on a busy machine, for each network."""

Sides = dict[str, Measurement | None]
"""Runtime -> measurement, None where no time was left."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A network's layout, for PyTorch, and its ONNX file or the content of it."""

    layout: Layout
    model: Path | bytes


def side_by_side(
    pairs: Sequence[Pair], *, threads: int, seconds_each: float, progress: Progress = silent
) -> list[Sides]:
    """Latencies of networks in ONNX Runtime and, where torch is installed, in PyTorch.

    Args:
        pairs: the networks.
        threads: of every model in both runtimes, >= 1.
        seconds_each: timed calls per network and runtime.
        progress: is told the share that is done.

    Returns:
        For each network its measurements by runtime.

    Raises:
        InputError, CheckError: as `netsmith.artifact.measure.measure_many`.
    """
    runtimes = [REFERENCE] + ([TORCH] if importlib.util.find_spec("torch") is not None else [])
    models: list[Path | bytes] = []
    for pair in pairs:
        models += [pair.model, json.dumps(layout_to_json(pair.layout)).encode()][: len(runtimes)]
    measured = measure_many(
        models,
        threads=threads,
        seconds_each=seconds_each,
        deadline_s=len(models) * (4 * seconds_each + OPENING_S),
        runtime=runtimes * len(pairs),
        worker=WORKER,
        progress=progress,
    )
    count = len(runtimes)
    return [dict(zip(runtimes, measured[i * count : (i + 1) * count], strict=True)) for i in range(len(pairs))]
