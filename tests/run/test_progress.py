"""Work that cannot say how far it is."""

from threading import Event
from threading import enumerate as alive

import pytest

from netsmith.run.progress import lasting


def test_it_is_told_from_beside_until_it_ends() -> None:
    told: list[tuple[str, float, float | None]] = []
    twice = Event()

    def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        told.append((title, done, total))
        if len(told) > 2:
            twice.set()

    with pytest.raises(ZeroDivisionError), lasting(show, "compiling", every=0.01):
        assert told[0] == ("compiling", 0, None), "before it begins"
        assert twice.wait(10.0)
        _ = 1 / 0
    count = len(told)
    assert [done for _, done, _ in told[:3]] == pytest.approx([0.0, 0.01, 0.02])
    assert not [thread for thread in alive() if thread.name == "netsmith-progress"]
    assert len(told) == count
