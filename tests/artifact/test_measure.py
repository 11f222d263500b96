import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artifact_models import colour_model, write_colours

from netsmith.artifact import process
from netsmith.artifact.latency import Measurement, fewest_threads, noise_of, p90_interval, settled
from netsmith.artifact.measure import measure, measure_many, preferred_threads, thread_counts
from netsmith.errors import CheckError, InputError
from netsmith.run.alone import alone
from netsmith.run.clock import FakeClock
from netsmith.run.progress import silent

PLAIN = Measurement(
    p50_ms=1.0,
    p90_ms=1.1,
    low=1.0,
    high=1.2,
    noise=0.0,
    peak_memory_bytes=None,
    threads=1,
    runtime="onnxruntime",
    warmup=3,
    runs=100,
    resize_ms=None,
)


def worker_children() -> set[int]:
    """Processes of this one that run the worker."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if b"netsmith.artifact.worker" in command and parent == os.getpid():
                found.add(int(entry.name))
    return found


def test_an_artifact_is_measured_in_a_fresh_process(tmp_path):
    bundle = write_colours(tmp_path / "model", model=colour_model(work=10))
    seen = []

    def progress(title, done, total, note=""):
        if not title.startswith("waiting"):  # for another process that measures, which has a progress of its own
            seen.append(done)

    found = measure(bundle.folder, seconds=0.2, progress=progress)
    assert 0 < found.p50_ms <= found.p90_ms
    assert found.low <= found.p90_ms <= found.high
    assert found.noise >= 0
    assert found.runs > 36
    assert found.warmup >= 3
    assert (found.threads, found.runtime) == (1, "onnxruntime")
    assert found.resize_ms is not None
    assert found.resize_ms > 0
    assert found.peak_memory_bytes is not None
    assert 20e6 < found.peak_memory_bytes < 500e6  # of the fresh process: torch, where a test loaded it, is not in it
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert not worker_children()


def test_a_number_of_runs_is_kept(tmp_path):
    bundle = write_colours(tmp_path / "model")
    assert measure(bundle.folder, runs=50, threads=2).runs == 50
    assert measure(bundle.folder, runs=3).runs == 3
    with pytest.raises(InputError, match="runs is 0"):
        measure(bundle.folder, runs=0)
    with pytest.raises(InputError, match="above 0"):
        measure(bundle.folder, seconds=0)


def test_many_models_come_back_in_order_and_hopeless_ones_stop_early(tmp_path):
    path = tmp_path / "one.onnx"
    path.write_bytes(colour_model(work=1))
    models = [colour_model(work=3000), path, colour_model(work=300), colour_model(work=1)]
    arrived = []
    found = measure_many(
        models, threads=1, seconds_each=0.2, limit_ms=0.05, on_result=lambda index, _: arrived.append(index)
    )
    medians = [item.p50_ms for item in found if item is not None]
    assert len(medians) == 4
    assert medians[0] > medians[2] > max(medians[1], medians[3])
    assert found[0].runs < 10
    assert found[0].low > 0.05
    assert sorted(arrived) == [0, 1, 2, 3]
    assert measure_many([], threads=1) == []


def test_a_deadline_ends_the_work_and_says_what_is_missing():
    models = [colour_model(work=3000), colour_model(), colour_model()]
    found = measure_many(models, threads=1, seconds_each=5, deadline_s=0.001)
    assert found[0] is not None
    assert found[0].runs >= 1
    assert found[1:] == [None, None]


def test_a_model_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(InputError, match=r"model-1\.onnx is refused"):
        measure_many([colour_model(), b"nonsense"], threads=1)
    with pytest.raises(InputError, match="there is no runtime 'tvm'"):
        measure_many([colour_model()], threads=1, runtime="tvm")


def test_a_worker_that_is_killed_is_a_clear_error():
    def kill(*_):
        for worker in worker_children():  # none any more where its last words were still on their way
            os.kill(worker, signal.SIGKILL)

    with pytest.raises(CheckError, match="SIGKILL; the memory may have run out"):
        measure_many([colour_model()] * 2, threads=1, seconds_each=5, progress=kill)


def test_a_defect_in_the_worker_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="KeyError: 'no such task'"):
        process.call("no such task", {}, what="a test", deadline_s=20, on_row=print)


def test_a_worker_that_hangs_is_ended():
    request = {"models": [], "seconds": 1, "runs": None, "limit_ms": None, "deadline_s": 1, "artifact": None}
    with pytest.raises(CheckError, match="a test did not end within 0 s"):
        process.call("measure", request, what="a test", deadline_s=0.01, on_row=print)
    assert not worker_children()


def test_an_interrupt_ends_the_worker():
    timer = threading.Timer(0.7, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        measure_many([colour_model(work=100)], threads=1, seconds_each=20)
    assert not worker_children()


def test_a_worker_ends_with_its_caller(tmp_path):
    """Also when the caller is killed and can end nothing: all it leaves is a closed pipe."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "model.onnx").write_bytes(colour_model())
    request = {
        "task": "measure",
        "scratch": str(scratch),
        "models": [[str(scratch / "model.onnx"), 1, "onnxruntime"]],
        "seconds": 600,
        "runs": None,
        "limit_ms": None,
        "deadline_s": 600,
        "artifact": None,
    }
    command = [sys.executable, "-m", "netsmith.artifact.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdin.write(json.dumps(request).encode() + b"\n")
        worker.stdin.flush()
        assert b"done" in worker.stdout.readline()  # it works
        worker.stdin.close()
        assert worker.wait(timeout=30) == 0
    assert not scratch.exists()


def test_the_preferred_threads_come_with_their_measurements():
    choice = preferred_threads(colour_model(), seconds_each=0.1)
    assert [item.threads for item in choice.measurements][:1] == [1]
    assert choice.threads in [item.threads for item in choice.measurements]


def test_fewer_threads_are_preferred_when_they_cannot_be_told_apart():
    def row(threads, low, p90, high):
        return replace(PLAIN, threads=threads, low=low, p90_ms=p90, high=high)

    assert fewest_threads([row(1, 5, 6, 7), row(2, 3, 4, 5.5), row(4, 2, 3.9, 4)]) == 2
    assert fewest_threads([row(1, 3, 4.2, 7), row(2, 2, 3.9, 6)]) == 2  # overlapping, but a tenth slower
    assert fewest_threads([row(1, 5, 6, 7), row(2, 3, 3.1, 3.2)]) == 2
    assert fewest_threads([row(1, 3, 3.1, 3.2), row(2, 3, 3.05, 3.3)]) == 1


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 6]), (16, [1, 2, 3, 4, 8, 16])])
def test_thread_counts_stay_few(cores, counts):
    assert thread_counts(cores) == counts


