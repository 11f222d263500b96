"""From time to steps: what the pure functions promise, and that a run planned by them is over in time."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.run.clock import FakeClock
from netsmith.run.plan import Plan
from netsmith.train.costs import EVEN, Costs, Phase, together
from netsmith.train.pacing import Pacing
from netsmith.train.planning import EVALUATIONS, Planner
from netsmith.train.precision import Timing
from netsmith.train.timing import FIRST, MARKS, Length, marks_passed, plan_length, progress


@st.composite
def plans(draw: st.DrawFn, *, first: int = FIRST + 1) -> list[Length]:
    """Rows as a run makes them: each before the end of the one before, the second not before `first`."""
    lengths = [Length(0, draw(st.integers(1, 200)))]
    for _ in range(draw(st.integers(0, 4))):
        newest = lengths[-1]
        if newest.total - max(newest.at, first - 1) < 2:
            break
        at = draw(st.integers(max(newest.at + 1, first), newest.total - 1))
        lengths.append(Length(at, at + draw(st.integers(1, 120))))
    return lengths


@given(plans())
def test_progress_rises_from_0_to_exactly_1_in_the_last_step(lengths: list[Length]) -> None:
    end = lengths[-1].total
    values = [progress(step, lengths) for step in range(end + 1)]
    assert values[0] == 0.0
    assert values[-1] == 1.0
    assert all(a < b for a, b in pairwise(values))
    halves = [progress(step + 0.5, lengths) for step in range(end)]
    assert all(a < half < b for a, half, b in zip(values, halves, values[1:], strict=False))


@given(plans(first=1))
def test_a_later_row_changes_nothing_before_it(lengths: list[Length]) -> None:
    for cut in range(1, len(lengths)):
        for step in range(lengths[cut].at):
            assert progress(step, lengths) == progress(step, lengths[:cut])


def test_progress_is_linear_between_rows() -> None:
    lengths = [Length(0, 200), Length(100, 300)]  # half done, then half as fast
    assert [progress(step, lengths) for step in (50, 100, 150, 200, 300)] == [0.25, 0.5, 0.625, 0.75, 1.0]


@given(plans(first=1))
def test_the_first_updates_never_get_ahead_of_their_share(lengths: list[Length]) -> None:
    for length in lengths:
        if length.at <= FIRST and length.total > length.at:
            assert progress(length.at, [each for each in lengths if each.at <= length.at]) <= length.at / length.total
    assert progress(lengths[-1].total, lengths) == 1.0


def test_a_pace_thought_too_slow_by_far_does_not_run_the_schedule_down(tmp_path: Path) -> None:
    _, steps = simulate(
        tmp_path, seconds=3.0, costs=np.full(5000, 0.02), evaluation=0.0, checkpoint=0.0, guess=0.7
    )  # 4 updates are planned and about 140 made
    lengths = [Length(row.at, row.value) for row in Plan(tmp_path / "plan.jsonl").rows]
    assert steps > 20 * lengths[0].total
    assert 0.4 < progress(steps / 2, lengths) < 0.6


@given(plans())
def test_every_mark_before_the_end_is_met_in_one_step(lengths: list[Length]) -> None:
    met = [step for step in range(1, lengths[-1].total) if marks_passed(step, lengths, MARKS)]
    expected = {min(step for step in range(lengths[-1].total + 1) if progress(step, lengths) >= mark) for mark in MARKS}
    # Where a row sits on the step itself, the mark belongs to the progress that led there.
    assert set(met) == {step for step in expected if step < lengths[-1].total}


def test_a_row_without_steps_ends_training_where_it_stands() -> None:
    assert progress(5, [Length(0, 10), Length(5, 5)]) == 0.5


def test_training_that_ended_and_is_lengthened_goes_on() -> None:
    lengths = [Length(0, 10), Length(10, 40)]
    assert [progress(step, lengths) for step in (5, 9.5, 10, 25, 40)] == [0.5, 0.95, 0.25, 0.625, 1.0]
    again = [*lengths, Length(40, 40), Length(60, 80)]
    assert [progress(step, again) for step in (25, 40, 60, 70, 80)] == [0.625, 1.0, 0.75, 0.875, 1.0]
    assert not marks_passed(11, lengths, MARKS[:10])  # those before were met the first time


def test_a_row_made_at_a_mark_does_not_move_the_mark() -> None:
    lengths = [Length(0, 100)]
    step = next(step for step in range(1, 100) if marks_passed(step, lengths, (0.5,)))
    assert marks_passed(step, [*lengths, Length(step, 70)], (0.5,))
    assert marks_passed(step, [*lengths, Length(step, 900)], (0.5,))
    assert not marks_passed(0, lengths, (0.0,))


@given(st.integers(0, 1000), st.floats(-10, 100), st.floats(1e-4, 10), st.floats(0, 5))
def test_as_many_steps_as_fit(step: int, left: float, pace: float, reserved: float) -> None:
    total = plan_length(step, seconds_left=left, seconds_per_step=pace, seconds_reserved=reserved)
    coming = total - step
    assert total >= max(step, 1)
    if coming > 1 or step > 0:
        assert coming * pace <= max(left - reserved, 0) * (1 + 1e-9)
    if left > reserved:
        assert (coming + 1) * pace > (left - reserved) * (1 - 1e-9)


def simulate(
    folder: Path,
    *,
    seconds: float,
    costs: np.ndarray,
    evaluation: float,
    checkpoint: float,
    guess: float,
    phases: Sequence[Phase] = EVEN,
    factors: Mapping[str, float] | None = None,
) -> tuple[float, int]:
    """The loop's order of events with made-up durations: (seconds it took in all, steps).

    `factors`: what updates of each kind of `phases` really cost, as multiples of `costs`.
    """
    clock = FakeClock()
    pacing = Pacing(clock, seconds=seconds, checkpoint_seconds=seconds / 20, evaluation_steps=3.0, costs=Costs(phases))
    pacing.per_step = guess
    clock.tick(0.02 * seconds)  # measuring
    planner = Planner(Plan(folder / "plan.jsonl"), pacing)
    planner.first_length(lambda: 0, threads=1, measure=lambda ways, limit: [Timing(1, guess)])
    step = 0

    def spend(cost: float) -> float:
        clock.tick(cost)
        return cost

    while step < planner.total(step):
        done = planner.progress(step)
        factor = (factors or {}).get(pacing.costs.kind(done), 1.0)
        pacing.stepped(spend(factor * float(costs[step % len(costs)])), progress=done)
        step += 1
        before, after = planner.progress(step - 1), planner.progress(step)
        if after < 1 and int(after * EVALUATIONS) > int(before * EVALUATIONS) and pacing.can_evaluate:
            pacing.evaluated(spend(evaluation))
        if pacing.checkpoint_due:
            pacing.saved(spend(checkpoint))
        planner.at_marks(step)
    spend(checkpoint)
    spend(evaluation)
    return pacing.elapsed, step


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("guess", [0.3, 1.0, 3.0])
def test_a_timed_run_is_over_in_time_however_its_speed_varies(tmp_path: Path, seed: int, guess: float) -> None:
    draw = np.random.default_rng(seed)
    mean = [0.01, 0.05, 0.2][seed % 3]
    costs = mean * draw.lognormal(0.0, 0.3, 5000)
    if seed >= 4:  # another program comes and goes
        costs *= np.repeat(draw.choice([1.0, 1.5], 50), 100)
    seconds = 60.0
    spent, steps = simulate(
        tmp_path,
        seconds=seconds,
        costs=costs,
        evaluation=float(draw.uniform(0, 1.0)),
        checkpoint=float(draw.uniform(0, 0.2)),
        guess=guess * mean,
    )
    assert spent <= 1.02 * seconds
    assert spent >= 0.93 * seconds
    assert steps * mean > 0.5 * seconds


GROWING = tuple(Phase(start, f"side {side}", side**2) for start, side in ((0.0, 16), (0.35, 24), (0.7, 32)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "really",
    [(1.0, 2.25, 4.0), (1.0, 1.1, 1.3), (1.0, 3.0, 8.0), (4.0, 2.0, 1.0)],
    ids=["as thought", "hardly dearer", "twice as dear", "cheaper"],
)
def test_a_timed_run_whose_updates_change_their_cost_is_over_in_time(
    tmp_path: Path, seed: int, really: tuple[float, ...]
) -> None:
    draw = np.random.default_rng(seed)
    mean = [0.002, 0.01, 0.05][seed % 3]
    factors = {phase.kind: factor for phase, factor in zip(GROWING, really, strict=True)}
    spent, steps = simulate(
        tmp_path,
        seconds=60.0,
        costs=mean * draw.lognormal(0.0, 0.2, 5000),
        evaluation=float(draw.uniform(0, 1.0)),
        checkpoint=float(draw.uniform(0, 0.2)),
        guess=mean * really[0],
        phases=GROWING,
        factors=factors,
    )
    assert spent <= 1.02 * 60
    assert spent >= 0.93 * 60
    dearest = mean * max(really)
    assert steps * dearest > 60.0


def test_time_that_is_left_is_divided_by_the_mean_cost_of_what_is_left() -> None:
    costs = Costs((Phase(0.0, "head", 1.0), Phase(0.5, "all", 3.0)))
    assert costs.ahead(0.0) == 0.0
    costs.measure("head", 2.0)
    assert [costs.seconds("all"), costs.ahead(0.0), costs.ahead(0.25), costs.ahead(0.5), costs.ahead(1.0)] == [
        6.0,
        4.0,
        pytest.approx((2.0 + 2 * 6.0) / 3),
        6.0,
        6.0,
    ]
    costs.measure("all", 5.0)  # what it was thought to cost is no longer asked
    assert [costs.seconds("head"), costs.seconds("all"), costs.ahead(0.0)] == [2.0, 5.0, 3.5]
    costs.measure("all", 10.0)  # the machine is half as fast now, for both
    assert [costs.seconds("head"), costs.seconds("all")] == [4.0, 10.0]
    again = Costs(costs.phases)
    again.load(costs.numbers(), progress=0.7, per_step=10.0)
    assert [again.seconds("head"), again.seconds("all")] == [4.0, 10.0]


@pytest.mark.parametrize("phases", [EVEN, GROWING], ids=["even", "growing"])
def test_a_run_of_which_no_update_was_timed_before_is_over_in_time(tmp_path: Path, phases: Sequence[Phase]) -> None:
    costs = np.array([0.5, *[0.01] * 10_000])  # the first prepares its kernels
    factors = {phase.kind: phase.prior / phases[-1].prior for phase in phases}
    spent, steps = simulate(
        tmp_path, seconds=60.0, costs=costs, evaluation=0.1, checkpoint=0.0, guess=0.0, phases=phases, factors=factors
    )
    assert 0.93 * 60.0 <= spent <= 1.02 * 60.0
    assert steps > 5000
    planned = [(row.at, row.value) for row in Plan(tmp_path / "plan.jsonl").rows if row.kind == "total_steps"]
    assert planned[0] == (0, 1)
    assert planned[1][0] == 1, "the first update tells how many there is time for"
    assert 100 < planned[1][1] < 125, "of its pace, half a second at the full side"


def test_two_changes_of_cost_at_once_are_multiplied() -> None:
    head = (Phase(0.0, "head", 0.3), Phase(0.2, "all", 1.0))
    both = together(GROWING, head)
    assert [(phase.start, phase.kind) for phase in both] == [
        (0.0, "side 16, head"),
        (0.2, "side 16, all"),
        (0.35, "side 24, all"),
        (0.7, "side 32, all"),
    ]
    assert [phase.prior for phase in both] == [pytest.approx(256 * 0.3), 256.0, 576.0, 1024.0]
    assert together(EVEN, head) == head
    assert Costs(both).marks == pytest.approx((0.21, 0.36, 0.71))


def test_an_expensive_evaluation_does_not_eat_the_time(tmp_path: Path) -> None:
    spent, steps = simulate(tmp_path, seconds=60.0, costs=np.full(10, 0.1), evaluation=10.0, checkpoint=0.0, guess=0.1)
    assert spent <= 1.02 * 60 + 0.1
    assert steps >= 330  # one before the last was made, because its cost was not known


def test_evaluations_keep_to_their_share() -> None:
    clock = FakeClock()
    pacing = Pacing(clock, seconds=100.0, checkpoint_seconds=10.0, evaluation_steps=0.0)
    clock.tick(20.0)
    assert pacing.can_evaluate
    pacing.evaluated(0.8)
    assert not pacing.can_evaluate
    clock.tick(20.0)
    assert pacing.can_evaluate
    pacing.evaluated(0.8)
    later = Pacing(clock, seconds=100.0, checkpoint_seconds=10.0, evaluation_steps=0.0)
    later.go_on(pacing.numbers(), progress=0.4)
    assert (later.per_evaluation, later.can_evaluate) == (0.8, False), "a process that goes on has the same share"


def test_slow_checkpoints_are_written_less_often() -> None:
    clock = FakeClock()
    pacing = Pacing(clock, seconds=None, checkpoint_seconds=10.0, evaluation_steps=0.0)
    clock.tick(10.0)
    assert pacing.checkpoint_due
    pacing.saved(2.0)
    clock.tick(39.0)
    assert not pacing.checkpoint_due
    clock.tick(1.0)
    assert pacing.checkpoint_due
