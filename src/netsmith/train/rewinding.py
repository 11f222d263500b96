"""Back to a checkpoint after a loss that was not finite, and on from there at half the rate."""

from collections.abc import Callable, Mapping

from netsmith.errors import Diverged
from netsmith.run.recipe import Recipe
from netsmith.train.checkpoints import Checkpoint
from netsmith.train.planning import Planner
from netsmith.train.records import Records

MOST = 3
RATE = 0.5  # times the rate before


class Rewinding:
    """What `on_nan: rewind` does.

    Args:
        recipe: whether it is wanted.
        planner: of the run; how often it was done is in its plan.
        records: of the run.
        warn: told about each.
    """

    def __init__(self, recipe: Recipe, *, planner: Planner, records: Records, warn: Callable[[str], None]) -> None:
        self._wanted = recipe.on_nan == "rewind" and records.keeps_checkpoints
        self._planner, self._records, self._warn = planner, records, warn

    @property
    def lacks_checkpoint(self) -> bool:
        """Whether there is nothing yet to go back to."""
        return self._wanted and self._records.saved < 0

    def back(self, step: int, shapes: Mapping[str, tuple[int, ...]], error: Diverged) -> Checkpoint:
        """The checkpoint to go on from, at a rate that the plan now says.

        Args:
            step: that failed.
            shapes: of the network's tensors.
            error: what happened.

        Raises:
            Diverged: `error`, where going back is not wanted, was done often enough, or there is no checkpoint.
        """
        times = self._planner.rewinds
        found = self._records.newest(shapes) if self._wanted and times < MOST else None
        if found is None:
            raise error
        factor = RATE * self._planner.rate_factor(step)
        # In this order: killed in between, the run meets the loss again.
        self._records.forget_after(found.step)
        self._planner.rewind(found.step, factor, why=f"the loss was not finite at step {step}")
        self._warn(
            f"{error}; going on from step {found.step} at {factor:g} of the learning rate "
            f"(rewind {times + 1} of {MOST})"
        )
        return found
