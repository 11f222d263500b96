"""What the curves of a training say, in plain words, with the numbers that say so and what to try next.

Choices made on purpose:

- Fitting is judged on training pictures without augmentation, answered once at the end: what is seen during training is
  augmented, mixed, smoothed, and answered by a network that still changes, so it lies on either side of validation.
- Nothing is said that chance explains: shares are compared by the interval of their difference (Newcombe 1998, method
  10, from Wilson's intervals), and a difference below five points is not worth a word.
- A rate is called too high or too low only where the network also fits badly: a bump that mended itself is no fault.
  Where there were few updates, it is these that are called too few, and not the rate too low.
- What to try is what the verb has: `fit` is told where the flags are that it does not have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Literal

from netsmith.arch.pretrained import has_weights
from netsmith.report.evidence import Evidence, Mark
from netsmith.report.wording import bounds, figures, percent
from netsmith.run.gradients import GradientRow, in_words
from netsmith.run.metrics import Interval, wilson
from netsmith.run.recipe import Recipe

Kind = Literal[
    "overfitting", "underfitting", "too short", "rate too high", "rate too low", "nothing learned", "gradients"
]

GAP = 0.05  # between training and validation pictures, beyond chance, from which on it is worth a word
FITTED = 0.9  # share of its training pictures that a network which fits them answers
SHORT_EPOCHS = 10.0  # fewer are short for any network from scratch
FEW_UPDATES = 100  # fewer say little about their rate
STILL_FALLING = 0.03  # share by which the loss of the last fifth lies below the fifth before
ROSE = 1.25  # times the lowest loss before
LEARNED = 0.03  # share of its first loss that a training which learned anything took off
MOVED = 0.1  # share of their own norm by which updates, all in one direction, could have moved the weights
ELSEWHERE = (
    "; of such flags fit has --time alone, and netsmith train has the others: its -c takes the recipe.yaml of this run"
)


@dataclass(frozen=True)
class Lesson:
    """One thing to know about a training.

    Attributes:
        kind: of it.
        text: one sentence: what, the numbers, what to try.
    """

    kind: Kind
    text: str


def lessons(evidence: Evidence, *, pictures: int | None) -> list[Lesson]:
    """What is worth saying about a training; nothing about one that went well.

    Args:
        evidence: of the run.
        pictures: validation pictures, None where no file says.
    """
    found = _found(evidence, pictures=pictures)
    if evidence.command[:1] != ["fit"]:
        return found
    return [replace(each, text=each.text + ELSEWHERE) if "--" in each.text else each for each in found]


def _found(evidence: Evidence, *, pictures: int | None) -> list[Lesson]:
    found: list[Lesson] = []
    if words := in_words(evidence.gradients):
        found.append(Lesson("gradients", words))
    recipe, marks, weights = evidence.recipe, evidence.marks, _weights(evidence)
    sample = next((mark.train for mark in reversed(marks) if mark.train is not None), None)
    val = next((mark.val for mark in reversed(marks) if mark.val is not None), None)
    if marks and marks[-1].progress >= 1.0 and marks[-1].epoch is not None and 0.0 < marks[-1].epoch < 1.0:
        return [*found, _less_than_a_pass(marks[-1].step, marks[-1].epoch)]
    if sample is None or val is None or val.top1 is None or not pictures:
        return found  # not at its end yet, of an older version, or with any number of labels
    seen = wilson(round(sample.top1 * sample.n), sample.n)
    unseen = wilson(round(val.top1 * pictures), pictures)
    gap = difference(seen, unseen)
    if gap.low > GAP:
        return [*found, _overfitting(seen, unseen, marks, recipe, weights)]
    if seen.high < FITTED:
        rewinds = sum(row.kind == "lr_factor" for row in evidence.plan)
        rate = _rate(seen, marks, evidence.gradients, recipe, rewinds=rewinds)
        return [*found, rate or _underfitting(seen, unseen, marks, recipe, weights)]
    return found


def difference(a: Interval, b: Interval) -> Interval:
    """a - b of two independent shares with its interval (Newcombe 1998, method 10)."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value=value, low=low, high=high, n=min(a.n, b.n))


