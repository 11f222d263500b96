"""Where the time of a run goes, and what that leaves room for. It only advises: what it says becomes a plan row or
changes no weight."""

from collections import deque
from collections.abc import Callable, Mapping
from statistics import median

from netsmith.run.clock import Clock
from netsmith.train.costs import Costs
from netsmith.train.timing import SPARE, plan_length

CHECKPOINT_SHARE = 0.05  # of the time, at most
EVALUATION_SHARE = 0.05  # of the time, at most, before the last evaluation
NEWEST = 50  # updates whose pace is shown
PRIOR_STEPS = 2  # the weight of the pace so far against that of a new stretch
LATE = 3.0  # times the seconds planned with that updates have to take: less a mark notices in time
LATE_UPDATES, LATE_SHARE = 10, 0.01  # as many of them at least, and of the time: fewer say nothing; half are late
PLENTY = 0.1  # of the time: with more left, training does not end for a pace that its newest updates do not have


class Pacing:
    """Books of one run's seconds.

    Args:
        clock: reads time; the run begins now.
        seconds: it may take, what earlier processes spent on it included; None for as long as it takes.
        checkpoint_seconds: least time between checkpoints, longer where they are slow; 0 for one after every update.
        evaluation_steps: how many of the last updates one evaluation is thought to cost until the first was measured.
        costs: of the updates, which may change with progress.
        wait: returns when all updates that were made are done, where Python runs ahead of the device.

    Attributes:
        per_checkpoint: seconds of a coming one, 0 while unknown.
        evaluating: seconds spent in evaluations.
        measuring: seconds spent on finding faster ways to compute after the first update.
        last_evaluations: what is evaluated at the end, in evaluations.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        seconds: float | None,
        checkpoint_seconds: float,
        evaluation_steps: float,
        costs: Costs | None = None,
        wait: Callable[[], None] | None = None,
    ) -> None:
        self._clock, self._wait = clock, wait
        self._began = clock.now()
        self._before = 0.0  # spent by earlier processes
        self.seconds = seconds
        self._checkpoint_seconds = checkpoint_seconds
        self._checkpoint_ended = self._began
        self._evaluation_steps = evaluation_steps
        self._evaluation: float | None = None
        self.costs = costs or Costs()
        self._kind = self.costs.kind(1.0)  # of the newest update, or of what is measured before the first
        self.per_checkpoint = 0.0
        self.evaluating = self.measuring = 0.0
        self._stretch: dict[str, tuple[float, int]] = {}  # seconds and number of updates by kind, since the newest mark
        self._settled: float | None = None  # seconds of an update of the newest stretch that ended
        self.last_evaluations = 1.0
        self._newest: deque[float] = deque(maxlen=NEWEST)
        self._block: list[float] = []  # seconds of the newest updates, until they are enough to say something
        self._block_seconds = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds spent on the run so far."""
        return self._before + self._clock.now() - self._began

    @property
    def per_step(self) -> float:
        """Seconds of an update such as the newest; before the first such as the last; 0 while unknown."""
        return self.costs.seconds(self._kind)

    @per_step.setter
    def per_step(self, seconds: float) -> None:
        if seconds:
            self.costs.measure(self._kind, seconds)

    @property
    def per_evaluation(self) -> float:
        """Seconds of a coming evaluation."""
        if self._evaluation is None:
            return self._evaluation_steps * self.costs.ahead(1.0)
        return self._evaluation

    def numbers(self) -> dict[str, float]:
        """The books, for a checkpoint."""
        known = {} if self._evaluation is None else {"per_evaluation": self._evaluation}
        spent = {"elapsed": self.elapsed, "evaluating": self.evaluating, "measuring": self.measuring, **known}
        return {**spent, "per_step": self.per_step, **self.costs.numbers()}

    def go_on(self, numbers: Mapping[str, float], *, progress: float) -> None:
        """Take over the books of an earlier process, which stood at `progress`; older ones say nothing of
        evaluations."""
        self._before = numbers["elapsed"]
        self.evaluating, self._evaluation = numbers.get("evaluating", 0.0), numbers.get("per_evaluation")
        self.measuring = numbers.get("measuring", 0.0)
        self._kind = self.costs.kind(progress)
        self.costs.load(numbers, progress=progress, per_step=numbers["per_step"])

    def allow(self, seconds: float) -> None:
        """Give the run `seconds` from now on."""
        self.seconds = self.elapsed + seconds

    def stepped(self, seconds: float, *, progress: float) -> None:
        """Enter the update made at `progress`, its wait for the batch included."""
        kind = self.costs.kind(progress)
        new = kind != self._kind and not self.costs.is_measured(kind) and self.per_step > 0.0
        if kind != self._kind:
            self._newest.clear()
        if kind != self._kind or self._block_is_whole:
            self._begin_block()
        self._kind = kind
        if not new:  # the first of another kind prepares its kernels, and counts where nothing else is known
            total, steps = self._stretch.get(kind, (0.0, 0))
            self._stretch[kind] = total + seconds, steps + 1
            self._newest.append(seconds)
            self._block.append(seconds)
            self._block_seconds += seconds

    @property
    def recent(self) -> float:
        """Seconds of one of the newest updates, or else the pace; 0 while unknown."""
        return sum(self._newest) / len(self._newest) if self._newest else self.per_step

    def _begin_block(self) -> None:
        self._block.clear()
        self._block_seconds = 0.0

    @property
    def _block_is_whole(self) -> bool:
        enough = len(self._block) >= LATE_UPDATES
        return self.seconds is not None and enough and self._block_seconds >= LATE_SHARE * self.seconds

    @property
    def late(self) -> bool:
        """Whether the newest updates took far longer than those were thought to that the length was planned with.

        Half of them did: one that waited for a disk says nothing of the others.
        """
        return self._block_is_whole and median(self._block) > LATE * self.per_step > 0.0

    def forget_all_but_the_newest(self) -> None:
        """Of the stretch since the newest mark, where the newest updates tell what is to come."""
        if self._block:
            self._stretch = {self._kind: (len(self._block) * median(self._block), len(self._block))}

    def left(self, steps: int, *, evaluations: float) -> float | None:
        """Seconds to the end: what the time leaves, or else what so many updates and evaluations will take; None while
        that is not known."""
        if self.seconds is not None:
            return max(0.0, self.seconds - self.elapsed)
        return steps * self.recent + evaluations * self.per_evaluation if self.recent else None

    def settle(self) -> None:
        """End a stretch between two marks: coming updates are thought to go as its own did."""
        if self._wait is not None and self._stretch:
            began, newest = self._clock.now(), next(reversed(self._stretch))
            self._wait()
            total, steps = self._stretch[newest]
            self._stretch[newest] = (total + self._clock.now() - began, steps)
        for kind, (total, steps) in self._stretch.items():
            self._settled = total / steps
            prior = PRIOR_STEPS if self.costs.is_measured(kind) else 0
            self.costs.measure(kind, (total + prior * self.costs.seconds(kind)) / (steps + prior))
        self._stretch.clear()
        self._begin_block()

    def evaluated(self, seconds: float) -> None:
        """Enter an evaluation."""
        self._evaluation = seconds
        self.evaluating += seconds

    def saved(self, seconds: float) -> None:
        """Enter a checkpoint that was just written, or failed to be."""
        self.per_checkpoint = seconds
        self._checkpoint_ended = self._clock.now()

    @property
    def _checkpoint_interval(self) -> float:
        wanted = self._checkpoint_seconds
        return max(wanted, self.per_checkpoint / CHECKPOINT_SHARE) if wanted else 0.0

    @property
    def checkpoint_due(self) -> bool:
        """Whether the next checkpoint should be written."""
        return self._clock.now() - self._checkpoint_ended >= self._checkpoint_interval

    @property
    def can_evaluate(self) -> bool:
        """Whether one more evaluation keeps them within their share of the time so far, if time is limited."""
        return self.seconds is None or self.evaluating + self.per_evaluation <= EVALUATION_SHARE * self.elapsed

    def total_steps(self, step: int, *, progress: float, evaluations: int) -> int:
        """Total steps that fit into the time beside evaluations, checkpoints and a spare.

        Args:
            step: updates already made.
            progress: that they came to.
            evaluations: wanted before the last one.
        """
        assert self.seconds is not None, "without a limit of time there is nothing to plan"
        total = self._fitting(step, self.costs.ahead(progress), self.per_evaluation, evaluations)
        if total > step or self._settled is None or self.seconds - self.elapsed <= PLENTY * self.seconds:
            return total
        # A first measurement, of few pictures on a busy machine, may think updates a hundred times slower than they
        # are, and evaluations too; training would end with the time hardly begun. One step more tells more.
        evaluation = self._evaluation_steps * self._settled if self._evaluation is None else self._evaluation
        return min(step + 1, self._fitting(step, self._settled, evaluation, evaluations))

    def _fitting(self, step: int, per_step: float, per_evaluation: float, evaluations: int) -> int:
        assert self.seconds is not None
        left = self.seconds - self.elapsed
        checkpoints = 0.0
        if self.per_checkpoint:
            checkpoints = left / (self._checkpoint_interval + self.per_checkpoint) * self.per_checkpoint
        allowed = max(0.0, EVALUATION_SHARE * self.seconds - self.evaluating)
        before_last = min(evaluations * per_evaluation, allowed)
        last = self.last_evaluations * per_evaluation + self.per_checkpoint
        return plan_length(
            step,
            seconds_left=left,
            seconds_per_step=per_step,
            seconds_reserved=last + checkpoints + before_last + SPARE * self.seconds,
        )
