"""What is seen of a training: how far it is, what the network answers on validation, and the rows that record it.

Nothing here changes a weight, so when it happens is left to the clock and is not planned. Rows come at fixed marks of
progress; those at which validation pictures are answered are synced to the disk, the others, of which there are more,
are not waited for.

At its end a training also answers a sample of its own training pictures, prepared as validation pictures are: only so
can the two accuracies be compared, because what is seen in training is augmented and the network still changes.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.data.items import UNLABELLED, Targets
from netsmith.data.prepare import prepare
from netsmith.errors import InputError
from netsmith.run.clock import Clock
from netsmith.run.progress import Progress
from netsmith.run.scores import are_tags
from netsmith.train.draws import permutation, stream_key
from netsmith.train.evaluate import Evaluation, evaluate_together
from netsmith.train.feed import TrainingData
from netsmith.train.metrics import Metrics
from netsmith.train.pacing import Pacing
from netsmith.train.planning import Planner
from netsmith.train.ranks import ALONE, Ranks
from netsmith.train.records import Records
from netsmith.train.state import State

ROWS = 50  # of a training, at least; fewer only where it has fewer updates
SAMPLE = 1000  # training pictures answered at the end, at most, never more than there are validation pictures
SAMPLE_BYTES = 64_000_000  # of them
SAMPLED_FROM = 0.1  # progress after which they are prepared: inside the time that is planned


class Watching:
    """The eyes on one training.

    Args:
        state: of the training.
        metrics: what its updates give.
        records: where rows go.
        data: whose validation pictures are answered.
        planner, pacing: of the run.
        clock: reads time.
        rate: the learning rate at a step.
        steps_per_epoch: updates that one pass over the pictures takes.
        evaluations: wanted, at equal steps of progress, the last one included.
        show: told how far training is.
        warn: told what went wrong without stopping training.
        ranks: the processes that train together, of which each answers a part.
    """

    def __init__(
        self,
        state: State,
        metrics: Metrics,
        records: Records,
        *,
        data: TrainingData,
        planner: Planner,
        pacing: Pacing,
        clock: Clock,
        rate: Callable[[float], float],
        steps_per_epoch: float,
        evaluations: int,
        show: Progress,
        warn: Callable[[str], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self._state, self._metrics, self._records, self._data = state, metrics, records, data
        self._ranks = ranks
        self._planner, self._pacing, self._clock = planner, pacing, clock
        self._rate, self._steps_per_epoch = rate, steps_per_epoch
        self._evaluations = evaluations
        self._rows = evaluations * -(-ROWS // evaluations)
        self._show, self._warn = show, warn
        self._evaluated: tuple[int, Evaluation] | None = None
        self._last_row: dict[str, Any] = {}
        self._samples = len(data.val_labels) > 0 and not are_tags(data.labels)
        if self._samples:
            count = len(data.val_labels)
            pacing.last_evaluations = 1.0 + self._sample_size / count

    @property
    def _step(self) -> int:
        return self._state.step

    @property
    def evaluation_due(self) -> bool:
        """Whether the update just made came to a mark at which validation pictures are answered, and time allows it."""
        return self._passed(self._evaluations) and self._pacing.can_evaluate

    def _passed(self, parts: int) -> bool:
        """Whether the update just made came to one of so many equal marks of progress; the end is none of them."""
        before, after = self._planner.progress(self._step - 1), self._planner.progress(self._step)
        return after < 1.0 and math.floor(after * parts) > math.floor(before * parts)

    def look(self) -> None:
        """After every update: show how far training is, and write a row where one is due."""
        done, step = self._planner.progress(self._step), self._step
        evaluations = 1 + math.floor((1.0 - done) * self._evaluations)
        left = self._pacing.left(self._planner.total(step) - step, evaluations=evaluations)
        self._show("training", done, 1.0, self._note(), left=left)
        if self._passed(self._rows):
            if not self.evaluation_due:  # which writes its own row
                self._write()
            if done >= SAMPLED_FROM and self._samples:
                _ = self._sample

    def _note(self) -> str:
        step, total = self._step, self._planner.total(self._step)
        parts = [f"step {step} of {total}", f"epoch {step / self._steps_per_epoch:.1f}"]
        if (loss := self._metrics.loss) is not None:
            parts.append(f"loss {loss:.3f}")
        if (top1 := self._metrics.top1) is not None:
            parts.append(f"top-1 {100 * top1:.1f} %")
        if self._evaluated is not None:
            parts.append(f"val {self._evaluated[1].shown}")
        if pace := self._images_per_second:
            parts.append(f"{pace:,.0f} images/s")
        return ", ".join(parts)

    @property
    def _images_per_second(self) -> float | None:
        pace = self._pacing.recent
        return len(self._data.labels) / self._steps_per_epoch / pace if pace else None

    def evaluate(self) -> Evaluation | None:
        """Answers of the network as it stands on the validation pictures, recorded in the metrics.

        Returns:
            The answers; those of an earlier call at the same step; None where there are no validation pictures.
        """
        data = self._data
        if not len(data.val_labels):
            return None
        answered: dict[str, Any] = {}
        if self._evaluated is None or self._evaluated[0] != self._step:
            began = self._clock.now()
            found = self._answers(data.val_pixels, data.val_labels)
            self._pacing.evaluated(self._clock.now() - began)
            self._evaluated = (self._step, found)
            answered["val"] = found.points
        if self._ends_unsampled and all(self._ranks.gathered(self._sample is not None)):
            assert self._sample is not None
            found = self._answers(*self._sample)
            answered["train"] = {"top1": found.top1.value, "loss": found.loss, "n": found.top1.n}
        if answered:
            self._write(**answered)
        return self._evaluated[1]

    @property
    def _ends_unsampled(self) -> bool:
        """Whether training is over and what it knows of its own pictures is not written yet."""
        written = self._last_row.get("step") == self._step and "train" in self._last_row
        return self._samples and self._step >= self._planner.total(self._step) and not written

    def _answers(self, pixels: NDArray[np.uint8], labels: Targets) -> Evaluation:
        preprocess = self._data.preprocess
        return evaluate_together(
            self._state.final,
            pixels,
            labels,
            mean=preprocess.mean,
            std=preprocess.std,
            ranks=self._ranks,
            jointly=self._state.division.joint,
        )

    @property
    def _sample_size(self) -> int:
        data = self._data
        room = SAMPLE_BYTES // (3 * data.preprocess.size**2)
        return min(len(self._labelled), len(data.val_labels), SAMPLE, max(1, room))

    @cached_property
    def _labelled(self) -> NDArray[np.int64]:
        """int64 [n], the training pictures that have a label."""
        return np.flatnonzero(self._data.labels != UNLABELLED)

    @cached_property
    def _sample(self) -> tuple[NDArray[np.uint8], Targets] | None:
        """Training pictures without augmentation and their labels; None, said aloud, where one is gone."""
        data = self._data
        order = permutation(stream_key(0, "sample", 0), len(self._labelled))
        chosen = np.sort(self._labelled[order[: self._sample_size]])
        try:
            pixels = np.stack([prepare(data.images[index], data.preprocess) for index in chosen.tolist()])
        except InputError as error:
            self._warn(f"what the network knows of its training pictures is not measured: {error}")
            return None
        return pixels, data.labels[chosen]

    def _write(self, **answered: Any) -> None:
        """Append a row of what training came to since the one before; answers join one that the step has already."""
        step = self._step
        row = {
            "time": self._clock.wall(),
            "step": step,
            "progress": self._planner.progress(step),
            "epoch": step / self._steps_per_epoch,
            "lr": self._rate(max(0.0, step - 0.5)),  # of the update that was made
            "seconds": self._pacing.elapsed,
            "images_per_s": self._images_per_second,
            **self._metrics.row(),
        }
        if self._last_row.get("step") == step:
            row |= {key: value for key, value in self._last_row.items() if row.get(key) is None}
        self._last_row = row | answered
        self._records.note(step, self._last_row)

    def forget(self) -> None:
        """Drop what was seen: the state is another now."""
        self._metrics.forget()
        self._evaluated = None
        self._last_row = {}
