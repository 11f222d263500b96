"""How fast this machine trains: some updates of a likely candidate on made pictures, before the race is chosen."""

import math

from netsmith.arch.cost import cost
from netsmith.arch.layout import at_size
from netsmith.run.clock import Clock
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.search.candidates import Candidate
from netsmith.search.choose import training_work


def training_speed(
    candidate: Candidate, recipe: Recipe, preprocess: Preprocess, *, classes: int, seconds: float, clock: Clock
) -> float:
    """Training work per second, computed in the way that is fastest here.

    Args:
        candidate: whose updates are timed.
        recipe: it would be trained with.
        preprocess: of its input.
        classes: number of classes.
        seconds: about how long to measure.
        clock: reads time.

    Returns:
        `training_work` of the pictures of an update over the seconds that it takes.
    """
    import torch

    from netsmith.models.build import build
    from netsmith.train.feed import Batch
    from netsmith.train.objectives import Classify
    from netsmith.train.pacing import Pacing
    from netsmith.train.precision import candidates
    from netsmith.train.trainer import choose_device
    from netsmith.train.trials import Trials

    device = choose_device(recipe)
    side = recipe.train_size or recipe.img_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (recipe.batch_size, 3, side, side), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, classes, (recipe.batch_size,), generator=generator)
    batch = Batch(images.contiguous(memory_format=torch.channels_last).to(device), targets.to(device))
    objective = Classify(
        build(candidate.layout), mean=preprocess.mean, std=preprocess.std, smoothing=recipe.smoothing
    ).to(device)
    pacing = Pacing(clock, seconds=None, checkpoint_seconds=math.inf, evaluation_steps=0.0)
    trials = Trials(objective, recipe, lambda: batch, pacing=pacing, clock=clock)
    timings = trials.precisions(candidates(recipe, device, measured=True), seconds)
    per_update = min(timing.seconds for timing in timings)
    return recipe.batch_size * training_work(cost(at_size(candidate.layout, side))) / per_update
