"""What the machine decides about a run, each choice a row of the plan that is obeyed where it is found.

Kinds: "depthwise", "dtype", "channels_last", "rendering" (where pictures are, on accelerators), "compile" (where it is
wanted) and "sync_bn" (with several processes) at step 0; "total_steps" at step 0 and, in a timed run, at every mark of
progress and where updates become far slower than it was planned with; "threads" at step 0 and, in a timed run, where
the length is planned again and another number has been found faster; "train_size" at every step from which on pictures
have another side, where they grow.
Accidents make rows too, which may come in any order and of which the strictest holds: "grad_accum" (parts of a batch,
from the step that memory was too small for), "lr_factor" (of every rate, from the checkpoint that a run whose loss was
not finite went back to).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from netsmith.errors import InputError
from netsmith.run.plan import Plan
from netsmith.train.checkpoints import FULL_DISK
from netsmith.train.depthwise import Float32Parts
from netsmith.train.pacing import Pacing
from netsmith.train.precision import Precision, Timing, Way, fastest
from netsmith.train.sides import Sides
from netsmith.train.timing import MARKS, Length, marks_passed, progress

EVALUATIONS = 10  # of a timed run, at equal steps of progress, the last included
MEASURING_SECONDS = 10.0  # of precision in a timed run, and at most this share of it; half of either for threads:
MEASURING_SHARE = 0.03

Measure = Callable[[Sequence[Way], float], list[Timing[Way]]]
"""Times ways to compute, the default first, in about so many seconds."""


class Planner:
    """Decides or obeys.

    Args:
        plan: rows found in it are obeyed, new ones recorded.
        pacing: the books of the run's time.
        sides: of the pictures trained on, None where they do not grow.
    """

    def __init__(self, plan: Plan, pacing: Pacing, sides: Sides | None = None) -> None:
        self.plan = plan
        self.pacing = pacing
        self._sides = sides
        self.lengths: list[Length] = []

    @property
    def timed(self) -> bool:
        """Whether a time is to be kept."""
        return self.pacing.seconds is not None

    def precision(self, ways: Sequence[Precision], measure: Measure[Precision]) -> Precision:
        """The fastest of `ways` in a timed run, else the first.

        Args:
            ways: the default first.
            measure: called only where there is something to decide.
        """
        chosen = cache(lambda: self._fastest(ways, measure, part=1.0))
        dtype = self._decide("dtype", 0, lambda: chosen().dtype, why=self._why())

        def layout() -> bool:  # after a kill between the two rows another measurement may say another dtype
            return next((way for way in (chosen(), *ways) if way.dtype == dtype), chosen()).channels_last

        return Precision(dtype, self._decide("channels_last", 0, layout, why=self._why()))

    def depthwise(self, measure: Callable[[], Float32Parts]) -> Float32Parts:
        """Gradients of depthwise convolutions that are float32 under bfloat16."""
        return Float32Parts.from_plan(self._decide("depthwise", 0, lambda: measure().to_plan(), why=self._why()))

    def rendering(self, wanted: str) -> str:
        """Where pictures are rendered. Rendered by the CPU is what runs without a row do, and needs none."""
        if not self.has("rendering") and (wanted == "host" or self._begun):
            return "host"
        return self._decide("rendering", 0, lambda: wanted, why="where the training pictures are")

    def compiled(self, wanted: bool, attempt: Callable[[], bool]) -> bool:
        """Whether updates are compiled; without a row they are not.

        Args:
            wanted: where there is no row.
            attempt: compiles, and says whether that worked.
        """
        if not self.has("compile") and (not wanted or self._begun):
            return False
        return self._decide("compile", 0, attempt, why="torch.compile, tried on the first batch")

    def has(self, kind: str) -> bool:
        """Whether the plan says anything of this kind."""
        return any(row.kind == kind for row in self.plan.rows)

    @property
    def _begun(self) -> bool:
        """Whether the plan is one of a run that made updates: what it does not say, that run did not do."""
        return self.has("total_steps")

    def threads(self, ways: Sequence[int], measure: Measure[int]) -> int:
        """CPU threads of the computation; arguments as `precision`."""
        return self._decide("threads", 0, lambda: self._fastest(ways, measure, part=0.5), why=self._why())

    def threads_at(self, step: int) -> int:
        """CPU threads of the update of a step."""
        return self.plan.value("threads", step)

    def change_threads(self, step: int, threads: int, *, why: str) -> None:
        """Compute with so many CPU threads from a step on."""
        self._add("threads", threads, at=step, why=why)

    def synchronised(self, choose: Callable[[], bool]) -> bool:
        """Whether batch norm's statistics are those of all processes' pictures; asked where there are several."""
        return self._decide("sync_bn", 0, choose, why="the recipe, or how many pictures each process has at once")

    def _fastest(self, ways: Sequence[Way], measure: Measure[Way], *, part: float) -> Way:
        if not self.timed or (len(ways) == 1 and self.pacing.per_step):
            return ways[0]
        best = fastest(measure(ways, part * self.measuring_seconds))
        self.pacing.per_step = best.seconds
        return best.way

    def _why(self) -> str:
        return "the fastest of what could be measured here" if self.timed else "the recipe, or the default here"

    def first_length(self, steps_of_epochs: Callable[[], int], *, threads: int, measure: Measure[int]) -> None:
        """The number of steps before the first: that of the epochs, or what the time allows at the measured pace."""

        def compute() -> int:
            if not self.timed:
                return max(1, steps_of_epochs())
            if not self.pacing.per_step:  # all else was found in the plan and not measured
                self.pacing.per_step = measure([threads], self.measuring_seconds)[0].seconds
            return self.pacing.total_steps(0, progress=0.0, evaluations=EVALUATIONS - 1)

        self._lengthen(
            0,
            compute,
            why="the time at the pace measured, where one could be" if self.timed else "the epochs of the recipe",
        )

    def late(self, step: int) -> bool:
        """Whether a timed run, of which nothing is planned beyond `step`, has become much slower than it was planned
        with, so that its time would be over before the next mark."""
        planned = self.plan.replayed or self.lengths[-1].at >= step or self.progress(step) >= MARKS[-1]
        return self.timed and not planned and self.pacing.late

    def at_marks(self, step: int, *, late: bool = False, before: Callable[[int], None] | None = None) -> None:
        """At a mark of progress in a timed run, or where it is late: plan again how many steps the time that is left
        allows. Where pictures grow, the side that begins at this step.

        Args:
            step: that begins.
            late: see above; of several processes the leading one knows.
            before: called with the step where nothing was planned at it yet.
        """
        if late or (self.timed and marks_passed(step, self.lengths, (*MARKS, *self.pacing.costs.marks))):
            if late:
                self.pacing.forget_all_but_the_newest()
            if before is not None and all(length.at != step for length in self.lengths):
                before(step)
            self._by_time(step)
        side = self.side(step)
        if side is not None and side != self._planned_side(step):
            # After a rewind changes come earlier than rows that stand: sides may come in any order, the largest holds.
            self._add("train_size", side, at=step, why=f"{self.progress(step):.3g} of training is done")

    def side(self, step: int) -> int | None:
        """Side of the pictures of a step, pixels: planned, or what it will be by the plan as it stands.

        None where pictures do not grow.
        """
        if self._sides is None:
            return None
        # Sides only grow: a run that was planned anew, and so stands back a little, keeps what it has.
        return max(self._sides.at(self.progress(step)), self._planned_side(step))

    def _planned_side(self, step: int) -> int:
        return self._strictest("train_size", step, max, 0)

    def by_time(self, step: int) -> None:
        """Plan the number of steps that the time that is left allows, from `step` on, unless the plan goes on later."""
        # A resumed run asks again for what it had decided before, at a step it had not: the rows beyond are obeyed.
        if self.lengths[-1].at <= step:
            self._by_time(step)

    def _by_time(self, step: int) -> None:
        self.pacing.settle()
        done = self.progress(step)
        evaluations = math.floor((1.0 - done) * EVALUATIONS)
        pace = f"{self.pacing.costs.ahead(done):.4g} s per step"
        self._lengthen(step, lambda: self.pacing.total_steps(step, progress=done, evaluations=evaluations), why=pace)

    def parts(self, step: int, *, wanted: int) -> int:
        """In how many parts the batch of a step is computed: those of the recipe, or more where memory demands it."""
        return max(wanted, self._strictest("grad_accum", step, max, wanted))

    def divide(self, step: int, parts: int, *, why: str) -> None:
        """Compute batches in so many parts from a step on."""
        self._add("grad_accum", parts, at=step, why=why)

    def rate_factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step: 1 unless the run was rewound."""
        return self._strictest("lr_factor", step, min, 1.0)

    @property
    def rewinds(self) -> int:
        """How often the run went back to a checkpoint."""
        return sum(row.kind == "lr_factor" for row in self.plan.rows)

    def rewind(self, step: int, factor: float, *, why: str) -> None:
        """Multiply the learning rate by `factor` from a checkpoint's step on, to which the run goes back.

        In a timed run the number of steps is planned again too, because the way from there is gone twice.
        """
        self._add("lr_factor", factor, at=step, why=why)
        if self.timed:
            at = max(step, self.lengths[-1].at + 1)
            self.pacing.settle()
            done = self.progress(step)
            self._lengthen(at, lambda: max(at, self.pacing.total_steps(step, progress=done, evaluations=0)), why=why)

    def _strictest(self, kind: str, step: int, choose: Callable[[Any, Any], Any], default: Any) -> Any:
        found = default
        for row in self.plan.rows:
            if row.kind == kind and row.at <= step:
                found = choose(found, row.value)
        return found

    def total(self, step: int) -> int:
        """Updates in all, as planned when `step` begins."""
        return next(length.total for length in reversed(self.lengths) if length.at <= step)

    def progress(self, step: float) -> float:
        """Share of training before `step`."""
        return progress(step, self.lengths)

    @property
    def measuring_seconds(self) -> float:
        """For precision, and twice what threads may take."""
        assert self.pacing.seconds is not None, "only a timed run measures"
        return min(MEASURING_SECONDS, MEASURING_SHARE * self.pacing.seconds)

    def _lengthen(self, step: int, compute: Callable[[], int], *, why: str) -> None:
        self._decide("total_steps", step, compute, why=why)
        rows = {row.at: int(row.value) for row in self.plan.rows if row.kind == "total_steps"}
        self.lengths = [Length(at, total) for at, total in sorted(rows.items())]

    def _decide(self, kind: str, at: int, compute: Callable[[], Any], *, why: str) -> Any:
        return self._written(lambda: self.plan.decide(kind, at=at, compute=compute, why=why))

    def _add(self, kind: str, value: Any, *, at: int, why: str) -> None:
        self._written(lambda: self.plan.add(kind, value, at=at, why=why))

    def _written(self, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise InputError(f"no space left for {self.plan.path}; free some and go on with --resume") from error
