"""How many CPU threads a training computes with: measured before its first update, and again where its updates have
become much slower, because another program wants the cores, or may become faster, because it has gone.

Threads that share a loop wait for the slowest of them in every one, so a core that is half taken costs far more than
half: an update of ResNet-20 that takes 110 ms on two free cores and 169 on one takes 330 to 470 beside one busy program
with two threads and 183 with one; beside another training with two threads seconds and 192 (benchmarks/LOG.md).
"""

from collections.abc import Callable, Sequence

import torch

from netsmith.errors import CheckError, InputError
from netsmith.train.pacing import Pacing
from netsmith.train.planning import Measure, Planner
from netsmith.train.precision import Timing, fastest

SLOWER = 1.5  # times what updates took when threads were last measured: then they are again
AGAIN = 0.1  # of progress: how often it is looked whether the cores are free again
EACH, SHARE = 0.01, 0.05  # of the time, for a measurement after the first update; of the time so far, for all of them
WORTH = 10.0  # times what a measurement takes: with less time left it cannot pay
FASTER = 1.25  # times: updates that became so much faster say that the machine is another one
WARM = 10  # updates after which their pace says something


class Threads:
    """The threads of one training.

    Args:
        counts: worth trying, the default first; with a single one nothing is measured.
        measure: times updates with them.
        planner, pacing: of the run.
        warn: told when the number changes.
    """

    def __init__(
        self,
        counts: Sequence[int],
        *,
        measure: Measure[int],
        planner: Planner,
        pacing: Pacing,
        warn: Callable[[str], None],
    ) -> None:
        self._counts, self._measure = counts, measure
        self._planner, self._pacing, self._warn = planner, pacing, warn
        self._measured_at = 0.0  # progress
        self._suits: float | None = None  # seconds of an update for which fewer were best though more are little slower
        pacing.costs.slowdown = 1.0

    def set(self, step: int) -> None:
        """Let torch compute the update of a step as the plan says."""
        planned = self._planner.threads_at(step)
        if torch.get_num_threads() != planned:
            torch.set_num_threads(planned)

    def reconsider(self, step: int) -> None:
        """Where the length of the run is planned again: measure threads too if there is a reason to, and plan what is
        faster from this step on."""
        now = self._planner.threads_at(step)
        if step < WARM or len(self._counts) == 1 or now not in self._counts:
            return
        self._pacing.settle()
        slower = self._pacing.costs.slowdown >= SLOWER
        if self._suits is not None and self._pace * FASTER < self._suits:
            self._suits = None
        taken = now < self._counts[0] and self._suits is None
        if not slower and not (taken and self._planner.progress(step) - self._measured_at >= AGAIN):
            return
        timings = self._timed(step)
        if not timings:
            return
        self._pacing.costs.slowdown = 1.0
        if len(timings) < len(self._counts):
            return
        best, seconds = fastest(timings), {each.way: each.seconds for each in timings}
        if best.way == now:
            self._suits = self._pace if seconds[self._counts[0]] < SLOWER * best.seconds else None
            return
        self._suits = None
        why = f"{1e3 * best.seconds:.3g} ms an update with {best.way}, {1e3 * seconds[now]:.3g} with {now}"
        self._planner.change_threads(step, best.way, why=why)
        self._pacing.per_step *= best.seconds / seconds[now]
        self._pacing.costs.slowdown = 1.0
        what = "cores are free again" if best.way > now else "other programs want the cores"
        self._warn(f"{what}: CPU threads of training from step {step} on: {best.way}, not {now} ({why})")

    @property
    def _pace(self) -> float:
        """Seconds of an update as the last ones are."""
        return self._pacing.costs.ahead(1.0)

    def _timed(self, step: int) -> list[Timing[int]]:
        """Updates with every number of threads; nothing where there is no time for it, or a picture is gone, of which
        training itself will speak; fewer where memory or time are short."""
        assert self._pacing.seconds is not None, "only a timed run has marks"
        whole, spent, began = self._pacing.seconds, self._pacing.measuring, self._pacing.elapsed
        seconds = min(self._planner.measuring_seconds / 2, EACH * whole, SHARE * began - spent)
        if seconds <= 0.0 or whole - began < WORTH * seconds:
            return []
        self._measured_at = self._planner.progress(step)
        try:
            return self._measure(self._counts, seconds)
        except (InputError, CheckError):
            return []
        finally:
            self._pacing.measuring += self._pacing.elapsed - began
