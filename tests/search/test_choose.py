"""Whom to time and whom to race: measurements replace guesses, the choice is spread over families and sides."""

import pytest

from netsmith.search.candidates import Pictures, all_candidates
from netsmith.search.choose import (
    TRAIN_PER_INFERENCE,
    Timing,
    calibration,
    guessed_latency,
    promise,
    promising,
    rates,
    ripe_epochs,
)

CANDIDATES = all_candidates(Pictures(side=64, train=2000, classes=5))
BY_ID = {candidate.id: candidate for candidate in CANDIDATES}


def timed(candidate, *, macs_per_s):
    p50 = candidate.cost.macs / macs_per_s * 1e3
    return Timing(p50_ms=p50, high_ms=1.1 * p50, size_bytes=candidate.size_bytes)


def test_rates_come_from_what_was_timed():
    some = [c for c in CANDIDATES if c.base == "resnet18"][:5]
    timings = {c.id: timed(c, macs_per_s=3e10) for c in some}
    assert rates(BY_ID, timings) == {"resnet18": pytest.approx(3e10)}
    other = next(c for c in CANDIDATES if c.base == "resnet18" and c.id not in timings)
    guess = guessed_latency(other, timing=None, speeds=rates(BY_ID, timings))
    assert guess == pytest.approx(other.cost.macs / 3e10)
    assert guessed_latency(some[0], timing=timings[some[0].id], speeds={}) == timings[some[0].id].p50_ms / 1e3


def test_a_timing_of_no_candidate_is_ignored():
    assert rates({}, {"gone": Timing(p50_ms=1.0, high_ms=1.0, size_bytes=1)}) == {}


def test_promise_peaks_where_the_time_feeds_the_network():
    best = 100.0 / (1000 * ripe_epochs(1000) * TRAIN_PER_INFERENCE["resnet18"])
    at_best = promise("resnet18", best, train=1000, seconds=100.0)
    assert at_best == pytest.approx(0.0)
    for factor in (0.5, 0.8, 1.25, 2.0):
        assert promise("resnet18", factor * best, train=1000, seconds=100.0) < at_best
    assert promise("resnet18", 2 * best, train=1000, seconds=100.0) == pytest.approx(-1.0)


def test_calibration_covers_every_family_evenly():
    chosen = calibration(CANDIDATES, each=2)
    for base in {c.base for c in CANDIDATES}:
        costs = sorted(c.cost.macs for c in CANDIDATES if c.base == base)
        own = [c.cost.macs for c in chosen if c.base == base]
        assert len(own) == 2
        assert costs[0] < min(own) < max(own) < costs[-1]


def test_the_chosen_are_spread_and_ordered():
    timings = {c.id: timed(c, macs_per_s=5e10) for c in calibration(CANDIDATES)}
    chosen = promising(
        CANDIDATES, timings, known=CANDIDATES, count=9, train=2000, seconds=60.0, limit_ms=None, per_base=2
    )
    assert len(chosen) == 9
    for base in {c.base for c in chosen}:
        sides = [c.layout.input.size for c in chosen if c.base == base]
        assert len(sides) <= 2
        assert len(set(sides)) == len(sides)
    speeds = rates(BY_ID, timings)
    promises = [
        promise(c.base, guessed_latency(c, timing=timings.get(c.id), speeds=speeds), train=2000, seconds=60.0)
        for c in chosen
    ]
    assert promises == sorted(promises, reverse=True)


def test_more_time_chooses_larger_networks():
    def work(seconds):
        chosen = promising(
            CANDIDATES, {}, known=CANDIDATES, count=6, train=2000, seconds=seconds, limit_ms=None, per_base=2
        )
        return sum(c.cost.macs for c in chosen)

    assert work(10.0) < work(100.0) < work(1000.0)


def test_a_latency_limit_passes_over_what_is_clearly_slower():
    limit = 0.2
    chosen = promising(CANDIDATES, {}, known=CANDIDATES, count=20, train=2000, seconds=1e5, limit_ms=limit, per_base=9)
    assert chosen
    assert all(guessed_latency(c, timing=None, speeds={}) * 1e3 <= limit for c in chosen)
