"""`train --find-lr`: a learning rate for a network, a set of pictures and a recipe, before any run is begun."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from netsmith.data.masters import encoding_that_fits, masters
from netsmith.fit.composing import refuse_taught
from netsmith.fit.job import TrainJob, open_job
from netsmith.fit.opening import MASTER_MARGIN, refuse_inside
from netsmith.fit.session import Session
from netsmith.report.charts import Series, lines, standalone
from netsmith.run.files import write_text
from netsmith.run.folder import make_output
from netsmith.run.recipe import Recipe

if TYPE_CHECKING:
    from netsmith.train.range_test import Moment, RangeTest

CHART = "lr.svg"
ALIKE = 1.5  # rates whose ratio is below this are about the same


@dataclass(frozen=True)
class FoundRate:
    """What `--find-lr` tells.

    Attributes:
        recipe: that was tried, with the rate it has.
        moment: of the run that it stands for.
        test: what came out.
        chart: the picture that was written, or None.
    """

    recipe: Recipe
    moment: "Moment"
    test: "RangeTest"
    chart: Path | None

    @property
    def lr(self) -> float | None:
        """The `--lr` of a run whose rate at that moment is the suggestion; None where there is none."""
        return None if self.test.suggestion is None else self.test.suggestion / _share(self.recipe, self.moment)

    def document(self) -> dict[str, object]:
        """As one JSON document."""
        test = self.test
        return {
            "model": self.recipe.model,
            "opt": self.recipe.opt,
            "batch_size": self.recipe.batch_size,
            "lr": self.recipe.lr,
            "progress": self.moment.progress,
            "side": self.moment.side,
            "head_only": self.moment.head_only,
            "suggestion": test.suggestion,
            "suggested_lr": self.lr,
            "lowest": test.lowest,
            "exploded": test.exploded,
            "rates": list(test.rates),
            "losses": list(test.losses),
            "smoothed": list(test.smoothed),
            "chart": str(self.chart) if self.chart else None,
        }

    def __str__(self) -> str:
        """In words, a line each."""
        told = [_suggestion(self.recipe, self.test)]
        if self.lr is not None:
            told.append(_standing(self.recipe.lr, self.lr, share=_share(self.recipe, self.moment)))
        told += _stretch(self.recipe, self.moment)
        return "\n".join([*told, *([f"the curve is in {self.chart}"] if self.chart else [])])


def find_rate(job: TrainJob, session: Session, *, folder: Path | None) -> FoundRate:
    """Try rates on a copy of the network that the job would train.

    Args:
        job: what would be trained.
        session: where the pictures are, who is told; its output is not used.
        folder: where `lr.svg` goes, or None for no picture.

    Raises:
        InputError: data, recipe or folder cannot be used; teachers are asked for, whose loss is none of labels.
        CheckError: memory is too small.
    """
    if folder is not None:
        refuse_inside(session.data, folder)
    opened = open_job(job, session, None)
    refuse_taught([("the recipe", opened.recipe.model_dump())])
    for line in opened.audited.summary():
        session.say(line)
    if folder is not None:
        make_output(folder)  # what cannot be written is refused before minutes of work
    recipe, preprocess = opened.recipe, opened.preprocess
    dataset = opened.dataset
    items, side = dataset.subset("train"), round(MASTER_MARGIN * max(recipe.img_size, recipe.train_size or 0))
    pictures = masters(dataset, items, side=side, encoding=encoding_that_fits(items, side=side), warn=session.warn)
    from netsmith.train.feed import TrainingData
    from netsmith.train.range_test import Moment, range_test
    from netsmith.train.shortage import enough_to_begin

    data = TrainingData(
        images=pictures,
        labels=pictures.labels,
        val_pixels=np.zeros((0, recipe.img_size, recipe.img_size, 3), np.uint8),
        val_labels=pictures.labels[:0],
        preprocess=preprocess,
        fingerprint="",
    )
    test = enough_to_begin(lambda: range_test(opened.network, data, recipe, show=session.progress))
    moment, chart = Moment.of(recipe, opened.network), None
    if folder is not None:
        chart = folder / CHART
        write_text(chart, _chart(recipe, test, moment))
    return FoundRate(recipe, moment, test, chart)


def _suggestion(recipe: Recipe, test: "RangeTest") -> str:
    first, last = test.rates[0], test.rates[-1]
    if test.suggestion is None:
        return (
            f"the loss of {recipe.model} did not fall at any learning rate from {first:.0e} to {last:.1g}; "
            "try another --opt or --batch-size, and look at the labels"
        )
    end = f"explodes above {last:.2g}" if test.exploded else f"does not explode up to {last:.2g}"
    return (
        f"learning rate {test.suggestion:.2g}: there the loss of {recipe.model} falls steepest with {recipe.opt} and "
        f"batches of {recipe.batch_size}; it is lowest at {test.lowest:.2g} and {end}"
    )


def _share(recipe: Recipe, moment: "Moment") -> float:
    """Of the recipe's rate, what its schedule takes at that moment."""
    from netsmith.train.schedules import rate_factor

    return rate_factor(recipe, moment.progress)


def _standing(rate: float, suggestion: float, *, share: float) -> str:
    """How the recipe's rate compares with the one that becomes what was found."""
    ratio, left = rate / suggestion, f", of which {share:.0%} is left by then," if share < 0.995 else ""
    if 1 / ALIKE < ratio < ALIKE:
        return f"the recipe's {rate:g}{left} is about the same"
    times = f"{ratio:.2g} times as high" if ratio > 1 else f"{1 / ratio:.2g} times lower"
    return f"the recipe's {rate:g}{left} is {times}; give --lr {suggestion:.2g} to try the other"


def _stretch(recipe: Recipe, moment: "Moment") -> list[str]:
    """Which stretch of a run that changes on its way the rate is for."""
    told: list[str] = []
    if moment.head_only:
        told.append("only the classifier learned, as in the run (--head-first 1)")
    elif recipe.head_first:
        told.append(
            f"all layers learned: the rate is for what follows the first {recipe.head_first:.0%} of training, in which "
            "only the classifier does"
        )
    if moment.side is not None:
        told.append(
            f"pictures had {moment.side} of {recipe.train_size or recipe.img_size} pixels, as they have at "
            f"{moment.progress:.0%} of training, where "
            + ("all layers begin to learn" if moment.progress > recipe.warmup else "that rate is highest")
        )
    return told


def _chart(recipe: Recipe, test: "RangeTest", moment: "Moment") -> str:
    bottom = int(np.argmin(test.smoothed))
    top = 1.2 * max(test.smoothed[: bottom + 1])
    above = next((place for place in range(bottom, len(test.rates)) if test.smoothed[place] > top), len(test.rates))
    rates = test.rates[:above]  # what explodes would flatten all else
    low, high = min(test.smoothed), top
    marks = [("the recipe's rate", recipe.lr * _share(recipe, moment), 2)]
    if test.suggestion is not None:
        marks.append(("steepest fall", test.suggestion, 3))
    return standalone(
        lines(
            [
                Series(title="loss", x=rates, y=[min(loss, top) for loss in test.losses[:above]], colour=5),
                Series(title="smoothed", x=rates, y=test.smoothed[:above], colour=0),
                *(
                    Series(title=title, x=(at, at), y=(low, high), colour=colour, dashed=True)
                    for title, at, colour in marks
                ),
            ],
            name="lr",
            across="learning rate",
            label="training loss",
            about=f"Training loss of {recipe.model} at rising learning rates",
            log_x=True,
        )
    )
