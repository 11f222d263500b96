"""The division of time: parts never exceed the whole, what is spent is never given again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.fit.timetable import PROBE_SHARE, Timetable
from netsmith.run.clock import FakeClock


def timetable(time_s, *, clock=None, before=0.0, pictures=900, reading_s=4.0):
    clock = clock or FakeClock()
    return Timetable(time_s, clock=clock, began=0.0, before=before, pictures=pictures, reading_s=reading_s)


@given(st.floats(20.0, 1e5), st.integers(2, 100_000), st.floats(0.0, 10.0))
def test_parts_fit_into_the_whole(time_s, pictures, reading_s):
    table = timetable(time_s, pictures=pictures, reading_s=reading_s)
    assert 0 < table.probe_s <= PROBE_SHARE * time_s
    assert table.probe_s < 0.1 * time_s
    assert table.training_left() <= time_s
    assert table.race_s() < table.training_left()
    assert table.winner_s <= time_s
    assert 2 <= table.entries <= 8
    assert 1 <= table.rungs <= 3


def test_time_that_passes_is_taken_from_training():
    clock = FakeClock()
    table = timetable(600.0, clock=clock)
    first = table.training_left()
    clock.tick(100.0)
    assert table.training_left() == pytest.approx(first - 100.0)
    clock.tick(1e6)
    assert table.training_left() == 1.0


def test_earlier_sessions_count():
    assert timetable(600.0, before=200.0).training_left() == pytest.approx(timetable(600.0).training_left() - 200.0)


def test_a_short_fit_measures_shortly():
    assert timetable(30.0).measure_s == 0.5
    assert timetable(3600.0).measure_s == 2.0


def test_slow_answers_are_reserved_for_but_never_all_of_the_time():
    table = timetable(600.0)
    free = table.training_left()
    table.reserve_answers(0.02)
    assert table.training_left() == pytest.approx(free + 0.003 * 900 - 2 * 0.02 * 900)
    table.reserve_answers(100.0)
    assert table.training_left() >= 0.6 * 600 - 30
