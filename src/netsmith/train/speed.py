"""How long an update takes here, before any training: on made pictures, in the way to compute that is fastest."""

import math

import torch
from torch import nn

from netsmith.run.clock import Clock
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.devices import choose_kernels
from netsmith.train.feed import Batch
from netsmith.train.objectives import Classify
from netsmith.train.pacing import Pacing
from netsmith.train.precision import candidates
from netsmith.train.requirements import choose_device
from netsmith.train.trials import Trials


def seconds_per_update(
    network: nn.Module, recipe: Recipe, preprocess: Preprocess, *, classes: int, seconds: float, clock: Clock
) -> float:
    """Time updates of copies of a network; it is not changed.

    Args:
        network: [N,3,S,S] -> [N,classes].
        recipe: its batch size, optimizer and side of the pictures trained on.
        preprocess: of the network's input.
        classes: number of logits.
        seconds: about how long to measure.
        clock: reads time.
    """
    device = choose_device(recipe)
    choose_kernels(device)
    side = recipe.train_size or recipe.img_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (recipe.batch_size, 3, side, side), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, classes, (recipe.batch_size,), generator=generator)
    batch = Batch(images.contiguous(memory_format=torch.channels_last).to(device), targets.to(device))
    objective = Classify.of(network, recipe, preprocess, labels=targets.numpy()).to(device)
    pacing = Pacing(clock, seconds=None, checkpoint_seconds=math.inf, evaluation_steps=0.0)
    trials = Trials(objective, recipe, lambda: batch, pacing=pacing, clock=clock)
    timings = trials.precisions(candidates(recipe, device, measured=True), seconds)
    return min(timing.seconds for timing in timings)
