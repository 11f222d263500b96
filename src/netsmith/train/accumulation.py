"""In how many parts a batch is computed: as the recipe says, or in more once memory was too small for them.

The batch of an update stays what it was; only how many pictures are in memory at once changes. Where that comes to the
same update and where it does not is said in `step.update`.
"""

from collections.abc import Callable

from torch import nn

from netsmith.run.recipe import Recipe
from netsmith.train.planning import Planner
from netsmith.train.requirements import fewest_pictures
from netsmith.train.shortage import NoMemory, OutOfMemory


class Parts:
    """The number of parts of a batch.

    Args:
        network: batch norm in it needs two pictures in every part.
        recipe: its `grad_accum` is the least number.
        batch_size: pictures of a batch.
        planner: of the run, for rows that are obeyed and written; without one this object alone remembers.
        warn: told about every change.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        batch_size: int,
        planner: Planner | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._fewest = fewest_pictures(network)
        self._batch_size = batch_size
        self._least = recipe.grad_accum
        self._planner, self._warn = planner, warn

    def at(self, step: int) -> int:
        """Parts of the batch of a step."""
        return self._least if self._planner is None else self._planner.parts(step, wanted=self._least)

    def of(self, pictures: int, *, step: int) -> int:
        """Parts of fewer pictures that are no larger than those of a batch."""
        largest = -(-self._batch_size // self.at(step))
        return max(1, min(-(-pictures // largest), pictures // self._fewest))

    def divide(self, step: int, error: OutOfMemory) -> None:
        """Twice as many parts from a step on, whose memory ran out.

        Raises:
            NoMemory: they are as small as they can be.
        """
        parts = self.at(step)
        more = min(2 * parts, self._batch_size // self._fewest)
        if more <= parts:
            raise NoMemory(
                f"memory ran out at step {step} with {self._pictures(parts)} at once, the fewest that can be "
                f"({error}); take a smaller --img-size or network"
            )
        why = f"memory ran out with {self._pictures(parts)} at once"
        if self._planner is None:
            self._least = more
        else:
            self._planner.divide(step, more, why=why)
        if self._warn is not None:
            norms = "; batch norm's statistics are then those of as many" if self._fewest > 1 else ""
            self._warn(
                f"{why} at step {step}: from here on {self._pictures(more)} at once, in {more} parts of the same batch "
                f"of {self._batch_size}{norms}"
            )

    def _pictures(self, parts: int) -> str:
        count = -(-self._batch_size // parts)
        return f"{count} picture{'s' if count > 1 else ''}"
