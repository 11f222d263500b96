"""Which runtime a made model is served by: a decision from what was measured in each."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from netsmith.artifact.bundle import Bundle, Preferred
from netsmith.artifact.runtimes import REFERENCE
from netsmith.errors import CheckError
from netsmith.fit import in_runtimes
from netsmith.fit.in_runtimes import Limits, Made, Served, serve
from netsmith.fit.judged import Judged
from netsmith.fit.stage import Stage
from netsmith.run.budget import Budget
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
def told() -> list[str]:
    """What is warned about."""
    return []


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> Any:
    """Serve a model that was measured to be these, the first in the reference, in as many folders; `fails` is what
    becomes of measuring more than the first."""

    def serves(*measured: Judged, limits: Limits = LIMITS, fails: Exception | None = None) -> tuple[Served, list[str]]:
        folders = [tmp_path / each.runtime for each in measured]
        for folder in folders:
            folder.mkdir()
        configs = [SimpleNamespace(preferred=Preferred(runtime=each.runtime)) for each in measured]
        bundles = [Bundle(folder, cast(Any, config)) for folder, config in zip(folders, configs, strict=True)]
        monkeypatch.setattr(in_runtimes, "_written", lambda *_: (bundles, {}))

        def judge(_: Bundle, *asked: Bundle) -> tuple[Judged, ...]:
            if fails is not None and len(asked) > 1:
                raise fails
            return (WHOLE, *measured[: len(asked)])

        stage = cast(Stage, SimpleNamespace(judge=judge, session=SimpleNamespace(warn=told.append)))
        others = [each.runtime for each in measured[1:]]
        found = serve(stage, bundles[0], Made(model=b"", precision="int8"), Preferred(), others, limits)
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


def test_one_that_does_not_stand_in_is_not_said_to(served: Any) -> None:
    found, _ = served(judged(11.0, wrong=9, runtime="openvino"), judged(4.0, runtime="openvino-bf16"))
    assert found.found.reason.startswith("openvino, beside which openvino-bf16 is judged, answers worse (in openvino ")


def test_where_speed_is_not_asked_for_the_faster_is_still_preferred(served: Any) -> None:
    found, _ = served(judged(12.0), other(11.0), limits=replace(LIMITS, faster=False))
    assert (found.after.runtime, found.found.kept) == ("openvino", True)


@pytest.mark.parametrize(("aim", "runtime"), [(Budget(), REFERENCE), (Budget(latency_ms=7.0), "openvino")])
def test_where_speed_is_not_asked_for_one_that_answers_worse_serves_only_where_the_budget_wants_it(
    served: Any, aim: Budget, runtime: str
) -> None:
    """Though it alone is faster than float."""
    found, _ = served(judged(10.0), other(5.0, wrong=9), limits=Limits(max_drop=5.0, aim=aim))
    assert (found.after.runtime, found.found.kept) == (runtime, True)


def test_where_neither_is_kept_it_is_known_by_the_one_that_loses_less(served: Any) -> None:
    found, _ = served(judged(5.0, wrong=2), other(4.0, wrong=12))
    assert (found.after.runtime, found.loses, found.drops) == (REFERENCE, pytest.approx(1.0), True)


def test_what_a_limit_has_to_allow_is_what_the_one_that_stands_in_loses(served: Any) -> None:
    """Though the answers that would be preferred lose nothing."""
    found, _ = served(judged(5.0, wrong=2), other(4.0))
    assert (found.after.runtime, found.loses, found.drops) == ("openvino", pytest.approx(1.0), True)


@pytest.mark.parametrize(("limit_ms", "runtime"), [(None, REFERENCE), (6.0, REFERENCE), (4.5, "openvino")])
def test_the_better_beyond_chance_is_preferred_to_the_quicker_while_it_fits(
    served: Any, limit_ms: float | None, runtime: str
) -> None:
    limits = replace(LIMITS, max_drop=5.0, aim=Budget(latency_ms=limit_ms))
    found, _ = served(judged(5.0), other(4.0, wrong=9), limits=limits)
    assert (found.found.kept, found.after.runtime) == (True, runtime)


@pytest.mark.parametrize(("limit_ms", "runtime"), [(None, "openvino"), (4.5, REFERENCE)])
def test_so_it_is_where_the_reference_is_the_quicker(served: Any, limit_ms: float | None, runtime: str) -> None:
    limits = replace(LIMITS, max_drop=5.0, aim=Budget(latency_ms=limit_ms))
    found, _ = served(judged(4.0, wrong=9), other(5.0), limits=limits)
    assert (found.found.kept, found.after.runtime) == (True, runtime)


def test_one_that_cannot_be_measured_is_left_out_aloud(served: Any, told: list[str]) -> None:
    found, left = served(judged(5.0), other(4.0), fails=CheckError("its process was ended by SIGSEGV"))
    assert (found.after.runtime, found.found.kept, left) == (REFERENCE, True, [REFERENCE])
    assert found.without == {"openvino": "its process was ended by SIGSEGV"}
    assert found.found.reason.endswith("; without openvino: its process was ended by SIGSEGV")
    assert told == ["int8 is judged without openvino: its process was ended by SIGSEGV"]
