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
  does, before it reaches the weights.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from netsmith.errors import CheckError, InputError
from netsmith.run.clock import Clock, seconds_of
from netsmith.run.plan import Plan
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.train.checkpoints import Identity
from netsmith.train.depthwise import Float32Parts, kinds_of
from netsmith.train.draws import stream_key
from netsmith.train.evaluate import Evaluation, evaluate_network
from netsmith.train.feed import Batch, Feed, TrainingData
from netsmith.train.interrupt import Interrupts
from netsmith.train.memory import keep_large_blocks
from netsmith.train.objectives import Classify
from netsmith.train.pacing import Pacing
from netsmith.train.planning import EVALUATIONS, Planner
from netsmith.train.precision import Timing, candidates, thread_counts
from netsmith.train.records import Records
from netsmith.train.requirements import choose_device, refuse_single_picture
from netsmith.train.schedules import learning_rate
from netsmith.train.state import State, first_non_finite, first_non_finite_layer
from netsmith.train.step import NonFiniteLoss, update
from netsmith.train.trials import Trials

CHECKPOINT_SECONDS = 30.0  # between checkpoints, at least
EVALUATION_COST = 0.5  # of an update on as many pictures, until measured
CHECK_EVERY = 20  # steps between looks at the loss where a look waits for a GPU

# What may differ between a run and its continuation: the plan holds what became of it.
_PLANNED = {"time_s", "device", "dtype", "channels_last", "threads", "workers"}