def _less_than_a_pass(step: int, epochs: float) -> Lesson:
    updates = "1 update is" if step == 1 else f"{step:,} updates are"
    return Lesson(
        "too short",
        f"too short: {updates} {percent(epochs)} of one pass over the training pictures; try "
        f"--epochs {SHORT_EPOCHS:.0f} or {float(f'{SHORT_EPOCHS / epochs:.1g}'):,.0f} times the --time",
    )


def _answers(seen: Interval, unseen: Interval) -> str:
    return (
        f"{percent(seen.value)} ({bounds(seen)}) of its training pictures, without augmentation, and "
        f"{percent(unseen.value)} ({bounds(unseen)}) of the validation pictures"
    )


def _overfitting(
    seen: Interval, unseen: Interval, marks: Sequence[Mark], recipe: Recipe | None, weights: Sequence[str]
) -> Lesson:
    losses = [(mark, mark.val.loss) for mark in marks if mark.val is not None and mark.val.loss is not None]
    rose = ""
    if losses:
        best, lowest = min(losses, key=lambda pair: pair[1])
        last = losses[-1][1]
        if last > 1.1 * lowest and best.progress < 0.8:
            where = f"epoch {best.epoch:.1f}" if best.epoch is not None else f"{100 * best.progress:.0f} %"
            rose = f"; the validation loss was lowest at {where} ({figures(lowest)}) and ended at {figures(last)}"
    ways: list[str] = []
    if recipe is None or recipe.auto_augment == "none":
        ways.append("--auto-augment trivialaugment")
    if recipe is None or not (recipe.mixup or recipe.cutmix):
        ways.append("--mixup 0.2")
    ways += [*weights, "a smaller network", "more pictures"]
    return Lesson(
        "overfitting",
        f"overfitting: the network gets right {_answers(seen, unseen)}{rose}; try {_or(ways)}",
    )


def _underfitting(
    seen: Interval, unseen: Interval, marks: Sequence[Mark], recipe: Recipe | None, weights: Sequence[str]
) -> Lesson:
    epochs = next((mark.epoch for mark in reversed(marks) if mark.epoch is not None), None)
    before, after = _fifths(marks)
    falling = before is not None and after is not None and after < (1 - STILL_FALLING) * before
    what = f"underfitting: the network gets right only {_answers(seen, unseen)}"
    few = marks[-1].step < FEW_UPDATES
    if epochs is not None and (epochs < SHORT_EPOCHS or falling or few):
        length = f"{figures(epochs)} epochs" + (f" of {marks[-1].step} updates together" if few else "")
        fell = f", and the loss still fell from {figures(before or 0)} to {figures(after or 0)}" if falling else ""
        ways = [f"--epochs {_more(epochs)} or as much more --time", *weights]
        return Lesson("too short", f"{what}; {length} are short{fell}; try {_or(ways)}")
    ways = []
    if recipe is not None:
        strong = [
            ("--auto-augment", recipe.auto_augment != "none"),
            ("--mixup", recipe.mixup),
            ("--cutmix", recipe.cutmix),
            ("--random-erase", recipe.random_erase),
            ("--drop-path", recipe.drop_path),
            ("--drop", recipe.drop_rate),
        ]
        if used := [flag for flag, so in strong if so]:
            ways.append(f"less of {_or(used)}")
    ways += ["a larger network", "another --lr (netsmith train --find-lr suggests one)"]
    return Lesson("underfitting", f"{what}; try {_or(ways)}, and look at the labels")


