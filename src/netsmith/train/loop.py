"""Training from start to end in a run folder.

A time that was given and not kept is said: one update and the answers at the end come in any case, and what a machine
does after the last plan of the number of updates cannot be taken back.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn

from netsmith.run.budget import format_duration
from netsmith.run.clock import Clock
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.train.board import Board
from netsmith.train.evaluate import Evaluation
from netsmith.train.feed import TrainingData
from netsmith.train.objectives import MakeObjective, objective_of
from netsmith.train.ranks import ALONE, Ranks
from netsmith.train.shortage import enough_to_begin
from netsmith.train.trainer import CHECKPOINT_SECONDS, Trainer

KEPT = 1.05  # times the seconds given, at most: more is said


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes:
        network: in evaluation mode on the CPU, where artifacts are made and measured, with the weights to ship; of
            several processes that divided it, the leading one's.
        steps: updates made.
        epochs: passes over the training split.
        seconds: spent, those of interrupted parts included.
        val: answers on the validation pictures, None where there are none.
    """

    network: nn.Module
    steps: int
    epochs: float
    seconds: float
    val: Evaluation | None


def train(
    network: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    run: RunFolder,
    plan: Plan,
    clock: Clock,
    seconds: float | None = None,
    objective: MakeObjective = objective_of,
    resume: bool = False,
    board: bool = False,
    show: Progress = silent,
    warn: Callable[[str], None] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train a network to the end of its plan, with checkpoints and metrics in a run folder; arguments as `Trainer`.

    Args:
        run: where checkpoints and metrics go.
        resume: go on from the newest checkpoint in it, if any.
        board: write event files for TensorBoard too.

    Raises:
        CheckError, InputError, Interrupted: see `Trainer.advance`, `Trainer.settle` and `Trainer.resume`; memory is too
            small for what is held before the first update.
    """
    events = Board(run.boards, warn=warn) if board else None
    trainer = enough_to_begin(
        lambda: Trainer(
            network,
            data,
            recipe,
            plan=plan,
            clock=clock,
            seconds=seconds,
            objective=objective,
            checkpoints=run.checkpoints,
            metrics=run.metrics,
            follow=events.write if events is not None else None,
            show=show,
            warn=warn,
            checkpoint_seconds=checkpoint_seconds,
            ranks=ranks,
        )
    )
    with events or nullcontext():
        if resume:
            trainer.resume()
        ended_before = trainer.finished
        trainer.advance()
        trainer.save()
        val = trainer.evaluate()
        trainer.settle()
    spent, given = trainer.seconds, recipe.time_s if seconds is None else seconds
    if given is not None and spent > KEPT * given and not ended_before:
        trainer.warn(_overrun(spent, given, trainer.step))
    return Trained(trainer.state.plain().eval(), trainer.step, trainer.epoch, spent, val)


def _overrun(spent: float, given: float, steps: int) -> str:
    why = "its last updates or the answers at its end took longer than was known when its length was planned"
    mend = "give more --time, and look for other work on the machine"
    if steps == 1:
        why = "one update and the answers at its end are the least that a training makes"
        mend = f"give --time {format_duration(1.2 * spent)} or more, or a smaller network, --img-size or --batch-size"
    return f"training took {format_duration(spent)}, and {format_duration(given)} were given: {why}; {mend}"
