"""Runtimes beside each other: what is measured and compared for real, and the choice that follows from numbers."""

import importlib.util
from dataclasses import replace

import pytest
from artifact_models import colour_model, write_colours

from netsmith.artifact.bundle import Preferred
from netsmith.artifact.comparison import Comparison, Contender, Entry, compare, own_contenders
from netsmith.artifact.latency import Measurement
from netsmith.artifact.runtimes import REFERENCE

MEASURED = Measurement(
    p50_ms=10.0, p90_ms=11.0, low=10.8, high=11.2, noise=0.02, peak_memory_bytes=10**8, threads=1, runtime=REFERENCE,
    warmup=3, runs=100, resize_ms=None,
)  # fmt: skip
PRESENT = Preferred(runtime=REFERENCE, threads=1)


def entry(runtime: str = REFERENCE, *, threads: int = 1, speed: float = 1.0, differs: float = 1e-6, **more) -> Entry:
    """A row of batch 1, so many times as fast as MEASURED."""
    times = {name: getattr(MEASURED, name) / speed for name in ("p50_ms", "p90_ms", "low", "high")}
    measured = replace(MEASURED, runtime=runtime, threads=threads, **(times | more))
    return Entry(
        runtime=runtime, threads=threads, batch=1, measurement=measured, images_per_s=1000 / measured.p50_ms,
        probability_difference=differs, logit_difference=differs, same_answers=4,
    )  # fmt: skip


def choose(*entries: Entry, present: Preferred = PRESENT, recorded: Preferred | None = None):
    tolerances = {"openvino": 1e-4, "openvino-bf16": 0.02, REFERENCE: 1e-4, "torch": 1e-4}
    return Comparison(entries=entries, pictures=4, tolerances=tolerances).choose(present, recorded=recorded)


def test_the_fastest_that_agrees_is_chosen_with_its_gain():
    choice = choose(
        entry(),
        entry(threads=2, speed=1.5),
        entry("openvino-bf16", threads=2, speed=3.0, differs=0.005),
        entry("openvino", threads=2, speed=2.0),
        Entry(runtime="torch-compiled", reason="is not installed"),
    )
    assert (choice.verdict, choice.preferred) == ("kept", Preferred(runtime="openvino-bf16", threads=2))
    assert choice.after.p50_ms == pytest.approx(10 / 3)
    assert choice.reason.endswith("3.00 times as fast")


def test_of_those_alike_the_fewest_threads_and_then_the_one_always_there():
    alike = [entry("openvino", threads=2, speed=2.08), entry("openvino", speed=2.06), entry(threads=2, speed=2.06)]
    assert choose(entry(), *alike).preferred == Preferred(runtime="openvino", threads=1)
    assert choose(entry(), *alike[::2]).preferred == Preferred(runtime=REFERENCE, threads=2)


@pytest.mark.parametrize(
    "other", [entry("openvino", speed=1.04), entry("torch", speed=9.0), entry("openvino", speed=0.5)]
)
def test_what_is_preferred_stays_where_nothing_that_can_be_is_faster(other):
    choice = choose(entry(), other)
    assert (choice.verdict, choice.preferred) == ("unchanged", PRESENT)
    assert "nothing is faster than onnxruntime with 1 thread by more than 5%" in choice.reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            entry("openvino", speed=2.0, differs=2e-4),
            "probabilities are up to 0.0002 from onnxruntime's, more than 0.0001",
        ),
        (
            entry("openvino", speed=1.3, noise=0.4),
            "the smaller gain of the two, 30%, is within the noise of the machine, 40%",
        ),
        (entry("openvino", speed=1.3, low=5.0, high=12.0), "the intervals of p90 meet (5 to 12 and 10.8 to 11.2 ms)"),
    ],
    ids=["answers", "noise", "intervals"],
)
def test_what_is_faster_and_must_not_be_taken_is_refused_with_numbers(other, reason):
    choice = choose(entry(), other)
    assert (choice.verdict, choice.preferred) == ("refused", PRESENT)
    assert reason in choice.reason
    assert choice.before == entry().measurement
    assert choice.after == other.measurement


