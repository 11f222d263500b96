"""A candidate in training: its recipe, its folder, its trainer, and what it answers on validation.

    candidates/ID/   recipe.yaml  plan.jsonl  metrics.jsonl  checkpoints/  model/

A racer is made when it is first needed, so a resumed run builds only those that still run. Everything it does is a
function of its recipe, the data and its plan rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from netsmith.data.items import Targets
from netsmith.data.masters import Masters
from netsmith.fit.field import Entry
from netsmith.fit.finish import Finisher
from netsmith.run.clock import Clock
from netsmith.run.metrics import Interval, top_k_correct
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress
from netsmith.run.recipe import Recipe
from netsmith.run.scores import are_tags
from netsmith.run.tagging import map_replicates
from netsmith.search.race import Answers, AveragePrecision, RightAnswers, Standing

if TYPE_CHECKING:
    from netsmith.train.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class Track:
    """What all racers share.

    Attributes:
        finisher: exports, and knows run and data set.
        masters: training pictures.
        recipe: of a candidate, by its entry and the seconds it may train.
        preprocess: of a candidate, by its side in pixels.
        clock: reads time.
        show: told how far training is.
        warn: told what went wrong without stopping training.
    """

    finisher: Finisher
    masters: Masters
    recipe: Callable[[Entry], Recipe]
    preprocess: Callable[[int], Preprocess]
    clock: Clock
    show: Progress
    warn: Callable[[str], None]


class Racer:
    """One candidate.

    Args:
        entry: what it is.
        track: what it shares with the others.
        seconds: until all training must be over; only its first making in a run looks at it.

    Raises:
        NoMemory: there is none to train it.
    """

    def __init__(self, entry: Entry, track: Track, *, seconds: float) -> None:
        from netsmith.models.build import build
        from netsmith.train.feed import TrainingData
        from netsmith.train.shortage import enough_to_begin
        from netsmith.train.trainer import Trainer

        self.entry = entry
        self.track = track
        self.folder: Path = track.finisher.run.candidates / entry.candidate.id
        self.recipe = track.recipe(entry)
        self.preprocess = track.preprocess(self.recipe.img_size)
        self.recipe.save(self.folder / "recipe.yaml")
        validation = track.finisher.prepared("val", self.preprocess)

        def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
            track.show(f"{title} {entry.candidate.id}", done, total, note, left=left)

        self.trainer = enough_to_begin(
            lambda: Trainer(
                build(entry.candidate.layout, seed=self.recipe.seed),
                TrainingData.of(track.masters, validation, self.preprocess),
                self.recipe,
                plan=Plan(self.folder / "plan.jsonl", replayed=track.finisher.replay is not None),
                clock=track.clock,
                seconds=max(seconds, 1.0),
                checkpoints=self.folder / "checkpoints",
                metrics=self.folder / "metrics.jsonl",
                show=show,
                warn=track.warn,
            ),
            mend="close other programs, or give a --budget of fewer params",
        )
        if self.trainer.resume():
            self.trainer.allow(max(seconds, 1.0))

    @property
    def id(self) -> str:
        """The candidate's."""
        return self.entry.candidate.id

    def steps_for(self, seconds: float, *, until: float) -> int:
        """Updates that fit into `seconds`, when all the steps left are planned to take `until` seconds; at least 1."""
        left = max(1, self.trainer.total_steps - self.trainer.step)
        return max(1, round(left * seconds / max(until, 1e-9)))

    def standing(self, *, place: int) -> Standing:
        """Its answers on the validation pictures as it stands; `place` is that of its promise."""
        found = self._evaluated()
        return Standing(
            id=self.id,
            answers=answers(found.logits, found.targets),
            loss=found.loss,
            epochs=self.trainer.epoch,
            place=place,
        )  # fmt: skip

    def headline(self) -> Interval:
        """Top-1 or mAP on validation as it stands."""
        return self._evaluated().headline

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Of tags, chosen on validation as it stands."""
        return self._evaluated().thresholds

    def _evaluated(self) -> "Evaluation":
        found = self.trainer.evaluate()
        assert found is not None, "fit always has validation pictures"
        return found

    def export(self, folder: Path, *, threads: int | None) -> None:
        """Write its artifact as it stands."""
        self.track.finisher.export(
            self.trainer.network,
            folder,
            preprocess=self.preprocess,
            recipe=self.recipe,
            thresholds=self.thresholds,
            threads=threads,
        )


def answers(logits: NDArray[np.float32], targets: Targets) -> Answers:
    """What answers on the validation pictures are worth, as the race compares them."""
    if are_tags(targets):
        return AveragePrecision(map_replicates(logits, targets))
    return RightAnswers(top_k_correct(logits, cast(NDArray[np.int64], targets), k=1))
