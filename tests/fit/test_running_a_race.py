"""The race as it runs, with racers that only count: equal time, divergence, and what a second session takes over."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from netsmith.errors import CheckError, Diverged
from netsmith.fit import race as race_module
from netsmith.fit.race import Race
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan
from netsmith.search.race import RightAnswers, Standing
from netsmith.train.shortage import NoMemory

SHARE_RIGHT = {"good": 0.9, "fair": 0.88, "poor": 0.3}
PACE = 0.01  # seconds per step


class Counter:
    """A trainer that counts steps, spends time, and diverges at a step."""

    def __init__(self, clock, *, diverges=None):
        self.clock, self.diverges = clock, diverges
        self.step, self.total_steps, self.epoch = 0, 1000, 0.0

    def advance(self, until=None):
        until = self.total_steps if until is None else until
        self.clock.tick(PACE * max(0, until - self.step))
        self.step = max(self.step, until)
        self.epoch = self.step / 10
        if self.diverges is not None and self.step >= self.diverges:
            raise Diverged(f"the loss is not finite at step {self.diverges}", "try a smaller --lr")

    def plan_time(self, seconds):
        self.total_steps = self.step + round(seconds / PACE)

    def save(self):
        pass


class Stub:
    """A racer around a counter."""

    diverging: ClassVar[dict[str, int]] = {}
    too_large: ClassVar[set[str]] = set()

    def __init__(self, entry, track, *, seconds):
        self.entry, self.id = entry, entry.candidate.id
        if self.id in self.too_large:
            raise NoMemory("there is no memory for the network; take a smaller one")
        self.trainer = Counter(track.clock, diverges=self.diverging.get(self.id))
        self.trainer.plan_time(seconds)
        self.folder = track.finisher.run.candidates / self.id
        self.folder.mkdir(parents=True, exist_ok=True)

    def steps_for(self, seconds, *, until):
        return max(1, round(seconds / PACE))

    def standing(self, *, place):
        right = np.arange(200) < round(200 * SHARE_RIGHT[self.id])
        return Standing(
            id=self.id,
            answers=RightAnswers(right),
            loss=1 - SHARE_RIGHT[self.id],
            epochs=self.trainer.epoch,
            place=place,
        )

    def headline(self):
        return SimpleNamespace(value=SHARE_RIGHT[self.id])

    def export(self, folder, *, threads):
        folder.mkdir(exist_ok=True)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts the race in one and the same folder, as often as it is called."""
    monkeypatch.setattr(race_module, "Racer", Stub)
    clock = FakeClock()

    def begin(diverging=None, too_large=()):
        monkeypatch.setattr(Stub, "too_large", set(too_large))
        monkeypatch.setattr(Stub, "diverging", diverging or {})
        run = RunFolder(tmp_path)
        finisher = SimpleNamespace(
            dataset=SimpleNamespace(task="classify"),
            run=run,
            plan=Plan(run.plan),
            ledger=Ledger(run.ledger, clock=clock),
        )
        layout = SimpleNamespace(name="net", input=SimpleNamespace(size=(32, 32)))
        cost = SimpleNamespace(params=1, macs=1)
        timing = SimpleNamespace(size_bytes=1, high_ms=1.0)
        entries = [
            SimpleNamespace(candidate=SimpleNamespace(id=id_, layout=layout, cost=cost), timing=timing)
            for id_ in ("poor", "good", "fair")
        ]
        warnings = []
        track = SimpleNamespace(finisher=finisher, clock=clock, warn=warnings.append)
        race = Race(entries, track, rungs=2, race_s=30.0, train_s=100.0, threads=1)
        return race, finisher, warnings

    return begin


def steps_of(finisher, rung):
    row = next(row for row in finisher.ledger.rows if row.stage == "race" and row.after["rung"] == rung)
    return {entry["id"]: entry["steps"] for entry in row.after["entries"]}


def test_racers_get_equal_time_and_the_beaten_go(start):
    race, finisher, _ = start()
    champion = race.champion(say=lambda text: None)
    assert champion.id == "good"
    first = steps_of(finisher, 1)
    assert max(first.values()) - min(first.values()) <= 0.02 * max(first.values())
    assert sum(first.values()) * PACE == pytest.approx(20.0, rel=0.05)  # two thirds of the race
    assert set(steps_of(finisher, 2)) == {"good", "fair"}
    assert (finisher.run.candidates / "poor" / "model").exists()
    assert not (finisher.run.candidates / "good" / "model").exists()


def test_one_that_diverges_leaves_the_others_alone(start):
    race, finisher, warnings = start(diverging={"good": 5})
    assert race.champion(say=lambda text: None).id == "fair"
    assert warnings == ["good leaves the race: the loss is not finite at step 5"], "a fit has no --lr to mend it by"
    assert "good" not in steps_of(finisher, 1)
    assert not (finisher.run.candidates / "good" / "model").exists()


def test_one_that_memory_is_too_small_for_leaves_the_others_alone(start):
    race, finisher, warnings = start(too_large={"good"})
    assert race.champion(say=lambda text: None).id == "fair"
    assert warnings == ["good leaves the race: there is no memory for the network"]
    assert set(steps_of(finisher, 1)) == {"poor", "fair"}
    again, _, warnings = start(too_large={"good"})
    assert again.champion(say=lambda text: None).id == "fair"
    assert not warnings, "a later session does not try it again"


def test_a_winner_that_diverges_is_followed_by_the_next(start):
    race, finisher, _ = start(diverging={"good": 3000})
    assert race.champion(say=lambda text: None).id == "fair"
    assert [row.after["id"] for row in finisher.ledger.rows if row.stage == "diverged"] == ["good"]
    again, _, _ = start()
    assert again.champion(say=lambda text: None).id == "fair"  # a later session does not try it again


def test_when_all_that_were_kept_diverge_the_best_of_the_beaten_goes_on(start):
    race, finisher, _ = start(diverging={"good": 3000, "fair": 1200})
    assert race.champion(say=lambda text: None).id == "poor"
    assert len([row for row in finisher.ledger.rows if row.stage == "diverged"]) == 2


def test_when_all_diverge_it_says_so(start):
    race, _, _ = start(diverging={"good": 1, "fair": 1, "poor": 1})
    with pytest.raises(CheckError, match="every candidate"):
        race.champion(say=lambda text: None)


def test_decided_rungs_are_not_run_again(start):
    race, finisher, _ = start()
    race.champion(say=lambda text: None)
    rows, plan = len(finisher.ledger.rows), len(finisher.plan.rows)
    again, finisher, _ = start()
    assert again.champion(say=lambda text: None).id == "good"
    assert (len(finisher.ledger.rows), len(finisher.plan.rows)) == (rows, plan)
