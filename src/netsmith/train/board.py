"""Rows of metrics as TensorBoard's event files, for those who watch their runs there.

torch's own writer is used; it needs the package tensorboard, which is imported only when somebody asks for this.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.run.clock import seconds_of
from netsmith.run.files import FULL_DISK

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

SCALARS = {
    "loss/training": ("loss",),
    "loss/validation": ("val", "loss"),
    "top-1/training": ("top1",),
    "top-1/validation": ("val", "top1"),
    "mAP/validation": ("val", "map"),
    "learning rate": ("lr",),
    "gradient norm": ("grad_norm",),
    "images per second": ("images_per_s",),
}
"""Names in TensorBoard, and where their values stand in a row."""


class Board:
    """Event files of one training; use it in a `with` statement.

    Args:
        folder: made with the first row. What an earlier part of the run wrote there beyond that row's step is hidden,
            and so is what a run that was rewound had written beyond the step it is back at.
        warn: told when there is no room for them; training goes on without.
    """

    def __init__(self, folder: Path, *, warn: Callable[[str], None] | None = None) -> None:
        self._folder, self._warn = folder, warn
        self._writer: SummaryWriter | None = None
        self._step = 0  # of the newest row
        self._full = False

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *error: object) -> None:
        with self._while_there_is_room():
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _while_there_is_room(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            self._writer, self._full = None, True
            if self._warn is not None:
                self._warn(f"no space left in {self._folder}: TensorBoard sees no more of this run, training goes on")

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics."""
        if not self._full:
            with self._while_there_is_room():
                self._write(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        if self._writer is not None and row["step"] < self._step:  # only a new file can hide what others hold
            self._writer.close()
            self._writer = None
        self._step = row["step"]
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=row["step"])
        for name, keys in SCALARS.items():
            value: Any = row
            for key in keys:
                value = value.get(key) if value is not None else None
            if value is not None:
                self._writer.add_scalar(name, value, row["step"], walltime=seconds_of(row["time"]))
        if "val" in row:
            self._writer.flush()
