import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.run.metrics import (
    Interval,
    cross_entropy,
    mcnemar,
    quantile_interval,
    samples_for_quantile,
    top_k_correct,
    wilson,
)


def test_wilson_as_published():
    """Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), (low, high) in published.items():
        interval = wilson(successes, n)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
        assert (interval.value, interval.n) == (successes / n, n)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_an_interval_within_0_and_1(pair):
    interval = wilson(*pair)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert Interval.model_validate_json(interval.model_dump_json()) == interval


def test_interval_refuses_disorder_and_nan():
    for value, low, high in ((1.0, 2.0, 3.0), (float("nan"), 0.0, 1.0)):
        with pytest.raises(ValueError, match="interval|finite"):
            Interval(value=value, low=low, high=high, n=1)


def test_top_k_against_sorting():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 6, (200, 7)).astype(np.float32)  # many ties
    targets = rng.integers(0, 7, 200)
    for k in (1, 2, 5, 7, 9):
        expected = [target in np.argsort(-row, kind="stable")[:k] for row, target in zip(logits, targets, strict=True)]
        assert top_k_correct(logits, targets, k=k).tolist() == expected


def test_top_k_with_nan_is_wrong():
    logits = np.array([[np.nan, 1.0], [np.nan, np.nan], [0.0, 1.0]], np.float32)
    assert top_k_correct(logits, np.array([1, 0, 1]), k=2).tolist() == [False, False, True]


def test_cross_entropy_against_the_definition_and_without_overflow():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(50, 4))
    targets = rng.integers(0, 4, 50)
    plain = np.mean(
        [-math.log(math.exp(row[t]) / sum(map(math.exp, row))) for row, t in zip(logits, targets, strict=True)]
    )
    assert cross_entropy(logits, targets) == pytest.approx(plain, rel=1e-12)
    assert cross_entropy(np.array([[1e4, -1e4]], np.float32), np.array([1])) == pytest.approx(2e4)


def test_quantile_bounds_are_the_textbook_order_statistics():
    """Hand check for n = 36, q = 0.9 from exact binomial sums: the bounds are x_(29) and x_(36)."""
    exact = [math.comb(36, k) * 0.9**k * 0.1 ** (36 - k) for k in range(37)]
    lower = max(rank for rank in range(1, 37) if sum(exact[:rank]) <= 0.025)
    upper = min(rank for rank in range(1, 37) if sum(exact[rank:]) <= 0.025)
    interval = quantile_interval(np.arange(36, 0, -1.0), q=0.9)
    assert (interval.low, interval.high) == (lower, upper)
    assert interval.n == 36


@pytest.mark.parametrize("n", [36, 60, 400])
def test_quantile_interval_covers(n):
    rng = np.random.default_rng(n)
    truth = math.log(10)  # 90 % quantile of the unit exponential
    hits = sum(truth in quantile_interval(rng.exponential(size=n), q=0.9) for _ in range(600))
    assert hits / 600 > 0.925


def test_too_few_samples():
    assert samples_for_quantile(0.9) == 36
    with pytest.raises(ValueError, match="35 samples are too few for the 90% quantile; take 36"):
        quantile_interval(np.ones(35), q=0.9)


def test_equal_samples():
    interval = quantile_interval(np.full(50, 2.5), q=0.9)
    assert (interval.low, interval.value, interval.high) == (2.5, 2.5, 2.5)


def flags(only_a: int, only_b: int, both: int = 50) -> tuple[np.ndarray, np.ndarray]:
    a = np.array([True] * only_a + [False] * only_b + [True] * both)
    b = np.array([False] * only_a + [True] * only_b + [True] * both)
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 5), (1, 9), (12, 30), (700, 800), (7, 7)])
def test_mcnemar_against_exact_sums(only_a, only_b):
    n, fewer = only_a + only_b, min(only_a, only_b)
    exact = min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)
    assert mcnemar(*flags(only_a, only_b)) == pytest.approx(exact, rel=1e-9)
    assert mcnemar(*flags(only_b, only_a)) == mcnemar(*flags(only_a, only_b))
