"""Which runtime a made model is served by: a decision from what was measured in each."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from netsmith.artifact.bundle import Bundle, Preferred
from netsmith.artifact.runtimes import REFERENCE
from netsmith.fit import in_runtimes
from netsmith.fit.in_runtimes import Limits, Made, Served, serve
from netsmith.fit.judged import Judged
from netsmith.fit.stage import Stage
from netsmith.run.result import Latency
from netsmith.run.scores import Answers

N = 200
LIMITS = Limits(max_drop=0.5, faster=True)


def judged(ms: float, *, wrong: int = 0, runtime: str = REFERENCE, size: int = 1000) -> Judged:
    """A model that takes so long and answers so many of 200 pictures wrong."""
    answers = Answers(np.eye(2, dtype=np.float32)[[0] * (N - wrong) + [1] * wrong], np.zeros(N, np.int64))
    return Judged(
        artifact=runtime, model="net", metric="top1", score=answers.headline,
        latency=Latency(p50=ms, p90=ms, low=ms, high=ms, noise=0.0), size_bytes=size, memory_bytes=None, params=1,
        macs=1, precision="int8", runtime=runtime, threads=1, answers=answers,
    )  # fmt: skip


WHOLE = judged(10.0)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve a model that was measured to be these, the first in the reference, in as many folders."""

    def serves(*measured: Judged, limits: Limits = LIMITS) -> tuple[Served, list[str]]:
        folders = [tmp_path / each.runtime for each in measured]
        for folder in folders:
            folder.mkdir()
        bundles = [Bundle(folder, cast(Any, None)) for folder in folders]
        monkeypatch.setattr(in_runtimes, "_written", lambda *_: bundles)
        stage = cast(Stage, SimpleNamespace(judge=lambda *_: (WHOLE, *measured)))
        preferred = [Preferred(runtime=each.runtime) for each in measured]
        found = serve(stage, bundles[0], Made(model=b"", precision="int8"), preferred, limits)
        return found, [folder.name for folder in folders if folder.exists()]

    return serves


def other(ms: float, *, wrong: int = 0) -> Judged:
    return judged(ms, wrong=wrong, runtime="openvino")


def test_the_faster_of_two_that_hold_is_preferred_and_only_it_stays(served: Any) -> None:
    found, left = served(judged(5.0, wrong=1), other(4.0))
    assert (found.after.runtime, found.found.kept, left) == ("openvino", True, ["openvino"])
    assert found.found.reason.endswith("; in onnxruntime with 1 thread top-1 99.50%, p50 5 ms, p90 5 ms")
    assert [each.runtime for each in found.others] == [REFERENCE]


@pytest.mark.parametrize("ms", [4.9, 5.0, 6.0])
def test_one_that_is_not_clearly_faster_is_not_preferred(served: Any, ms: float) -> None:
    found, left = served(judged(5.0), other(ms))
    assert (found.after.runtime, found.found.kept, left) == (REFERENCE, True, [REFERENCE])


def test_where_only_one_is_faster_than_float_it_serves(served: Any) -> None:
    found, _ = served(judged(11.0), other(9.0))
    assert (found.after.runtime, found.found.kept, found.slow) == ("openvino", True, False)


def test_one_that_answers_worse_does_not_serve_however_fast(served: Any) -> None:
    found, _ = served(judged(5.0), other(1.0, wrong=9))
    assert (found.after.runtime, found.found.kept) == (REFERENCE, True)


def test_what_stands_in_must_answer_well_too(served: Any) -> None:
    """Who has no OpenVINO gets its answers. That it is fast in one of them is still known."""
    found, left = served(judged(11.0, wrong=9), other(4.0))
    assert (found.found.kept, found.drops, found.slow, left) == (False, True, False, [])
    assert found.found.reason.startswith(
        "onnxruntime, which stands in for openvino, answers worse (in onnxruntime with 1 thread top-1 95.50%, p50 11 ms"
    )


def test_where_speed_is_not_asked_for_the_faster_is_still_preferred(served: Any) -> None:
    found, _ = served(judged(12.0), other(11.0), limits=replace(LIMITS, faster=False))
    assert (found.after.runtime, found.found.kept) == ("openvino", True)
