"""Whom to time and whom to race: measurements replace guesses, the choice is spread over families and sides."""

import math
from dataclasses import replace

import pytest

from netsmith.search.candidates import Pictures, all_candidates
from netsmith.search.choose import (
    CAPABLE,
    LAG,
    MACS_OF_WORK,
    PIXEL_LAG,
    SURPLUS,
    Outlook,
    Timing,
    calibration,
    guessed_latency,
    promise,
    promising,
    rates,
    ripe_epochs,
    training_work,
)


def candidates():
    """Counted when the first test asks."""
    return all_candidates(Pictures(side=64, train=2000, classes=5))


def timed(candidate, *, macs_per_s):
    p50 = candidate.cost.macs / macs_per_s * 1e3
    return Timing(p50_ms=p50, high_ms=1.1 * p50, size_bytes=candidate.size_bytes)


def test_rates_come_from_what_was_timed():
    some = [c for c in candidates() if c.base == "resnet18"][:5]
    timings = {c.id: timed(c, macs_per_s=3e10) for c in some}
    assert rates({each.id: each for each in candidates()}, timings) == {"resnet18": pytest.approx(3e10)}
    other = next(c for c in candidates() if c.base == "resnet18" and c.id not in timings)
    guess = guessed_latency(other, timing=None, speeds=rates({each.id: each for each in candidates()}, timings))
    assert guess == pytest.approx(other.cost.macs / 3e10)
    assert guessed_latency(some[0], timing=timings[some[0].id], speeds={}) == timings[some[0].id].p50_ms / 1e3


def test_a_timing_of_no_candidate_is_ignored():
    assert rates({}, {"gone": Timing(p50_ms=1.0, high_ms=1.0, size_bytes=1)}) == {}


def test_promise_peaks_where_the_time_feeds_the_network():
    best = next(c for c in candidates() if c.base == "resnet18" and c.side == 64)
    work = training_work(best.cost)
    outlook = Outlook(train=1000, seconds=100.0, side=64, work_per_s=ripe_epochs(1000) * 1000 * work / 100.0)

    def at(candidate=best, **changes):
        return promise(candidate, replace(outlook, **changes))

    def too_small(candidate, times=1.0):
        return SURPLUS * math.log2(times * MACS_OF_WORK * work / (candidate.cost.macs * CAPABLE[candidate.base]))

    assert at(seconds=50.0) == pytest.approx(-1.0)
    assert at(work_per_s=outlook.work_per_s / 2) == pytest.approx(-1.0)
    assert at(seconds=800.0) == pytest.approx(-too_small(best, 8.0))
    assert at(seconds=50.0, side=128) == pytest.approx(-1.0 - PIXEL_LAG)
    # Training on a quarter of the pixels leaves as much room as four times the time.
    assert at(share=0.25) == pytest.approx(at(seconds=400.0))
    lagging = replace(best, base="mobilenet_v2")
    assert at(lagging) == pytest.approx(-LAG["mobilenet_v2"])
    enough = 2 ** LAG["mobilenet_v2"]
    assert at(lagging, seconds=100.0 * enough) == pytest.approx(min(0.0, -too_small(lagging, enough)))


def test_calibration_covers_every_family_evenly():
    chosen = calibration(candidates(), each=2)
    for base in {c.base for c in candidates()}:
        costs = sorted(c.cost.macs for c in candidates() if c.base == base)
        own = [c.cost.macs for c in chosen if c.base == base]
        assert len(own) == 2
        assert costs[0] < min(own) < max(own) < costs[-1]


def test_the_chosen_are_spread_and_ordered():
    timings = {c.id: timed(c, macs_per_s=5e10) for c in calibration(candidates())}
    outlook = Outlook(train=2000, seconds=60.0, side=64)

    def choose(**changes):
        settings = {"known": candidates(), "count": 9, "outlook": outlook, "limit_ms": None, "per_base": 3}
        return promising(candidates(), timings, **(settings | changes))

    chosen = choose(spread=2.0)
    assert len(chosen) == 9
    for base in {c.base for c in chosen}:
        own = [c for c in chosen if c.base == base]
        assert len(own) <= 3
        for i, a in enumerate(own):
            for b in own[:i]:
                macs = sorted((a.cost.macs, b.cost.macs))
                assert max(a.side, b.side) > 1.21 * min(a.side, b.side) or macs[1] > 1.3225 * macs[0]

    def hopes(candidates):
        return [promise(candidate, outlook) for candidate in candidates]

    found = hopes(chosen)
    assert found == sorted(found, reverse=True)
    near = choose(margin=0.1)
    assert 0 < len(near) < 9
    assert min(hopes(near)) >= found[0] - 0.1


def test_more_time_chooses_larger_networks():
    def work(seconds):
        chosen = promising(
            candidates(),
            {},
            known=candidates(),
            count=6,
            outlook=Outlook(train=2000, seconds=seconds, side=64),
            limit_ms=None,
            per_base=2,
        )
        return sum(c.cost.macs for c in chosen)

    assert work(10.0) < work(100.0) < work(1000.0)


def test_a_latency_limit_passes_over_what_is_clearly_slower():
    limit = 0.2
    outlook = Outlook(train=2000, seconds=1e5, side=64)
    chosen = promising(candidates(), {}, known=candidates(), count=20, outlook=outlook, limit_ms=limit, per_base=9)
    assert chosen
    assert all(guessed_latency(c, timing=None, speeds={}) * 1e3 <= limit for c in chosen)
