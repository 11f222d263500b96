"""A learning rate range test: a copy of the fresh network trained for a few updates at rates that rise exponentially.

The loss first stays, then falls, then explodes. The suggestion is the rate at which it falls steepest, after smoothing
over half a decade to both sides. It is where training learns fastest at once, hence a good peak for a schedule that
warms up; it says nothing about how long training stays stable, so a tenth of it is worth a run too.

A run may change on its way: pictures grow, or the classifier learns alone at first. The test then stands for the moment
at which its rate is highest, because that is the rate that is looked for; and for all layers, where they learn at all,
because a rate that suits a classifier on fixed features says nothing about theirs. It begins with fresh weights all the
same, or with those that the run begins with.

Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3; the stop is fastai's.
"""

import copy
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from netsmith.arch.pretrained import has_weights
from netsmith.errors import CheckError
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.train.accumulation import Parts
from netsmith.train.devices import seed
from netsmith.train.draws import stream_key
from netsmith.train.feed import Batch, Feed, TrainingData
from netsmith.train.head_first import HeadFirst
from netsmith.train.objectives import objective_of
from netsmith.train.precision import candidates, thread_counts
from netsmith.train.requirements import choose_device
from netsmith.train.shortage import OutOfMemory
from netsmith.train.sides import Sides
from netsmith.train.state import State
from netsmith.train.step import NonFiniteLoss, update

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 140  # 20 updates a decade
EXPLODED = 4.0  # times the smallest loss so far
MEMORY = 0.8  # of the loss that decides whether it exploded
LEAST_FALL = 0.02  # of the first loss: less is noise
REACH = 10  # updates to each side that the shown loss is smoothed over


@dataclass(frozen=True)
class Moment:
    """The moment of a run that a test stands for.

    Attributes:
        progress: of the run.
        side: of its pictures then, pixels; None where they do not grow.
        head_only: whether only the classifier learns then.
    """

    progress: float
    side: int | None
    head_only: bool

    @classmethod
    def of(cls, recipe: Recipe, network: nn.Module) -> Self:
        """Where the rate is highest while all layers learn, or while the classifier does where it alone ever learns.

        Raises:
            InputError: the network cannot be trained on pictures that grow.
        """
        head_only = recipe.head_first == 1.0
        # Every schedule rises while it warms up and never after.
        progress = recipe.warmup if head_only else max(recipe.warmup, recipe.head_first)
        sides = Sides.of(recipe, network)
        return cls(progress, None if sides is None else sides.at(progress), head_only)


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        rates: of the updates, ascending.
        losses: of each, before it, as measured.
        smoothed: the losses, smoothed.
        exploded: whether the test ended before the highest rate because the loss exploded.
        suggestion: rate at which the loss falls steepest, None where it never fell.
        lowest: rate at which it is lowest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    exploded: bool
    suggestion: float | None
    lowest: float


def range_test(
    network: nn.Module, data: TrainingData, recipe: Recipe, *, steps: int = STEPS, show: Progress = silent
) -> RangeTest:
    """Train a copy of a network at rising rates; the network itself is not changed, torch has the recipe's threads.

    Args:
        network: as training would start with it.
        data: its training pictures are used.
        recipe: all of it but its rate, length, averaging and compiling; of what changes with progress, what it is at
            the run's `Moment`. What is measured in a run with a time is as in one of fixed length.
        steps: updates from the lowest rate to the highest.
        show: told how far it is.

    Raises:
        InputError: network and recipe do not fit.
        CheckError: memory is too small, or the loss explodes at the lowest rates already.
    """
    device, moment = choose_device(recipe), Moment.of(recipe, network)
    torch.set_num_threads(thread_counts(recipe, measured=False)[0])
    batch_size = min(recipe.batch_size, max(2, len(data.labels)))
    objective = objective_of(copy.deepcopy(network), recipe, data.preprocess, labels=data.labels).to(device).train()
    precision = candidates(recipe, device, measured=False)[0]
    state = State(objective.network, recipe.model_copy(update={"ema": None}), precision)
    HeadFirst(objective.network, float(moment.head_only)).at(0.0)
    parts = Parts(network, recipe, batch_size=batch_size)

    def loss(batch: Batch, step: int, rate: float) -> float:
        seed(device, stream_key(recipe.seed, "network", step) >> 1)
        while True:
            try:
                outcome = update(
                    objective,
                    state.optimizer,
                    batch,
                    rate=rate,
                    precision=precision,
                    grad_clip=recipe.grad_clip,
                    parts=parts.at(0),
                    scaler=state.scaler,
                )
                return outcome.loss.item()
            except NonFiniteLoss:
                return math.inf
            except OutOfMemory as error:
                parts.divide(0, error)

    rates: list[float] = []
    losses: list[float] = []
    mean, best, exploded, rate = 0.0, math.inf, False, LOWEST
    feed = Feed.of(data, recipe, batch_size=batch_size)
    with closing(feed.batches(0, workers=recipe.workers, side=lambda _: moment.side)) as batches:
        for step, batch in zip(range(steps), batches, strict=False):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))
            show("trying rates", step, steps, f"learning rate {rate:.2g}")
            found = loss(Batch(batch.images.to(device), batch.targets.to(device)), step, rate)
            mean = MEMORY * mean + (1.0 - MEMORY) * found
            recent = mean / (1.0 - MEMORY ** (step + 1))
            if not math.isfinite(found) or recent > EXPLODED * best:
                exploded = True
                break
            best = min(best, recent)
            rates.append(rate)
            losses.append(found)
    if len(rates) <= REACH:
        raise CheckError(
            f"the loss of {recipe.model} explodes at learning rates as low as {rate:.1g}; try another --opt"
            + (", or --pretrained weights" if recipe.pretrained is None and has_weights(recipe.model) else "")
        )
    return judge(rates, losses, exploded=exploded)


def judge(rates: Sequence[float], losses: Sequence[float], *, exploded: bool) -> RangeTest:
    """What losses at rising rates say; see `RangeTest`."""
    smoothed = _smooth(np.array(losses))
    lowest = int(np.argmin(smoothed))
    slopes = np.gradient(smoothed, np.log10(rates))[: lowest + 1] if lowest > 0 else np.zeros(1)
    fell = smoothed[0] - smoothed[lowest] > LEAST_FALL * smoothed[0]
    return RangeTest(
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smoothed.tolist()),
        exploded=exploded,
        suggestion=rates[int(np.argmin(slopes))] if fell else None,
        lowest=rates[lowest],
    )


def _smooth(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means weighted by nearness, over fewer neighbours at the ends: what lies at the right is not pulled to the left,
    as a running mean would."""
    weights = 1.0 - np.abs(np.arange(-REACH, REACH + 1)) / (REACH + 1)
    sums, totals = (np.convolve(values, weights)[REACH:-REACH] for values in (losses, np.ones_like(losses)))
    return sums / totals