def test_a_runtime_that_disagrees_does_not_stand_in_the_way_of_one_that_agrees():
    choice = choose(entry(), entry("openvino-bf16", speed=3.0, differs=0.5), entry("openvino", speed=2.0))
    assert (choice.verdict, choice.preferred.runtime) == ("kept", "openvino")


def test_a_preference_whose_answers_are_others_gives_way_to_the_fastest_that_agrees():
    present = Preferred(runtime="openvino-bf16", threads=1)
    wrong = entry("openvino-bf16", speed=3.0, differs=0.5)
    choice = choose(wrong, entry(), entry("openvino", speed=1.5), present=present)
    assert (choice.verdict, choice.preferred) == ("kept", Preferred(runtime="openvino", threads=1))
    assert choice.before == wrong.measurement
    assert "is preferred, and its probabilities are up to 0.5 from onnxruntime's, more than 0.02" in choice.reason
    alone = choose(wrong, present=present)
    assert (alone.verdict, alone.preferred) == ("refused", present)
    assert alone.reason.endswith("nothing else that was measured agrees: measure onnxruntime too")


def test_what_runs_here_takes_the_place_of_what_cannot():
    """Whether or not something else would be faster and must not be taken."""
    recorded = Preferred(runtime="openvino", threads=8)
    choice = choose(entry(), recorded=recorded)
    assert (choice.verdict, choice.preferred, choice.before) == ("kept", PRESENT, None)
    assert choice.after == entry().measurement
    assert choice.reason.startswith("openvino with 8 threads cannot run here, onnxruntime with 1 thread can; nothing")
    uneven = choose(entry(), entry(threads=2, speed=1.3, noise=0.4), recorded=recorded)
    assert (uneven.verdict, uneven.preferred, uneven.after) == ("kept", PRESENT, entry().measurement)
    assert choose(entry(), entry(threads=2, speed=2.0), recorded=recorded).preferred.threads == 2
    assert choose(entry("openvino"), recorded=recorded).verdict == "refused", "what runs here was not measured"
    assert choose(entry(), recorded=PRESENT).verdict == "unchanged"


def test_without_a_measurement_of_what_is_preferred_nothing_is_chosen():
    assert choose(entry("openvino", speed=2.0)).verdict == "refused"


def test_runtimes_are_measured_in_turns_and_what_cannot_run_is_a_row_with_its_reason(tmp_path):
    bundle = write_colours(tmp_path / "model", model=colour_model(work=5))
    (tmp_path / "broken.onnx").write_bytes(b"hello")
    contenders = [
        own_contenders(bundle)[0],
        Contender("elsewhere", bundle.model_path, obstacle="is not installed"),
        Contender("openvino", tmp_path / "broken.onnx"),
        Contender("dying", bundle.model_path, worker="netsmith.errors"),
    ]
    seen: list[tuple[float, str]] = []
    found = compare(
        bundle, contenders, threads=[1], batches=[8, 1, 8], seconds=0.1, visits=2,
        progress=lambda title, done, total, note="": seen.append((done / total, note)),
    )  # fmt: skip
    rows = {(each.runtime, each.batch): each for each in found.entries}
    assert list(rows) == [
        ("onnxruntime", 1), ("onnxruntime", 8), ("elsewhere", None), ("openvino", 1), ("openvino", 8), ("dying", 1),
        ("dying", 8),
    ]  # fmt: skip
    for batch in (1, 8):
        row = rows["onnxruntime", batch]
        assert (row.probability_difference, row.same_answers, found.pictures) == (0.0, 3, 3)
        assert row.measurement.runs >= 2
        assert row.images_per_s == pytest.approx(1000 * batch / row.measurement.p50_ms)
        assert 20e6 < row.measurement.peak_memory_bytes < 500e6
    assert rows["onnxruntime", 1].measurement.peak_memory_bytes <= rows["onnxruntime", 8].measurement.peak_memory_bytes
    assert rows["elsewhere", None].reason == "is not installed"
    assert rows["dying", 1].reason == "ended without a word"
    missing = importlib.util.find_spec("openvino") is None
    assert ("is not installed" if missing else "broken.onnx is refused") in rows["openvino", 1].reason
    assert [share for share, _ in seen] == sorted(share for share, _ in seen)
    assert seen[0] == (0.0, "onnxruntime with 1 thread")
    assert seen[-1][0] == 1.0
