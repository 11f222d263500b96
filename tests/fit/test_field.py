"""The field: only what fits, from timings that a replay finds again, and what is said when nothing fits."""

from dataclasses import dataclass, field

import pytest

from netsmith.errors import CheckError
from netsmith.fit.field import HEADROOM, choose_field, fits
from netsmith.fit.stopwatch import Stopwatch
from netsmith.run.budget import Budget
from netsmith.run.clock import FakeClock
from netsmith.run.plan import Plan
from netsmith.run.progress import silent
from netsmith.search.candidates import Pictures
from netsmith.search.choose import Outlook, Timing

ICONS = Pictures(side=28, train=2000, classes=4)


@dataclass
class Fake:
    """A stopwatch on a machine of fixed speed that times all it is asked to."""

    macs_per_s: float = 2e10
    asked: list = field(default_factory=list)

    def times(self, candidates, *, seconds):
        self.asked.append((len(candidates), seconds))
        return {
            c.id: Timing(
                p50_ms=c.cost.macs / self.macs_per_s * 1e3,
                high_ms=1.2 * c.cost.macs / self.macs_per_s * 1e3 + 0.01,
                size_bytes=c.size_bytes,
            )
            for c in candidates
        }


def choose(tmp_path, budget, *, stopwatch=None, entries=5, pictures=ICONS):
    tmp_path.mkdir(exist_ok=True)
    return choose_field(
        pictures,
        budget=Budget.parse(budget) if budget else Budget(),
        entries=entries,
        probe_s=10.0,
        outlook=Outlook(train=pictures.train, seconds=60.0, side=pictures.side),
        pace=lambda candidate: 1e11,
        stopwatch=stopwatch or Fake(),
        plan=Plan(tmp_path / "plan.jsonl"),
    )


@pytest.mark.parametrize("budget", ["", "latency=0.2ms", "size=200kB", "macs=5M,params=100k", "latency=1ms,size=1MB"])
def test_all_entries_fit(tmp_path, budget):
    found = choose(tmp_path, budget)
    assert 2 <= len(found.entries) <= 5
    assert found.considered >= found.within_arithmetic >= found.timed >= found.feasible >= len(found.entries)
    limits = Budget.parse(budget) if budget else Budget()
    for entry in found.entries:
        assert fits(entry.candidate, entry.timing, limits)
        if limits.latency_ms:
            assert entry.timing.high_ms <= HEADROOM * limits.latency_ms


def test_a_replay_times_nothing_and_chooses_the_same(tmp_path):
    first = choose(tmp_path, "latency=0.5ms")
    other_machine = Fake(macs_per_s=1.0)
    again = choose(tmp_path, "latency=0.5ms", stopwatch=other_machine)
    assert not other_machine.asked
    assert [e.candidate.id for e in again.entries] == [e.candidate.id for e in first.entries]


def test_the_stopwatch_gets_no_more_than_its_time(tmp_path):
    stopwatch = Fake()
    choose(tmp_path, "latency=0.2ms", stopwatch=stopwatch)
    assert sum(seconds for _, seconds in stopwatch.asked) <= 10.0 + 1e-9


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        ("latency=0.1us", ["latency="]),
        ("size=1kB", ["size="]),
        ("params=10", ["params="]),
        ("macs=10", ["macs="]),
        ("latency=0.1us,size=1kB", ["latency=", "size="]),
    ],
)
def test_a_budget_that_nothing_meets_names_the_nearest_point(tmp_path, budget, named):
    with pytest.raises(CheckError) as caught:
        choose(tmp_path, budget)
    message = str(caught.value)
    assert message.startswith("nothing fits the budget")
    nearest = message.split("the nearest is ")[1]
    assert all(name in nearest for name in named)


def test_the_nearest_point_is_feasible(tmp_path):
    """What the refusal names as the least size is accepted as a budget."""
    with pytest.raises(CheckError) as caught:
        choose(tmp_path, "size=1kB")
    size = str(caught.value).split("size=")[2].split(" ")[0]
    assert choose(tmp_path / "again", f"size={size}").entries


def test_a_damaged_memory_of_timings_is_begun_anew(tmp_path):
    stopwatch = Stopwatch(tmp_path, threads=1, limit_ms=None, label_bytes=0, clock=FakeClock(), progress=silent)
    stopwatch.path.parent.mkdir()
    stopwatch.path.write_text('{"key": "a"\n')
    assert stopwatch.times([], seconds=1.0) == {}
    assert not stopwatch.path.exists()
