"""The training loop: updates until the plan's last step, with evaluation, checkpoints and planning between them.

Choices made on purpose:

- What an update does is a function of recipe, data, plan and step. Whatever depends on time or machine (number of
  steps, threads, dtype, layout) is a plan row, written before it takes effect; a resumed or replayed run obeys the
  rows it finds.
- Evaluations and checkpoints change no weight, so when they happen is left to the clock and is not planned.
- The last weights count (their moving average where the recipe asks for one), never the best seen on validation:
  every schedule ends at its smallest rate, where the last is as good, and validation accuracy stays an honest estimate.
- A timed run counts everything from the construction of the trainer: measuring, batches, evaluation, checkpoints.
- A full disk does not stop training: the checkpoint before stays, and the warning says so. A loss that is not finite
  does, before it reaches the weights, or sends it back to the newest checkpoint with half the rate.
"""

import math
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from torch import nn

from netsmith.errors import CheckError, Diverged, InputError
from netsmith.run.clock import Clock
from netsmith.run.plan import Plan
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.run.scores import are_tags
from netsmith.train.accumulation import Parts
from netsmith.train.batch import Batch, Delivery
from netsmith.train.checkpoints import Identity
from netsmith.train.choosing import choose
from netsmith.train.compiling import asked, compile_where_asked
from netsmith.train.costs import EVEN, Costs, together
from netsmith.train.devices import synchronize, waits_for_numbers
from netsmith.train.division import division_of
from netsmith.train.evaluate import Evaluation
from netsmith.train.feed import Feed, TrainingData
from netsmith.train.gradients import Gradients
from netsmith.train.head_first import head_phases
from netsmith.train.interrupt import Interrupts
from netsmith.train.keeping import Keeping
from netsmith.train.memory import keep_large_blocks
from netsmith.train.metrics import Metrics
from netsmith.train.objectives import MakeObjective, objective_of
from netsmith.train.pacing import Pacing
from netsmith.train.planning import EVALUATIONS, Planner
from netsmith.train.ranks import ALONE, Ranks
from netsmith.train.records import Follow, Records
from netsmith.train.rendering import choose_rendering
from netsmith.train.requirements import choose_device, smallest_part
from netsmith.train.rewinding import Rewinding
from netsmith.train.shortage import enough_memory
from netsmith.train.sides import Sides
from netsmith.train.state import State
from netsmith.train.threads import Threads
from netsmith.train.together import peers_of
from netsmith.train.trials import Trials
from netsmith.train.updates import Updates
from netsmith.train.watching import Watching

CHECKPOINT_SECONDS = 30.0  # between checkpoints, at least
EVALUATION_COST = 0.5  # of an update on as many pictures, until measured

# What may differ between a run and its continuation: the plan holds what became of it.
_PLANNED = {"time_s", "device", "dtype", "channels_last", "compile", "threads", "workers", "on_nan", "sharded"}


