"""`benchmarks/distill.py`: what is selected on, and what its rows say."""

import math

import numpy as np
import pytest
from distill import NONE, T_95, halves, interval, summary


def test_half_of_every_class_is_selected_on_whatever_the_order() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(60, dtype=np.int64) % 3
    chosen = halves(pixels, labels)
    assert np.bincount(labels[chosen]).tolist() == [10, 10, 10]
    order = draw.permutation(60)
    assert (halves(pixels[order], labels[order]) == chosen[order]).all()


def test_intervals_are_students() -> None:
    """Of which the distribution function is known in closed form for two and for three values."""
    assert 0.5 + math.atan(T_95[2]) / math.pi == pytest.approx(0.975, abs=1e-5)
    assert 0.5 + T_95[3] / (2 * math.sqrt(2 + T_95[3] ** 2)) == pytest.approx(0.975, abs=1e-5)
    values = np.array([0.91, 0.93, 0.915])
    half = T_95[3] * values.std(ddof=1) / math.sqrt(3)
    assert interval(values.tolist()) == f"91.83 ({100 * (values.mean() - half):.2f} to 94.42)"
    assert interval([0.5]) == "50.00"


def test_gains_are_taken_seed_by_seed() -> None:
    def rows(*reached: float) -> list[dict[str, object]]:
        return [{"test_top1": value, "n": 5000} for value in reached]

    alone, taught = summary({"model": "m"}, {NONE: rows(0.8, 0.9), "kd": rows(0.81, 0.91)})
    assert alone["note"].startswith("mean of 2 seeds 85.00 (")
    assert "1.00 (1.00 to 1.00) points over none" in taught["note"]
    assert (taught["test_top1"], taught["n"], taught["subject"]) == (pytest.approx(0.86), 5000, "teacher: kd")
