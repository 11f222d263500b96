"""`results.csv`: its columns, what every row says of its origin, and the runs of netsmith that rows are taken from."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.predictions import Predictions
from netsmith.run.clock import SystemClock
from netsmith.run.machine import machine, versions
from netsmith.run.metrics import top_k_correct
from netsmith.run.result import Result

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results.csv"
FIELDS = (
    "date", "commit", "benchmark", "subject", "budget", "model", "val_top1", "test_top1", "test_low", "test_high", "n",
    "latency_p50_ms", "latency_p90_high_ms", "size_bytes", "note", "command", "machine", "versions",
)  # fmt: skip


def origin(benchmark: str) -> Row:
    """What all rows of a benchmark share: date, commit, machine, versions."""
    return {
        "date": SystemClock().wall()[:10],
        "commit": os.environ.get("NETSMITH_COMMIT") or _head(),
        "benchmark": benchmark,
        "machine": f"{machine().cpu}, {machine().cores_usable} cores",
        "versions": json.dumps(versions()),
    }


def _head() -> str:
    """The commit that is checked out; where files were copied without it, NETSMITH_COMMIT says it."""
    head = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            "results name their commit, and this is no checkout of git; set NETSMITH_COMMIT to what "
            "`git rev-parse --short HEAD` says where it is"
        ) from None


def run(command: Sequence[str], folder: Path) -> Result:
    """Run a `netsmith fit`, `train` or `prune` unless its folder is finished, going on from where it was stopped."""
    if not (folder / "results.json").exists():
        print("$ netsmith", *command, flush=True)
        more = ["-o", str(folder), "--quiet", *(["--resume"] if command[0] != "fit" else [])]
        subprocess.run([sys.executable, "-m", "netsmith", *command, *more], check=True)
    return Result.load(folder / "results.json")


def right(folder: Path, split: str) -> NDArray[np.bool_]:
    """Which pictures of a split a run answers right, bool [N] in order of their hashes."""
    found = Predictions.load(folder / "predictions" / f"{split}.npz")
    return top_k_correct(found.logits, found.targets, k=1)[np.argsort(found.keys)]


def of_run(result: Result) -> Row:
    """The columns that a finished run fills: accuracy, latency, size."""
    final = result.final
    assert final.top1.val is not None, "benchmarks' runs have validation pictures"
    assert final.top1.test is not None, "and test pictures"
    return {
        "val_top1": final.top1.val.value, "test_top1": final.top1.test.value, "test_low": final.top1.test.low,
        "test_high": final.top1.test.high, "n": final.top1.test.n, "latency_p50_ms": final.latency_ms.p50,
        "latency_p90_high_ms": final.latency_ms.high, "size_bytes": final.size_bytes,
    }  # fmt: skip


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a file of results, made with its header where it is missing."""
    fresh = not path.exists()
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, FIELDS)
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
