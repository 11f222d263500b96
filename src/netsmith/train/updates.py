"""Updates one after another: each seeded by its step, at its rate, in as many parts as memory allows, and explained
where its loss is not finite.

What runs out of memory is computed again in more parts: from the same weights, the same memory of the optimizer, the
same running statistics and the same draws, after the choice was written to the plan. A replay obeys the row, never
meets the shortage and comes to the same bits.
"""

from netsmith.errors import Diverged
from netsmith.run.recipe import Recipe
from netsmith.train.accumulation import Parts
from netsmith.train.devices import seed, waits_for_numbers
from netsmith.train.diagnosis import explain_loss, first_non_finite
from netsmith.train.draws import stream_key
from netsmith.train.feed import Batch
from netsmith.train.gradients import Gradients
from netsmith.train.head_first import HeadFirst
from netsmith.train.objectives import Objective, Outcome
from netsmith.train.planning import Planner
from netsmith.train.precision import Precision
from netsmith.train.ranks import ALONE, Ranks
from netsmith.train.records import Records
from netsmith.train.schedules import learning_rate
from netsmith.train.shortage import OutOfMemory
from netsmith.train.state import State
from netsmith.train.step import ALONE as PEERLESS
from netsmith.train.step import NonFiniteLoss, Peers, update

CHECK_EVERY = 20  # steps between looks at the loss where a look waits for a GPU
SMALLEST_SCALE = 2.0**-14  # of a float16 loss: gradients that overflow even then are no matter of scale


class Updates:
    """The updates of one training.

    Args:
        objective: with the network, on its device.
        state: of the training; one update changes its network and optimizer and counts one step.
        recipe: rate, clipping, seed, and what is advised where the loss is not finite.
        precision: of the activations.
        planner: of the run.
        parts: that batches are computed in.
        records: which checkpoint is good, for messages.
        gradients: looked at, where it is their turn.
        steps_per_epoch: updates that one pass over the pictures takes.
        ranks: the processes that train together.
        peers: those of them that compute the other parts of a batch.
    """

    def __init__(
        self,
        objective: Objective,
        state: State,
        recipe: Recipe,
        *,
        precision: Precision,
        planner: Planner,
        parts: Parts,
        records: Records,
        gradients: Gradients,
        steps_per_epoch: float,
        ranks: Ranks = ALONE,
        peers: Peers = PEERLESS,
    ) -> None:
        self._objective, self._state, self._recipe = objective, state, recipe
        self._precision, self._planner, self._parts = precision, planner, parts
        self._records, self._gradients = records, gradients
        self._steps_per_epoch = steps_per_epoch
        self._head_first = HeadFirst(objective.network, recipe.head_first)
        self._ranks, self._peers = ranks, peers
        # Of each process its own draws; those of the first are those of one alone.
        self._stream = f"network of rank {ranks.world.rank}" if ranks.world.rank else "network"

    def rate(self, step: float) -> float:
        """The learning rate at a step; half a step later is the middle of its update."""
        return learning_rate(self._recipe, self._planner.progress(step)) * self._planner.rate_factor(int(step))

    def make(self, batch: Batch) -> Outcome:
        """Make the update of the state's step.

        Args:
            batch: of the step, on the device.

        Returns:
            Its loss and logits, on the device.

        Raises:
            Diverged: the loss is not finite; the weights were not touched.
            CheckError: memory is too small.
        """
        step = self._state.step
        self._head_first.at(self._planner.progress(step))
        check = (
            not waits_for_numbers(batch.images.device)
            or step % CHECK_EVERY == 0
            or step + 1 >= self._planner.total(step)
        )
        outcome: Outcome | None = None
        while outcome is None:
            outcome = self._attempt(step, batch, check=check)
        if check and self._state.scaler is not None and self._state.scaler.get_scale() < SMALLEST_SCALE:
            raise self._diverged(
                f"the gradients overflow float16 at step {step}", step, "whatever the scale of the loss is"
            )
        self._state.step += 1
        self._state.average()
        return outcome

    def _attempt(self, step: int, batch: Batch, *, check: bool) -> Outcome | None:
        restore = self._state.statistics()
        # Dropout and stochastic depth draw from torch's generator: seeded by the step, it carries nothing over.
        seed(batch.images.device, stream_key(self._recipe.seed, self._stream, step) >> 1)
        try:
            return update(
                self._objective,
                self._state.optimizer,
                batch,
                rate=self.rate(step + 0.5),
                precision=self._precision,
                grad_clip=self._recipe.grad_clip,
                parts=self._parts.at(step),
                scaler=self._state.scaler,
                check=check,
                peers=self._peers,
                look=self._gradients.at(step),
            )
        except NonFiniteLoss as error:
            found = explain_loss(
                self._objective, self._state, error.batch, precision=self._precision, lost=self._first_non_finite()
            )
            why = next(each for each in self._ranks.gathered(found if error.here else None) if each)
            raise self._diverged(f"the loss is not finite at step {step}", step, why) from None
        except OutOfMemory as error:
            restore()
            self._parts.divide(step, error)
            return None

    def refuse_non_finite(self) -> None:
        """Raise Diverged where the state's tensors are not finite."""
        name = self._first_non_finite()
        if name is not None:
            step = self._state.step
            raise self._diverged(f"{name} is not finite after step {step}", max(step - 1, 0))

    def _first_non_finite(self) -> str | None:
        """Name of the first of the state's tensors that is not finite, in what any of the processes holds of it."""
        tensors = self._state.tensors()
        found = [name for name in self._ranks.gathered(first_non_finite(tensors)) if name is not None]
        return min(found, key=list(tensors).index, default=None)

    def _diverged(self, what: str, step: int, why: str = "") -> Diverged:
        rewinds = self._planner.rewinds
        rewound = f", the run was rewound {rewinds} times" if rewinds else ""
        rewind = " or --on-nan rewind" if self._recipe.on_nan == "stop" else ""
        return Diverged(
            f"{what} (epoch {self._state.step / self._steps_per_epoch:.2f}, learning rate {self.rate(step + 0.5):.3g})"
            f"{': ' if why else ''}{why}",
            f"{self._records.kept}{rewound}, try a smaller --lr or --clip-grad 1{rewind}",
        )