class Trainer:
    """One training run that can be advanced piece by piece.

    Args:
        network: `forward(x)` -> logits, initialised (a resumed run overwrites its weights); it is trained in place.
        data: what to train on.
        recipe: how.
        plan: rows found in it are obeyed, new ones recorded.
        clock: reads time.
        seconds: for training from now on, its evaluations and checkpoints included; by default the recipe's `time_s`.
        objective: makes what is minimised.
        checkpoints: folder of checkpoints, or None to write none.
        metrics: `metrics.jsonl`, or None to write none.
        follow: given every row of them.
        show: told how far training is.
        warn: told what went wrong without stopping training.
        checkpoint_seconds: between checkpoints; 0 writes one after every step.
        ranks: the processes that train together; all do the same calls, the leading one writes and is heard.

    Raises:
        InputError: recipe and network do not fit, or the plan belongs to another recipe.
    """

    def __init__(
        self,
        network: nn.Module,
        data: TrainingData,
        recipe: Recipe,
        *,
        plan: Plan,
        clock: Clock,
        seconds: float | None = None,
        objective: MakeObjective = objective_of,
        checkpoints: Path | None = None,
        metrics: Path | None = None,
        follow: Follow | None = None,
        show: Progress = silent,
        warn: Callable[[str], None] | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        ranks: Ranks = ALONE,
    ) -> None:
        self.batch_size = min(recipe.batch_size, max(2, len(data.labels)))
        part = smallest_part(network, recipe, self.batch_size, processes=ranks.world.size)
        keep_large_blocks()
        self.device = ranks.own_device(choose_device(recipe))
        self._ranks = ranks
        self._clock = clock
        sides = Sides.of(recipe, network)
        self._pacing = Pacing(
            clock,
            seconds=seconds if seconds is not None else recipe.time_s,
            checkpoint_seconds=checkpoint_seconds,
            evaluation_steps=EVALUATION_COST * len(data.val_labels) / self.batch_size,
            costs=Costs(together(sides.phases if sides is not None else EVEN, head_phases(recipe))),
            wait=partial(synchronize, self.device) if waits_for_numbers(self.device) else None,
        )
        self._planner = Planner(plan, self._pacing, sides)
        self.data, self.recipe = data, recipe
        identity = Identity(recipe=recipe.model_dump(mode="json", exclude=_PLANNED), data=data.fingerprint)
        self.warn = warn or _warn
        self._records = Records(checkpoints, metrics, identity=identity, warn=self.warn, ranks=ranks, follow=follow)
        self.objective = objective(network, recipe, data.preprocess, labels=data.labels)
        division = division_of(recipe, ranks, self.device)
        division.place(self.objective, self.device)
        ranks.spread(network)
        self.feed = Feed.of(
            data,
            recipe,
            batch_size=self.batch_size,
            rendered=choose_rendering(data.images, self.device, planner=self._planner, warn=self.warn),
            delivery=Delivery(self.device),
            part=ranks.slice_of,
        )
        parts = Parts(network, recipe, batch_size=part, planner=self._planner, warn=self.warn)
        trials = Trials(self.objective, recipe, self._first_batch, pacing=self._pacing, clock=clock, show=show)
        chosen = choose(
            network,
            recipe,
            self.device,
            planner=self._planner,
            trials=trials,
            clock=clock,
            warn=self.warn,
            processes=ranks.world.local_size,
        )
        self.precision = chosen.precision
        self.state = State(network, recipe, self.precision, beside=self.objective.beside, division=division)
        compiled = compile_where_asked(
            self.objective,
            self.state,
            self._first_batch,
            wanted=asked(network, recipe, self.device, seconds=self._pacing.seconds, pictures=len(data.labels)),
            parts=parts.at(0),
            precision=self.precision,
            planner=self._planner,
            show=show,
            warn=self.warn,
        )
        self._metrics = Metrics(self.state, tags=are_tags(data.labels))
        steps_per_epoch = len(data.labels) / self.batch_size
        self._updates = Updates(
            self.objective,
            self.state,
            recipe,
            precision=self.precision,
            planner=self._planner,
            parts=parts,
            records=self._records,
            gradients=Gradients(self.state, self._metrics, self._records, planner=self._planner, warn=self.warn),
            steps_per_epoch=steps_per_epoch,
            ranks=ranks,
            peers=peers_of(ranks, self.state, recipe, planner=self._planner, batch_size=self.batch_size),
        )
        self._watching = Watching(
            self.state,
            self._metrics,
            self._records,
            data=data,
            planner=self._planner,
            pacing=self._pacing,
            clock=clock,
            rate=self._updates.rate,
            steps_per_epoch=steps_per_epoch,
            evaluations=EVALUATIONS if recipe.epochs is None else math.ceil(recipe.epochs),
            show=show,
            warn=self.warn,
            ranks=ranks,
        )
        self._keeping = Keeping(
            self.state,
            self._metrics,
            self._records,
            Rewinding(recipe, planner=self._planner, records=self._records, warn=self.warn),
            planner=self._planner,
            pacing=self._pacing,
            clock=clock,
            check=self._updates.refuse_non_finite,
            forget=self._watching.forget,
        )
        self._planner.first_length(self._steps_of_epochs, threads=chosen.threads, measure=chosen.measure)
        self._threads = Threads(
            chosen.counts[:1] if ranks.several or compiled else chosen.counts,  # kernels hold their number of threads
            measure=chosen.measure,
            planner=self._planner,
            pacing=self._pacing,
            warn=self.warn,
        )

    def _first_batch(self) -> Batch:
        return self.feed.delivered(0)

    def _steps_of_epochs(self) -> int:
        assert self.recipe.epochs is not None, "a recipe without time has epochs"
        return round(self.recipe.epochs * len(self.data.labels) / self.batch_size)

    # Where the run stands

    @property
    def network(self) -> nn.Module:
        """The network to evaluate and to ship, with the weights as they stand now: the average where there is one."""
        return self.state.final

    @property
    def step(self) -> int:
        """Updates made."""
        return self.state.step

    @property
    def total_steps(self) -> int:
        """Updates in all, as planned so far."""
        return self._planner.total(self.step)

    @property
    def epoch(self) -> float:
        """Passes over the training split made."""
        return self.step * self.batch_size / len(self.data.labels)

    @property
    def progress(self) -> float:
        """Share of training that is done."""
        return self._planner.progress(self.step)

    @property
    def finished(self) -> bool:
        """Whether the last planned update was made."""
        return self.step >= self.total_steps

    @property
    def seconds(self) -> float:
        """Seconds spent, those of interrupted parts included."""
        return self._pacing.elapsed

    # Moving on

    def allow(self, seconds: float) -> None:
        """Give the run `seconds` from now on; its length follows at the next mark."""
        self._pacing.allow(seconds)

    def plan_time(self, seconds: float) -> None:
        """Give the run `seconds` from now on and plan its length by them, now and again at every mark."""
        self._pacing.allow(seconds)
        self._planner.by_time(self.step)

    def advance(self, until: int | None = None) -> None:
        """Train until the planned end, or until `until` updates are made in all.

        Raises:
            CheckError: loss or weights are not finite; the checkpoints before stay.
            InputError: a picture cannot be read any more; a checkpoint was written.
            Interrupted: Ctrl-C or SIGTERM came; the step was finished and a checkpoint written.
        """
        self._keeping.begin()
        with Interrupts() as interrupts:
            while True:
                try:
                    self._advance(until, interrupts)
                    break
                except Diverged as error:
                    self._keeping.go_back(error)
            (last,) = self._ranks.most([interrupts.received or 0])
            self._heed(last, interrupts)  # one that came after the last look must not be lost
        self.network.eval()

    def _advance(self, until: int | None, interrupts: Interrupts) -> None:
        self.objective.train()
        with closing(self.feed.batches(self.step, workers=self.recipe.workers, side=self._planner.side)) as batches:
            self._plan_on()
            while not self.finished and (until is None or self.step < until):
                began = self._clock.now()
                try:
                    batch = self._ranks.each(lambda: enough_memory(lambda: next(batches), of="a batch's pictures"))
                except (InputError, CheckError):  # a picture is gone, or memory: what was learned stays
                    self.save()
                    raise
                self._metrics.add(self._updates.make(batch), batch)
                self._pacing.stepped(self._clock.now() - began, progress=self._planner.progress(self.step - 1))
                signal, late = self._between_updates(interrupts)
                self._heed(signal, interrupts)
                self._plan_on(late=late)
        if self.finished:
            self._updates.refuse_non_finite()

    def _plan_on(self, *, late: bool = False) -> None:
        self._planner.at_marks(self.step, late=late, before=self._threads.reconsider)
        self._threads.set(self.step)

    def _heed(self, signal: int, interrupts: Interrupts) -> None:
        if signal:
            self.save()
            interrupts.received = signal
            interrupts.pass_on(self._records.how_to_go_on(self.step))

    def _between_updates(self, interrupts: Interrupts) -> tuple[int, bool]:
        """Look and save as time says, that of the leading process.

        Returns:
            The signal that any process was sent, or 0, and whether the run is late.
        """
        self._watching.look()
        leads = self._ranks.leads
        evaluation, due = self._watching.evaluation_due and leads, self._keeping.due and leads
        late = self._planner.late(self.step) and leads
        evaluation, due, late, signal = self._ranks.most([evaluation, due, late, interrupts.received or 0])
        if evaluation:
            self._updates.refuse_non_finite()  # on a GPU losses are looked at now and then
            self.evaluate()
        if due:
            self.save()
        return signal, bool(late)

    # What is seen and kept

    def evaluate(self) -> Evaluation | None:
        """Answers of the network as it stands on the validation pictures, recorded in the metrics.

        Returns:
            The answers; those of an earlier call at the same step; None where there are no validation pictures.
        """
        return self._watching.evaluate()

    def save(self) -> None:
        """Write a checkpoint of the current step, unless it is there; a full disk is a warning.

        Raises:
            CheckError: the weights are not finite; nothing is written.
        """
        self._keeping.save()

    def settle(self) -> None:
        """Write the rows of metrics for which there was no room; raises InputError where there still is none."""
        self._records.settle(self.step)

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint.

        Returns:
            Whether there was one; without one training starts anew by the plan's rows.

        Raises:
            InputError: the checkpoint belongs to another recipe, other data or another network, or all are damaged.
        """
        return self._keeping.resume()


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)
