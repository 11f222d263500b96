"""Learning rate as a pure function of progress, 0 at the start of training and 1 at its end.

Progress, not steps: the same recipe then serves any length, and a run whose number of steps is planned anew stays on
its curve.

- constant: 1 after warm-up.
- step: times gamma at each milestone (He et al. 2016, section 4.2), or at every so many shares of progress, warm-up
  included (Tan and Le 2019, section 5.2: 0.97 every 2.4 epochs).
- cosine: half a cosine from 1 to the final ratio over what follows the warm-up (Loshchilov and Hutter 2017, without
  restarts).
- onecycle: half a cosine up from 1/25, half a cosine down (Smith and Topin 2018, in the form of
  torch.optim.lr_scheduler.OneCycleLR; the momentum does not cycle).
"""

import math

from netsmith.run.recipe import Recipe

ONECYCLE_START = 1 / 25


def rate_factor(recipe: Recipe, progress: float) -> float:
    """Share of the peak learning rate.

    Args:
        recipe: its `sched`, `warmup`, `step_milestones`, `step_every`, `step_gamma` and `final_lr_ratio` are used.
        progress: in [0, 1].

    Returns:
        The factor, in [0, 1].
    """
    assert 0.0 <= progress <= 1.0, progress
    if recipe.sched == "onecycle" and progress < recipe.warmup:
        return _cosine(ONECYCLE_START, 1.0, progress / recipe.warmup)
    if progress < recipe.warmup:
        return progress / recipe.warmup
    if recipe.sched == "constant":
        return 1.0
    if recipe.sched == "step":
        if recipe.step_every is not None:
            return recipe.step_gamma ** math.floor(progress / recipe.step_every)
        return recipe.step_gamma ** sum(progress >= milestone for milestone in recipe.step_milestones)
    return _cosine(1.0, recipe.final_lr_ratio, (progress - recipe.warmup) / (1.0 - recipe.warmup))


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate at `progress`; see `rate_factor`."""
    return recipe.lr * rate_factor(recipe, progress)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0
