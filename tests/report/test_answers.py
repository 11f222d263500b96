"""What the report computes from recorded answers, held against plain loops."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsmith.report import answers
from netsmith.report.answers import score


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**16), st.sampled_from([0.5, 1.0, 3.0]))
def test_score_is_what_plain_loops_count(n: int, classes: int, seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (n, classes)).astype(np.float32)  # ties are frequent
    targets = rng.integers(0, classes, n)
    found = score(logits, targets, temperature=temperature, mistakes=5)

    rows = [row.tolist() for row in logits]
    given_answers = [row.index(max(row)) for row in rows]
    wrong = [i for i in range(n) if given_answers[i] != targets[i]]
    assert found.answers.tolist() == given_answers
    assert found.top1.value == pytest.approx(1 - len(wrong) / n)

    pairs = Counter((int(targets[i]), given_answers[i]) for i in wrong)
    assert {(pair.target, pair.answer): pair.count for pair in found.confusions} == dict(pairs)
    assert [pair.count for pair in found.confusions] == sorted(pairs.values(), reverse=True)
    for label in range(classes):
        members = [i for i in range(n) if targets[i] == label]
        interval = found.per_class[label]
        assert (interval is None) == (not members)
        if interval is not None:
            assert interval.n == len(members)
            assert interval.value == pytest.approx(sum(given_answers[i] == label for i in members) / len(members))
        mistaken = {answer: count for (target, answer), count in pairs.items() if target == label}
        worst = found.taken_for[label]
        assert (worst is None) == (not mistaken)
        assert worst is None or mistaken[worst] == max(mistaken.values())

    def confidence(i: int) -> float:
        powers = [math.exp(value / temperature) for value in rows[i]]
        return max(powers) / sum(powers)

    surest = sorted((confidence(i) for i in wrong), reverse=True)[:5]
    assert [mistake.confidence for mistake in found.mistakes] == pytest.approx(surest)
    assert all(mistake.confidence == pytest.approx(confidence(mistake.index)) for mistake in found.mistakes)
    matrix = found.matrix()
    assert matrix.sum() == n
    assert int(np.trace(matrix)) == n - len(wrong)


def test_pieces_of_a_long_split_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    logits, targets = rng.normal(size=(23, 7)).astype(np.float32), rng.integers(0, 7, 23)
    whole = score(logits, targets)
    monkeypatch.setattr(answers, "_CHUNK", 5)
    pieces = score(logits, targets)
    assert (whole.top1, whole.top5, whole.mistakes) == (pieces.top1, pieces.top5, pieces.mistakes)


def test_huge_logits_do_not_overflow() -> None:
    found = score(np.array([[1e4, -1e4], [3e4, 2e4]], np.float32), np.array([1, 1]))
    assert [mistake.confidence for mistake in found.mistakes] == [1.0, 1.0]
