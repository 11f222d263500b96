"""`benchmarks/runtimes.py`: what its rows say."""

from pathlib import Path

import pytest
import results
import runtimes
from artifact_models import write_colours

from netsmith.artifact.comparison import Comparison, Entry
from netsmith.artifact.latency import Measurement

MEASURED = Measurement(
    p50_ms=4.0, p90_ms=4.5, low=4.4, high=4.6, noise=0.02, peak_memory_bytes=10**8, threads=2, runtime="openvino",
    warmup=3, runs=100, resize_ms=None,
)  # fmt: skip


def test_rows_hold_times_speed_and_what_is_missing(tmp_path: Path) -> None:
    agreement = {"logit_difference": 0.0, "same_answers": 4}
    slow = Measurement(**{**vars(MEASURED), "p50_ms": 10.0, "runtime": "torch"})
    entries = (
        Entry(runtime="openvino", threads=2, batch=8, measurement=MEASURED, images_per_s=2000.0,
              probability_difference=2e-4, **agreement),
        Entry(runtime="torch", threads=2, batch=8, measurement=slow, images_per_s=800.0, probability_difference=0.0,
              **agreement),
        Entry(runtime="torch-compiled", reason="is not installed"),
    )  # fmt: skip
    found = Comparison(entries=entries, pictures=4, tolerances={"openvino": 1e-4, "torch": 1e-4})
    fast, eager, absent = runtimes.rows_of(write_colours(tmp_path / "model"), found)
    assert (fast["subject"], fast["model"]) == ("openvino, 2 threads, batch 8", "resnet20_cifar r32 float32")
    assert (fast["latency_p50_ms"], fast["latency_p90_high_ms"]) == (4.0, 4.6)
    assert fast["note"].startswith("2000.0 images/s; 2.50 times torch; 100 MB of memory; noise 0.02, 100 calls")
    assert fast["note"].endswith("probabilities within 2.0e-04 (!)")
    assert "1.00 times torch" in eager["note"]
    assert (absent["subject"], absent["note"]) == ("torch-compiled", "is not installed")
    assert all(set(row) <= set(results.FIELDS) for row in (fast, eager, absent))


@pytest.mark.slow
def test_a_network_is_measured(tmp_path: Path) -> None:
    typed = "--networks resnet20_cifar --runtimes onnxruntime torch --threads 1 --batches 1 --seconds 0.2 --visits 1"
    runtimes.main([*typed.split(), "--results", str(tmp_path / "results.csv")])
    assert (tmp_path / "results.csv").read_text().count("resnet20_cifar r32 float32") == 2
