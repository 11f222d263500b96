"""`torchrun -m netsmith train` as a person types it, with workers that are stopped and killed, on one machine and as on
several."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from processes import free_port

from netsmith.run.files import read_jsonl, sha256_file

pytestmark = pytest.mark.slow

NETWORK = ["train", "digits", "--model", "resnet8_cifar", "-b", "65", "--ema", "0.99"]
TYPED = [*NETWORK, "--epochs", "12"]
PATIENCE = 900.0  # seconds, on a busy machine


STANDALONE = ("--standalone", "--nproc-per-node", "2")


@contextmanager
def torchrun(
    run: Path, *options: str, typed: Sequence[str] = TYPED, place: Path | None = None
) -> Generator[subprocess.Popen[str]]:
    """An agent with its processes; `place` stands for a machine with a disk of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "netsmith", *typed, "-o", str(run)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | ({} if place is None else {"NETSMITH_CACHE": str(place / "cache")}),
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()  # which takes its processes along, where it is still there
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def worker(launcher: int, *, restart: int) -> int | None:
    """The process with LOCAL_RANK 1 that a launcher started after so many restarts."""
    wanted = {b"LOCAL_RANK=1", f"TORCHELASTIC_RESTART_COUNT={restart}".encode()}
    for folder in Path("/proc").iterdir():
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(launcher) and wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                return int(folder.name)
        except (OSError, IndexError):
            continue
    return None


def hit(process: subprocess.Popen[str], number: signal.Signals, *, restart: int) -> None:
    until(lambda: worker(process.pid, restart=restart))
    found = worker(process.pid, restart=restart)
    assert found is not None
    os.kill(found, number)


def test_a_world_that_lost_workers_starts_again_and_comes_to_the_same_weights(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with torchrun(whole, *STANDALONE) as process:
        said, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        assert said.count("top-1 val") == 1  # one process speaks
    with torchrun(broken, *STANDALONE, "--max-restarts", "3") as process:
        until(lambda: any(row["kind"] == "total_steps" for row in read_jsonl(broken / "plan.jsonl")))
        hit(process, signal.SIGTERM, restart=0)  # a checkpoint, then all start again
        until(lambda: worker(process.pid, restart=1))
        assert any((broken / "checkpoints").glob("step-*.json"))
        time.sleep(5.0)  # import, audit, some updates
        hit(process, signal.SIGKILL, restart=1)
        said, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        assert "stopped by SIGTERM; the checkpoint of step" in errors
    assert sha256_file(broken / "model/model.safetensors") == sha256_file(whole / "model/model.safetensors")


def test_a_divided_run_that_was_stopped_goes_on_in_one_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with torchrun(run, *STANDALONE, typed=[*TYPED, "--sharded"]) as process:
        until(lambda: read_jsonl(run / "metrics.jsonl"))  # both train
        hit(process, signal.SIGTERM, restart=0)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, errors
        assert "stopped by SIGTERM; the checkpoint of step" in errors
    alone = [sys.executable, "-m", "netsmith", *TYPED, "--resume", "-o", str(run)]
    refused = subprocess.run(alone, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "start them with torchrun (docs/many-devices.md), or give --no-sharded" in refused.stderr
    subprocess.run([*alone, "--no-sharded"], check=True, capture_output=True, text=True)
    assert (run / "results.json").exists()


@pytest.mark.parametrize("processes", [(1, 1), (2, 1)])
def test_agents_of_several_machines_train_what_one_agent_does(tmp_path: Path, processes: tuple[int, ...]) -> None:
    typed = [*NETWORK, "--epochs", "2", "--threads", "1"]
    with torchrun(tmp_path / "one", "--standalone", f"--nproc-per-node={sum(processes)}", typed=typed) as process:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    places = [tmp_path / f"machine-{number}" for number in range(len(processes))]
    where = ["--nnodes", str(len(processes)), "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    with ExitStack() as agents:
        started: list[subprocess.Popen[str]] = []
        for rank, (place, count) in enumerate(zip(places, processes, strict=True)):
            place.mkdir()
            options = [*where, "--node-rank", str(rank), "--nproc-per-node", str(count)]
            started.append(agents.enter_context(torchrun(Path("run"), *options, typed=typed, place=place)))
        said = [process.communicate(timeout=PATIENCE) for process in started]
        assert [process.returncode for process in started] == [0] * len(processes), said
    assert [out.count("top-1 val") for out, _ in said] == [1, 0]  # one process speaks
    assert [(place / "run").exists() for place in places] == [True, False]  # and writes the run
    assert all(list((place / "cache").rglob("*.pixels")) for place in places)  # each machine decodes for itself
    weights = [sha256_file(run / "model/model.safetensors") for run in (tmp_path / "one", places[0] / "run")]
    assert weights[0] == weights[1]