def test_the_interval_of_p90_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = -np.log(0.1)  # of the exponential distribution
    covered = sum(truth in p90_interval(rng.exponential(size=200).tolist()) for _ in range(400))
    assert 0.92 <= covered / 400 <= 0.995
    few = p90_interval([3.0, 1.0, 2.0])
    assert (few.low, few.high, few.n) == (1.0, 3.0, 3)
    assert p90_interval([1.0]).value == 1.0


def test_noise_is_the_spread_of_the_reference():
    assert noise_of([1.0] * 80 + [1.5] * 20) == pytest.approx(0.5)
    assert noise_of([1.0]) == 0.0


@pytest.mark.parametrize(
    ("samples", "limit", "expected"),
    [
        ([2.0, 1.6, 1.8], 1.0, True),  # even the fastest is far above
        ([2.0, 1.4, 1.8], 1.0, False),
        ([2.0, 2.0], 1.0, False),
        ([0.5] * 40, 1.0, True),
        ([0.5] * 39, 1.0, False),
        ([0.95] * 40, 1.0, False),  # too close to call
        ([1.2] * 40, 1.0, True),
        ([0.5, 1.2] * 20, 1.0, True),
        ([0.8, 1.05] * 20, 1.0, False),
    ],
)
def test_a_model_is_decided_when_more_calls_would_not_change_it(samples, limit, expected):
    assert settled(samples, limit_ms=limit) is expected


def test_nobody_else_on_the_machine_measures_meanwhile(monkeypatch, tmp_path):
    """The lock is held around the fresh process and by nobody else."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    free = []

    def look(*_, on_row, **__):
        with alone(wait_s=0.0, clock=FakeClock(), progress=silent) as held:
            free.append(held)
        on_row({"index": 0, "measurement": None})

    monkeypatch.setattr(process, "call", look)
    assert measure_many([b"model"], threads=1) == [None]
    assert free == [False]
    with alone(wait_s=0.0, clock=FakeClock(), progress=silent) as held:
        assert held
