"""What a training keeps of itself and goes back to: checkpoints written, gone on from, and returned to after a loss
that is not finite."""

from collections.abc import Callable

from netsmith.errors import Diverged
from netsmith.run.clock import Clock, seconds_of
from netsmith.train.checkpoints import Checkpoint
from netsmith.train.metrics import Metrics
from netsmith.train.pacing import Pacing
from netsmith.train.planning import Planner
from netsmith.train.records import Records
from netsmith.train.rewinding import Rewinding
from netsmith.train.state import State


class Keeping:
    """The checkpoints of one training.

    Args:
        state: what they hold.
        metrics: of the updates, brought into the state before it is kept.
        records: where they are.
        rewinding: which of them a training goes back to.
        planner, pacing: of the run.
        clock: reads time.
        check: raises CheckError where the state is not finite.
        forget: called when the state has become another.
    """

    def __init__(
        self,
        state: State,
        metrics: Metrics,
        records: Records,
        rewinding: Rewinding,
        *,
        planner: Planner,
        pacing: Pacing,
        clock: Clock,
        check: Callable[[], None],
        forget: Callable[[], None],
    ) -> None:
        self._state, self._metrics, self._records, self._rewinding = state, metrics, records, rewinding
        self._planner, self._pacing, self._clock = planner, pacing, clock
        self._check, self._forget = check, forget

    @property
    def due(self) -> bool:
        """Whether the next checkpoint should be written."""
        return self._records.keeps_checkpoints and self._pacing.checkpoint_due

    def begin(self) -> None:
        """Write the first checkpoint, where a loss that is not finite would ask for one."""
        if self._rewinding.lacks_checkpoint:
            self.save()

    def save(self) -> None:
        """See `Trainer.save`."""
        state = self._state
        if not self._records.keeps_checkpoints or self._records.saved == state.step:
            return
        began = self._clock.now()
        self._metrics.settle()
        self._check()
        numbers = {"time": seconds_of(self._clock.wall()), **self._pacing.numbers(), **state.numbers()}
        self._records.save(state.step, state.whole(), numbers)
        self._pacing.saved(self._clock.now() - began)

    def resume(self) -> bool:
        """See `Trainer.resume`."""
        found = self._records.newest(self._state.shapes())
        if found is None:
            return False
        self._load(found)
        self._pacing.go_on(found.state, progress=self._planner.progress(found.step))
        return True

    def go_back(self, error: Diverged) -> None:
        """Go back to a checkpoint as the recipe says, or raise `error`."""
        self._load(self._rewinding.back(self._state.step, self._state.shapes(), error))

    def _load(self, found: Checkpoint) -> None:
        self._state.load(found.tensors, found.state, step=found.step)
        self._forget()