class Trainer:
    """One training run that can be advanced piece by piece.

    Args:
        network: `forward(x)` -> logits, initialised (a resumed run overwrites its weights); it is trained in place.
        data: what to train on.
        recipe: how.
        plan: rows found in it are obeyed, new ones recorded.
        clock: reads time.
        seconds: for training from now on, its evaluations and checkpoints included; by default the recipe's `time_s`.
        auxiliary: weights of auxiliary losses by output name, see `Classify`; the layout's when None.
        checkpoints: folder of checkpoints, or None to write none.
        metrics: `metrics.jsonl`, or None to write none.
        show: told how far training is.
        warn: told what went wrong without stopping training.
        checkpoint_seconds: between checkpoints; 0 writes one after every step.

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
        auxiliary: Mapping[str, float] | None = None,
        checkpoints: Path | None = None,
        metrics: Path | None = None,
        show: Progress = silent,
        warn: Callable[[str], None] | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.batch_size = min(recipe.batch_size, max(2, len(data.labels)))
        refuse_single_picture(network, recipe.model, self.batch_size)
        keep_large_blocks()
        self._clock = clock
        self._pacing = Pacing(
            clock,
            seconds=seconds if seconds is not None else recipe.time_s,
            checkpoint_seconds=checkpoint_seconds,
            evaluation_steps=EVALUATION_COST * len(data.val_labels) / self.batch_size,
        )
        self._planner = Planner(plan, self._pacing)
        self.data, self.recipe = data, recipe
        identity = Identity(recipe=recipe.model_dump(mode="json", exclude=_PLANNED), data=data.fingerprint)
        self._records = Records(checkpoints, metrics, identity=identity, warn=warn or _warn)
        self._show = show
        self.device = choose_device(recipe)
        timed = self._planner.timed
        counts = thread_counts(recipe, measured=timed)
        torch.set_num_threads(counts[0])
        self.objective = Classify.of(network, recipe, data.preprocess, labels=data.labels, auxiliary=auxiliary).to(
            self.device
        )
        self.feed = Feed.of(data, recipe, batch_size=self.batch_size)
        trials = Trials(self.objective, recipe, self._first_batch, pacing=self._pacing, clock=clock)
        ways = candidates(recipe, self.device, measured=timed)
        depthwise = None
        if timed and self.device.type == "cpu" and kinds_of(network) and any(way.dtype == "bfloat16" for way in ways):
            depthwise = self._planner.depthwise(lambda: Float32Parts.measured(network, clock=clock))
        ways = [replace(way, depthwise=depthwise) for way in ways]
        self.precision = replace(self._planner.precision(ways, trials.precisions), depthwise=depthwise)

        def measure_threads(ways: Sequence[int], seconds: float) -> list[Timing[int]]:
            return trials.threads(ways, seconds, precision=self.precision)

        self._threads = self._planner.threads(counts, measure_threads)
        torch.set_num_threads(self._threads)
        self.state = State(network, recipe, self.precision)
        self._losses: list[Tensor] = []  # of the newest updates, not yet added to the state's sum
        self._evaluated: tuple[int, Evaluation] | None = None
        self._planner.first_length(self._steps_of_epochs, threads=self._threads, measure=measure_threads)

    def _first_batch(self) -> Batch:
        return self._on_device(self.feed.batch(0))

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

    def plan_steps(self, total_steps: int, *, why: str) -> None:
        """Plan another length from the current step on; a plan that has a row for this step is obeyed instead.

        Args:
            total_steps: from the start of training, at least the current step.
            why: the reason, for the plan.
        """
        self._planner.by_steps(self.step, total_steps, why=why)

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
        torch.set_num_threads(self._threads)
        self.objective.train()
        with Interrupts() as interrupts, closing(self.feed.batches(self.step, workers=self.recipe.workers)) as batches:
            self._planner.at_marks(self.step)
            while not self.finished and (until is None or self.step < until):
                began = self._clock.now()
                try:
                    batch = next(batches)
                except InputError:  # a picture is gone: what was learned stays
                    self.save()
                    raise
                self._update(batch)
                self._pacing.stepped(self._clock.now() - began)
                self._between_updates()
                if interrupts.received is not None:
                    self.save()
                    interrupts.pass_on(self._records.how_to_go_on(self.step))
                self._planner.at_marks(self.step)
        self.network.eval()

    def _update(self, batch: Batch) -> None:
        step = self.step
        rate = learning_rate(self.recipe, self._planner.progress(step + 0.5))
        # Dropout and stochastic depth draw from torch's generator: seeded by the step, it carries nothing over.
        torch.manual_seed(stream_key(self.recipe.seed, "network", step) >> 1)
        batch = self._on_device(batch)
        try:
            outcome = update(
                self.objective,
                self.state.optimizer,
                batch,
                rate=rate,
                precision=self.precision,
                grad_clip=self.recipe.grad_clip,
                check=self.device.type == "cpu" or step % CHECK_EVERY == 0,
            )
        except NonFiniteLoss:
            self._explain(batch, rate)
        self.state.step += 1
        self.state.average()
        self._losses.append(outcome.loss)
        if len(self._losses) >= CHECK_EVERY:
            self._add_losses()

    def _add_losses(self) -> None:
        for loss in self._losses:  # one by one: the sum must not depend on when it is formed
            self.state.loss_sum += loss.item()
        self.state.loss_steps += len(self._losses)
        self._losses.clear()

    def _between_updates(self) -> None:
        done = self.progress
        self._show("training", done, 1.0, self._note())
        parts = EVALUATIONS if self.recipe.epochs is None else math.ceil(self.recipe.epochs)
        before = self._planner.progress(self.step - 1)
        if done < 1.0 and math.floor(done * parts) > math.floor(before * parts) and self._pacing.can_evaluate:
            self.evaluate()
            self.objective.train()
        if self._records.keeps_checkpoints and self._pacing.checkpoint_due:
            self.save()

    def _note(self) -> str:
        accuracy = f", val top-1 {100 * self._evaluated[1].top1.value:.2f} %" if self._evaluated else ""
        return f"step {self.step} of {self.total_steps}, epoch {self.epoch:.1f}{accuracy}"

    def _on_device(self, batch: Batch) -> Batch:
        images = batch.images.to(self.device, non_blocking=True)
        return Batch(images, batch.targets.to(self.device, non_blocking=True))

    # What is seen and kept

    def evaluate(self) -> Evaluation | None:
        """Answers of the network as it stands on the validation pictures, recorded in the metrics.

        Returns:
            The answers; those of an earlier call at the same step; None where there are no validation pictures.
        """
        if not len(self.data.val_labels):
            return None
        if self._evaluated is not None and self._evaluated[0] == self.step:
            return self._evaluated[1]
        began = self._clock.now()
        preprocess = self.data.preprocess
        evaluation = evaluate_network(
            self.network, self.data.val_pixels, self.data.val_labels, mean=preprocess.mean, std=preprocess.std
        )
        self._pacing.evaluated(self._clock.now() - began)
        self._evaluated = (self.step, evaluation)
        self._record(evaluation)
        return evaluation

    def _record(self, evaluation: Evaluation) -> None:
        self._add_losses()
        row = {
            "time": self._clock.wall(),
            "step": self.step,
            "progress": self.progress,
            "epoch": self.epoch,
            "lr": learning_rate(self.recipe, self.progress),
            "loss": self.state.loss_sum / self.state.loss_steps if self.state.loss_steps else None,
            "val": {"top1": evaluation.top1.value, "top5": evaluation.top5.value, "loss": evaluation.loss},
            "images_per_s": self._images_per_second(),
            "seconds": self.seconds,
        }
        self.state.loss_sum, self.state.loss_steps = 0.0, 0
        self._records.note(self.step, row)

    def _images_per_second(self) -> float | None:
        seconds = self._pacing.recent
        return self.batch_size / seconds if seconds else None

    def save(self) -> None:
        """Write a checkpoint of the current step, unless it is there; a full disk is a warning.

        Raises:
            CheckError: the weights are not finite; nothing is written.
        """
        if not self._records.keeps_checkpoints or self._records.saved == self.step:
            return
        began = self._clock.now()
        self._add_losses()
        tensors = self.state.tensors()
        self._refuse_non_finite(tensors)
        numbers = {
            "time": seconds_of(self._clock.wall()),
            "elapsed": self.seconds,
            "per_step": self._pacing.per_step,
            "loss_sum": self.state.loss_sum,
            "loss_steps": float(self.state.loss_steps),
        }
        self._records.save(self.step, tensors, numbers)
        self._pacing.saved(self._clock.now() - began)

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint.

        Returns:
            Whether there was one; without one training starts anew by the plan's rows.

        Raises:
            InputError: the checkpoint belongs to another recipe, other data or another network, or all are damaged.
        """
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in self.state.tensors().items()
            if not name.startswith("optimizer.")
        }
        found = self._records.newest(shapes)
        if found is None:
            return False
        self.state.load(found.tensors, step=found.step)
        self.state.loss_sum, self.state.loss_steps = found.state["loss_sum"], int(found.state["loss_steps"])
        self._pacing.go_on(elapsed=found.state["elapsed"], per_step=found.state["per_step"])
        return True

    # What stops training

    def _explain(self, batch: Batch, rate: float) -> NoReturn:
        name = first_non_finite(self.state.tensors())
        if name is not None:
            where = f"{name} is the first that is not finite"
        else:
            layer = first_non_finite_layer(self.objective, self.precision.lay_out(batch.images), batch.targets)
            where = f"the output of {layer} is the first that is not finite" if layer else "its logits are finite"
        raise CheckError(
            f"the loss is not finite at step {self.step} (epoch {self.epoch:.2f}, learning rate {rate:.3g}): {where}; "
            f"{self._records.kept}, try a smaller --lr or --clip-grad 1"
        )

    def _refuse_non_finite(self, tensors: Mapping[str, Tensor]) -> None:
        name = first_non_finite(tensors)
        if name is not None:
            rate = learning_rate(self.recipe, self._planner.progress(max(self.step - 0.5, 0.0)))
            raise CheckError(
                f"{name} is not finite after step {self.step} (epoch {self.epoch:.2f}, learning rate {rate:.3g}); "
                f"{self._records.kept}, try a smaller --lr or --clip-grad 1"
            )


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)
