"""Stages without latency measurements, for tests that are about accuracy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.latency import Measurement, ThreadChoice
from netsmith.fit import finish, stage


def untimed(patch: pytest.MonkeyPatch, *, noise: float = 0.0) -> None:
    """int8 counts as twice as fast, on a machine of such noise, and nothing is timed."""

    def timed(models: Sequence[Path], **asked: Any) -> list[Measurement]:
        return [one(2.0 / (1 + load_bundle(model.parent).config.precision.startswith("int"))) for model in models]

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
