"""Stages without latency measurements, for tests that are about accuracy."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.latency import Measurement, ThreadChoice
from netsmith.artifact.runtimes import REFERENCE
from netsmith.fit import finish, quantizing, stage


def untimed(
    patch: pytest.MonkeyPatch,
    *,
    noise: float = 0.0,
    int8: float = 2.0,
    quick: Mapping[str, float] | None = None,
) -> None:
    """int8 counts as twice as fast, on a machine of such noise, and nothing is timed.

    Args:
        patch: undoes it.
        noise: of the machine.
        int8: how many times as fast int8 is.
        quick: how many times as fast models are in other runtimes, in which int8 is judged too where this is given.
    """
    if quick is None:
        patch.setattr(quantizing, "INT8_IN", (REFERENCE,))

    faster = defaultdict[str, float](lambda: 1.0, int8=int8)

    def timed(models: Sequence[Path], *, runtime: Sequence[str], **asked: Any) -> list[Measurement]:
        return [
            one(2.0 / (faster[load_bundle(model.parent).config.precision] * (quick or {}).get(name, 1.0)))
            for model, name in zip(models, runtime, strict=True)
        ]

    def one(ms: float) -> Measurement:
        return Measurement(
            p50_ms=ms, p90_ms=ms, low=ms, high=ms, noise=noise, peak_memory_bytes=10**7,
            threads=1, runtime="onnxruntime", warmup=1, runs=40, resize_ms=None,
        )  # fmt: skip

    def best(model: bytes, *, runtime: str, **asked: Any) -> ThreadChoice:
        return ThreadChoice(threads=2, measurements=())

    patch.setattr(finish, "preferred_threads", best)
    patch.setattr(stage, "measure_many", timed)
    patch.setattr(stage, "measure", lambda folder, **asked: one(1.0))
