"""How fast this machine trains: some updates of a likely candidate, before it is decided who races."""

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
    from netsmith.models.build import build
    from netsmith.train.speed import seconds_per_update

    per_update = seconds_per_update(
        build(candidate.layout), recipe, preprocess, classes=classes, seconds=seconds, clock=clock
    )
    side = recipe.train_size or recipe.img_size
    return recipe.batch_size * training_work(cost(at_size(candidate.layout, side))) / per_update
