"""Event files for TensorBoard: with a stand-in for torch's writer, as the package is optional, and once with it."""

import errno
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from tiny_training import tiny_data, tiny_network, tiny_recipe

from netsmith.cli.main import run as netsmith
from netsmith.run.clock import SystemClock
from netsmith.run.files import read_jsonl
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.train.board import Board
from netsmith.train.loop import train


class Writer:
    """Remembers what it is told."""

    made: ClassVar[list["Writer"]] = []

    def __init__(self, folder: str, *, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.closed = False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int, *, walltime: float) -> None:
        assert walltime > 1.6e9
        self.scalars.setdefault(name, []).append((step, value))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_every_row_goes_to_the_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in: Any = ModuleType("torch.utils.tensorboard.writer")
    stand_in.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", ModuleType("torch.utils.tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", stand_in)
    with RunFolder.create(tmp_path / "run", command=["train"]) as run:
        train(tiny_network(), tiny_data(), tiny_recipe(), run=run, plan=Plan(run.plan), clock=SystemClock(), board=True)
        [writer] = Writer.made
        rows = read_jsonl(run.metrics)
        assert (writer.folder, writer.purge_step, writer.closed) == (str(run.boards), rows[0]["step"], True)
        assert writer.scalars["loss/training"] == [(row["step"], row["loss"]) for row in rows]
        assert writer.scalars["top-1/validation"] == [(row["step"], row["val"]["top1"]) for row in rows if "val" in row]


def test_a_run_that_is_rewound_hides_what_it_had_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in: Any = ModuleType("torch.utils.tensorboard.writer")
    stand_in.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", ModuleType("torch.utils.tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", stand_in)
    monkeypatch.setattr(Writer, "made", [])
    with Board(tmp_path) as board:
        for step in (10, 20, 20, 30, 15, 25):
            board.write({"step": step, "time": "2026-01-01T00:00:00+00:00", "loss": 1.0})
    assert [(writer.purge_step, writer.closed) for writer in Writer.made] == [(10, True), (15, True)]


def test_a_full_disk_ends_the_board_and_nothing_else(tmp_path: Path) -> None:
    class Full(Writer):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    said: list[str] = []
    row = {"step": 1, "time": "2026-01-01T00:00:00+00:00", "loss": 1.0, "val": {"loss": 1.0, "top1": 0.5}}
    with Board(tmp_path, warn=said.append) as board:
        board._writer = Full("folder", purge_step=0)  # pyright: ignore
        board.write(row)
        board.write(row)
    assert ["TensorBoard sees no more of this run" in text for text in said] == [True]


def test_without_the_package_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("netsmith.cli.train.find_spec", lambda name: None)
    out = tmp_path / "run"
    assert (
        netsmith(["train", "digits", "--model", "resnet20_cifar", "--epochs", "1", "--tensorboard", "-o", str(out)])
        == 2
    )
    assert capsys.readouterr().err == (
        "netsmith: train needs the package tensorboard; pip install 'netsmith[tensorboard]'\n"
    )
    assert not out.exists()


@pytest.mark.slow
def test_tensorboard_itself_reads_what_a_run_wrote(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the package tensorboard is not installed (pip install 'netsmith[tensorboard]')",
    )
    out = tmp_path / "run"
    command = ["train", "digits", "--model", "resnet8_cifar@0.5", "--epochs", "2", "--threads", "1", "-q"]
    typed = [sys.executable, "-m", "netsmith", *command, "--tensorboard", "-o", str(out)]
    subprocess.run(typed, check=True, capture_output=True)
    events = accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    rows = read_jsonl(out / "metrics.jsonl")
    validated = [row for row in rows if "val" in row]
    assert validated
    for name, expected in {
        "loss/training": [(row["step"], row["loss"]) for row in rows],
        "learning rate": [(row["step"], row["lr"]) for row in rows],
        "top-1/validation": [(row["step"], row["val"]["top1"]) for row in validated],
        "loss/validation": [(row["step"], row["val"]["loss"]) for row in validated],
    }.items():
        found = events.Scalars(name)
        assert [each.step for each in found] == [step for step, _ in expected], name
        assert [each.value for each in found] == pytest.approx([value for _, value in expected], rel=1e-6), name