def _rate(
    seen: Interval, marks: Sequence[Mark], gradients: Sequence[GradientRow], recipe: Recipe | None, *, rewinds: int
) -> Lesson | None:
    """What a training that fits badly owes to its rate, None where nothing says so."""
    losses = [(mark, mark.loss) for mark in marks if mark.loss is not None]
    if recipe is None or len(losses) < 5:
        return None
    lr = f"the learning rate {recipe.lr:g}"
    fits = f"the network gets right only {percent(seen.value)} of its own training pictures"
    if rewinds:
        times = "once" if rewinds == 1 else f"{rewinds} times"
        return Lesson(
            "rate too high",
            f"{lr} is too high: the loss was not finite {times}, and {fits}; try --lr {recipe.lr / 4:.1g} or "
            "--clip-grad 1",
        )
    first, last = losses[0][1], fmean(loss for _, loss in losses[-max(1, len(losses) // 10) :])
    lowest, rise = losses[0], (1.0, losses[0], losses[0])
    for mark, loss in losses[1:]:
        if mark.side != lowest[0].side or loss < lowest[1]:
            lowest = mark, loss  # pictures of another side have another loss
        elif loss > rise[0] * lowest[1] > 0:
            rise = loss / lowest[1], lowest, (mark, loss)
    if rise[0] > ROSE:
        (low_at, low), (high_at, high) = rise[1:]
        return Lesson(
            "rate too high",
            f"{lr} is too high: the training loss rose from {figures(low)} at step {low_at.step:,} to {figures(high)} "
            f"at step {high_at.step:,}, and {fits}; try --lr {recipe.lr / 4:.1g}, --clip-grad 1, or netsmith train "
            "--find-lr, which suggests one",
        )
    if marks[-1].step < FEW_UPDATES:
        return None
    moved = _moved(marks, gradients, recipe)
    if moved is not None and moved < MOVED:
        return Lesson(
            "rate too low",
            f"{lr} is too low: all {marks[-1].step:,} updates together could change the weights by {percent(moved)} of "
            f"their size at most, and {fits}; try --lr {10 * recipe.lr:.1g}, or netsmith train --find-lr, which "
            "suggests one",
        )
    if last > (1 - LEARNED) * first:
        return Lesson(
            "nothing learned",
            f"next to nothing was learned: the training loss went from {figures(first)} to {figures(last)}, and "
            f"{fits}; netsmith train --find-lr shows which learning rates this network learns at",
        )
    return None


def _moved(marks: Sequence[Mark], gradients: Sequence[GradientRow], recipe: Recipe) -> float | None:
    """How far updates could have moved the weights against their size, had all gone in one direction; of SGD, whose
    steps are the gradient times the rate."""
    rates = [mark.lr for mark in marks if mark.lr is not None]
    shares = [share for row in gradients for layer in row.layers if (share := layer.share) is not None]
    if recipe.opt != "sgd" or not rates or not shares:
        return None
    return marks[-1].step * fmean(rates) / (1 - recipe.momentum) * median(shares)


def _fifths(marks: Sequence[Mark]) -> tuple[float | None, float | None]:
    """Mean training loss of the last fifth but one and of the last."""
    last = [mark.loss for mark in marks if mark.loss is not None and mark.progress > 0.8]
    before = [mark.loss for mark in marks if mark.loss is not None and 0.6 < mark.progress <= 0.8]
    return (fmean(before) if before else None), (fmean(last) if last else None)


def _weights(evidence: Evidence) -> list[str]:
    """Published weights as a way, where the network has some and did not begin with them; for verbs that can."""
    recipe, trains = evidence.recipe, evidence.command[:1] in (["train"], ["fit"])
    found = trains and recipe is not None and recipe.from_scratch and has_weights(recipe.model)
    return ["--pretrained weights"] if found else []


def _more(epochs: float) -> str:
    return f"{float(f'{max(3 * epochs, SHORT_EPOCHS):.1g}'):.0f}"


def _or(ways: Sequence[str]) -> str:
    return ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])} or {ways[-1]}"
