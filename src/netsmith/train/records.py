"""What training leaves on the disk: checkpoints, rows of metrics and of gradients. A full disk is a warning and never
stops it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from netsmith.errors import InputError
from netsmith.run.files import append_jsonl, read_jsonl, sync_file, write_text
from netsmith.train.checkpoints import FULL_DISK, Checkpoint, Identity, load_checkpoint, save_checkpoint
from netsmith.train.ranks import ALONE, Ranks

Follow = Callable[[Mapping[str, Any]], None]
"""Takes rows of metrics."""
ANSWERS = frozenset({"val", "train"})
"""Keys of a row of metrics under which the network's answers stand."""


class Records:
    """The files of one training.

    Args:
        checkpoints: folder of checkpoints, or None to write none.
        metrics: `metrics.jsonl`, or None to write none.
        identity: of the training, for its checkpoints.
        warn: told that the disk is full, or a checkpoint damaged.
        ranks: the processes that train together, of which the leading one writes and reads for all.
        follow: given every row of metrics as it is written, or None.

    Attributes:
        saved: step of the newest checkpoint, -1 while there is none.
    """

    def __init__(
        self,
        checkpoints: Path | None,
        metrics: Path | None,
        *,
        identity: Identity,
        warn: Callable[[str], None],
        ranks: Ranks = ALONE,
        follow: Follow | None = None,
    ) -> None:
        self._ranks = ranks
        self._checkpoints, self._metrics = checkpoints, metrics
        self._gradients = metrics and metrics.with_name("gradients.jsonl")
        self._identity, self._warn, self._follow = identity, warn, follow
        self._noted = -1, 0  # newest step with a row of metrics, and how many kinds of answers that has
        self._noted_gradients = -1
        self._waiting: list[tuple[Path, dict[str, Any]]] = []  # rows that found no room
        self.saved = -1

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether checkpoints are written."""
        return self._checkpoints is not None

    def note(self, step: int, row: Mapping[str, Any]) -> None:
        """Append a row of metrics, unless the step has one that holds as many kinds of answers; one for which there is
        no room waits.
        """
        answers = len(row.keys() & ANSWERS)
        if self._metrics is None or (step, answers) <= self._noted or not self._ranks.leads:
            return
        self._noted = step, answers
        self._waiting.append((self._metrics, dict(row)))
        self._append_waiting(step)
        if self._follow is not None:
            self._follow(row)

    def note_gradients(self, step: int, row: Mapping[str, Any]) -> None:
        """Append a row of `gradients.jsonl` beside the metrics, unless the step has one."""
        if self._gradients is None or step <= self._noted_gradients or not self._ranks.leads:
            return
        self._noted_gradients = step
        self._waiting.append((self._gradients, dict(row)))
        self._append_waiting(step)

    def _append_waiting(self, step: int) -> None:
        while self._waiting:
            path, row = self._waiting[0]
            try:
                append_jsonl(path, row, sync=path == self._gradients or bool(row.keys() & ANSWERS))
            except OSError as error:
                self._survive_full_disk(error, path, step)
                return
            self._waiting.pop(0)

    def settle(self, step: int) -> None:
        """Append the rows that wait at the last step.

        Raises:
            InputError: there still is no room for them.
        """
        self._ranks.once(lambda: self._settle(step))

    def _settle(self, step: int) -> None:
        self._append_waiting(step)
        if self._waiting:
            raise InputError(f"no space left for {self._waiting[0][0]}; free some and go on with --resume")

    def forget_after(self, step: int) -> None:
        """Drop rows after a step: training goes back to it and comes to others."""
        if not self._ranks.leads:
            return
        for path, last in ((self._metrics, step), (self._gradients, step - 1)):  # gradients are those of an update
            if path is None:
                continue
            self._waiting = [(to, row) for to, row in self._waiting if to != path or row["step"] <= last]
            if not path.exists():
                continue
            kept = [row for row in read_jsonl(path) if row["step"] <= last]
            try:
                write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in kept))
            except OSError as error:
                self._survive_full_disk(error, path, step)
        self._read_noted()

    def _read_noted(self) -> None:
        if self._metrics is None or self._gradients is None:
            return
        rows, looks = (
            [*read_jsonl(path), *(row for to, row in self._waiting if to == path)]
            for path in (self._metrics, self._gradients)
        )
        self._noted = max(((int(row["step"]), len(row.keys() & ANSWERS)) for row in rows), default=(-1, 0))
        self._noted_gradients = max((int(row["step"]) for row in looks), default=-1)

    def save(self, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Write a checkpoint, unless rows of metrics before it wait: a run that went on from it would lack them."""
        self.saved = self._ranks.once(lambda: self._save(step, tensors, numbers))

    def _save(self, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> int:
        assert self._checkpoints is not None, "where none are kept none is saved"
        self._append_waiting(step)
        if self._waiting:
            return self.saved
        for path in (self._metrics, self._gradients):  # rows are not synced one by one
            if path is not None and path.exists():
                sync_file(path)
        try:
            save_checkpoint(self._checkpoints, step=step, tensors=tensors, identity=self._identity, state=numbers)
        except OSError as error:
            self._survive_full_disk(error, self._checkpoints, step)
            return self.saved
        return step

    def newest(self, shapes: Mapping[str, tuple[int, ...]]) -> Checkpoint | None:
        """The newest whole checkpoint to go on from, None without any; what metrics hold is not noted again.

        Args:
            shapes: of the network's tensors.

        Raises:
            InputError: it belongs to another recipe, other data or another network, or all are damaged.
        """
        found = self._ranks.once(lambda: self._newest(shapes))
        if found is not None:
            self.saved = found.step
        return found

    def _newest(self, shapes: Mapping[str, tuple[int, ...]]) -> Checkpoint | None:
        self._read_noted()
        if self._checkpoints is None:
            return None
        return load_checkpoint(self._checkpoints, identity=self._identity, shapes=shapes, warn=self._warn)

    @property
    def kept(self) -> str:
        """Which checkpoint is good, for messages."""
        return f"the checkpoint of step {self.saved} is good" if self.saved >= 0 else "there is no checkpoint yet"

    def how_to_go_on(self, step: int) -> str:
        """What to do after a stop at a step."""
        if self._checkpoints is None:
            return f"training ended at step {step} without a checkpoint"
        if self.saved < 0:
            return "no checkpoint could be written; start again"
        return f"the checkpoint of step {self.saved} is in {self._checkpoints}; go on with --resume"

    def _survive_full_disk(self, error: OSError, path: Path, step: int) -> None:
        if error.errno not in FULL_DISK:
            raise error
        kept = f"the checkpoint of step {self.saved} stays" if self.saved >= 0 else "there is no checkpoint yet"
        self._warn(f"no space left in {path} at step {step}: {kept}; training goes on, free some space")
