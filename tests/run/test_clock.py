from datetime import UTC, datetime, timedelta

from netsmith.run.clock import Clock, FakeClock, SystemClock


def test_fake_clock_moves_only_as_told():
    clock: Clock = FakeClock(start=100.0, advance=0.5)
    assert [clock.now(), clock.now()] == [100.0, 100.5]
    clock.sleep(9.0)
    assert clock.perf() == 110_000_000_000
    assert clock.wall() == "2026-01-01T00:01:50.500Z"


def test_system_clock():
    clock = SystemClock()
    before = clock.perf()
    clock.sleep(0.001)
    assert clock.perf() - before >= 1_000_000
    assert clock.now() <= clock.now()
    said = datetime.fromisoformat(clock.wall())
    assert abs(said - datetime.now(UTC)) < timedelta(seconds=10)
