"""What updates cost as a function of progress, for runs whose updates do not all cost the same: pictures that grow, a
network of which only the head is trained at first.

A run is cut into phases. Within one all updates cost the same; phases of the same kind do too. Beforehand a phase only
says what its updates are thought to cost compared with the others'; once updates of a kind were timed, their seconds
count. What is measured later of a kind that is known says how fast the machine is now, and holds for all kinds.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SETTLED = 0.01  # progress after the beginning of a phase at which its updates are known well enough to plan by them
_SAVED = "per_step "  # before the kind, in the numbers of a checkpoint


@dataclass(frozen=True)
class Phase:
    """A stretch of training whose updates cost the same.

    Attributes:
        start: progress from which on they are made, in [0, 1); it lasts until the next phase starts.
        kind: what they have in common, such as "side 24"; phases of one kind cost the same.
        prior: what one is thought to cost, in any unit that all phases of a run share.
    """

    start: float
    kind: str
    prior: float


EVEN = (Phase(0.0, "", 1.0),)
"""Updates that all cost the same."""


def together(one: Sequence[Phase], other: Sequence[Phase]) -> tuple[Phase, ...]:
    """Phases of a run that goes through both at once: it changes where either does, and costs are multiplied."""
    found: list[Phase] = []
    for start in sorted({phase.start for phase in (*one, *other)}):
        first, second = _at(one, start), _at(other, start)
        kind = ", ".join(kind for kind in (first.kind, second.kind) if kind)
        found.append(Phase(start, kind, first.prior * second.prior))
    return tuple(found)


def _at(phases: Sequence[Phase], progress: float) -> Phase:
    return phases[bisect_right([phase.start for phase in phases], progress) - 1]


class Costs:
    """Seconds of a run's updates, thought and measured.

    Args:
        phases: ascending, the first from 0 on.

    Attributes:
        slowdown: how many times slower the machine is than it was at its fastest since this was last set to 1.
    """

    def __init__(self, phases: Sequence[Phase] = EVEN) -> None:
        starts = [phase.start for phase in phases]
        assert starts[0] == 0.0, starts
        assert all(a < b for a, b in pairwise([*starts, 1.0])), starts
        self.phases = tuple(phases)
        self._priors = {phase.kind: phase.prior for phase in phases}
        self._measured: dict[str, float] = {}
        self._newest = ""  # the kind that was measured last
        self.slowdown = 1.0

    @property
    def marks(self) -> tuple[float, ...]:
        """Marks of progress at which a run should be planned again, because updates of another cost have begun."""
        return tuple(min(phase.start + SETTLED, 1.0) for phase in self.phases[1:])

    def kind(self, progress: float) -> str:
        """Of the updates at `progress`."""
        return _at(self.phases, progress).kind

    def is_measured(self, kind: str) -> bool:
        """Whether updates of this kind were timed."""
        return kind in self._measured

    def seconds(self, kind: str) -> float:
        """Of an update of this kind: measured, or else by its prior from the kind measured last; 0 while none was."""
        if kind in self._measured or not self._measured:
            return self._measured.get(kind, 0.0)
        return self._measured[self._newest] * self._priors[kind] / self._priors[self._newest]

    def ahead(self, progress: float) -> float:
        """Mean seconds of the updates from `progress` to the end."""
        starts = [max(phase.start, progress) for phase in self.phases[1:]]
        shares = [end - start for start, end in zip([progress, *starts], [*starts, 1.0], strict=True)]
        whole = sum(shares)
        if whole <= 0.0:
            return self.seconds(self.kind(progress))
        # Shares first: where one phase is left its share is exactly 1.
        return sum(
            share / whole * self.seconds(phase.kind) for share, phase in zip(shares, self.phases, strict=True) if share
        )

    def measure(self, kind: str, seconds: float) -> None:
        """Enter what an update of this kind takes. If the kind was known, all others change as it does."""
        before = self._measured.get(kind)
        if before:
            self._measured = {each: value * (seconds / before) for each, value in self._measured.items()}
            self.slowdown = max(1.0, self.slowdown * seconds / before)
        self._measured[kind] = seconds
        self._newest = kind

    def numbers(self) -> dict[str, float]:
        """What was measured, for a checkpoint; nothing where all updates cost the same."""
        if len(self._priors) == 1:
            return {}
        return {f"{_SAVED}{kind}": seconds for kind, seconds in self._measured.items()}

    def load(self, numbers: Mapping[str, float], *, progress: float, per_step: float) -> None:
        """Take over what an earlier process measured.

        Args:
            numbers: as `numbers` gave them, others may be among them.
            progress: where that process stood.
            per_step: seconds of its updates there.
        """
        self._newest = self.kind(progress)
        self._measured = {kind: numbers[f"{_SAVED}{kind}"] for kind in self._priors if f"{_SAVED}{kind}" in numbers}
        if not self._measured and per_step:
            self._measured[self._newest] = per_step
        elif self._measured and self._newest not in self._measured:  # it is about to be met for the first time
            self._newest = list(self._measured)[-1]
