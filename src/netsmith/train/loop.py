"""Training from start to end in a run folder."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn

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
from netsmith.train.trainer import CHECKPOINT_SECONDS, Trainer


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
        CheckError, InputError, Interrupted: see `Trainer.advance`, `Trainer.settle` and `Trainer.resume`.
    """
    events = Board(run.boards, warn=warn) if board else None
    trainer = Trainer(
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
    with events or nullcontext():
        if resume:
            trainer.resume()
        trainer.advance()
        trainer.save()
        val = trainer.evaluate()
        trainer.settle()
    return Trained(trainer.state.plain().eval(), trainer.step, trainer.epoch, trainer.seconds, val)
