"""Average precision, F1 and thresholds against scikit-learn; intervals and differences against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsmith.run.scores import headline, loss_interval, points
from netsmith.run.tagging import (
    average_precision,
    best_thresholds,
    binary_cross_entropy,
    difference_p_value,
    f1_replicates,
    map_replicates,
    mean_average_precision,
    mean_average_precision_interval,
    probabilities_of,
    resample_count,
)


def drawn(seed: int, *, n: int = 120, tags: int = 5, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits with ties, and tags of unequal frequency, the last one of no picture."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n, tags)) < np.linspace(0.05, 0.5, tags)
    targets[:, -1] = False
    targets[0, :-1] = True
    logits = np.round(rng.normal(size=(n, tags)) + skill * targets - 1, 1).astype(np.float32)
    return logits, targets


def test_resamples_without_any_tag_say_nothing() -> None:
    targets = np.zeros((40, 1), bool)
    targets[:2] = True
    logits = np.linspace(1.0, -1.0, 40, dtype=np.float32)[:, None]  # a perfect order
    values = map_replicates(logits, targets)
    assert len(values) < 1 + resample_count(40, 1)
    assert (values == 1.0).all()
    assert (f1_replicates(targets, targets)[0] == 1.0).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), skill=st.floats(-1, 4))
def test_average_precision_and_f1_are_those_of_scikit_learn(seed: int, skill: float) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    logits, targets = drawn(seed, skill=skill)
    known = slice(0, -1)
    expected = [metrics.average_precision_score(targets[:, c], logits[:, c]) for c in range(targets.shape[1] - 1)]
    found = average_precision(logits, targets)
    assert np.isnan(found[-1])
    np.testing.assert_allclose(found[known], expected, atol=1e-6)
    assert mean_average_precision(logits, targets) == pytest.approx(np.mean(expected), abs=1e-6)
    chosen = logits > 0
    macro, micro = f1_replicates(chosen, targets)
    by_class = metrics.f1_score(targets[:, known], chosen[:, known], average="macro", zero_division=0.0)
    assert macro[0] == pytest.approx(by_class)
    assert micro[0] == pytest.approx(metrics.f1_score(targets, chosen, average="micro", zero_division=0.0))


def test_replicates_are_the_metric_of_the_resampled_pictures() -> None:
    logits, targets = drawn(3, n=40)
    rng = np.random.default_rng([0x7A65, 40])  # the draws that the module makes
    rows = rng.integers(0, 40, 40)
    assert map_replicates(logits, targets)[1] == pytest.approx(mean_average_precision(logits[rows], targets[rows]))
    macro, micro = f1_replicates(logits > 0, targets)
    again = f1_replicates(logits[rows] > 0, targets[rows])
    assert (macro[1], micro[1]) == pytest.approx((again[0][0], again[1][0]))


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_no_threshold_has_a_larger_f1_than_the_one_chosen(seed: int) -> None:
    logits, targets = drawn(seed, n=20)
    probabilities = probabilities_of(logits)
    thresholds = np.array(best_thresholds(probabilities, targets))
    assert thresholds[-1] == 0.5
    best = f1_replicates(probabilities >= thresholds, targets)[0][0]
    for other in np.unique(probabilities):
        for column in range(targets.shape[1] - 1):
            tried = thresholds.copy()
            tried[column] = other
            assert f1_replicates(probabilities >= tried, targets)[0][0] <= best + 1e-9


def test_an_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    truth = mean_average_precision(*drawn(1, n=40_000))
    held = sum(truth in mean_average_precision_interval(*drawn(seed, n=250)) for seed in range(100))
    assert 85 <= held <= 100, held


def test_a_perfect_answer_is_one_and_no_tag_at_all_is_zero() -> None:
    _, targets = drawn(0)
    perfect = headline(np.where(targets, 5, -5).astype(np.float32), targets)
    assert (perfect.value, perfect.low, perfect.high, perfect.n) == (1.0, 1.0, 1.0, 120)
    assert headline(np.zeros((3, 2), np.float32), np.zeros((3, 2), bool)).value == 0.0


def test_models_are_told_apart_on_the_same_pictures_only_where_they_differ() -> None:
    good, targets = drawn(5, n=400, skill=2.0)
    rng = np.random.default_rng(0)
    good = good + rng.normal(0, 0.05, good.shape)  # without ties, which cost precision
    nearly = good + rng.normal(0, 0.05, good.shape)
    poor = good + rng.normal(0, 3.0, good.shape)
    one, other, worse = (map_replicates(logits, targets) for logits in (good, nearly, poor))
    assert difference_p_value(one, one) == 1.0
    assert difference_p_value(one, other) > 0.05
    assert difference_p_value(one, worse) < 0.001
    assert len(one) == 1 + resample_count(400, 5)


def test_the_loss_is_that_of_torch_and_words_follow_the_shape_of_the_targets() -> None:
    torch = pytest.importorskip("torch")
    logits, targets = drawn(2)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits).double(), torch.from_numpy(targets).double(), reduction="none"
    )
    assert binary_cross_entropy(logits, targets) == pytest.approx(float(expected.sum(1).mean()))
    assert binary_cross_entropy(np.full((1, 1), 2000.0), np.zeros((1, 1), bool)) == 2000.0
    found = points(logits, targets)
    assert list(found) == ["map", "loss"]
    assert found["map"] == pytest.approx(headline(logits, targets).value)
    assert found["loss"] == pytest.approx(loss_interval(logits, targets).value)
    assert list(points(logits, targets.argmax(1))) == ["top1", "top5", "loss"]
