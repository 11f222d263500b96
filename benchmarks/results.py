"""`results.csv`: its columns, what every row says of its origin, and the runs of netsmith that rows are taken from.

What takes minutes is kept between calls of a benchmark: a run folder, or a file of one measurement. Beside it lies
`NAME.begun`, which says at which commit and on which day it was worked on, and a row made of it says the same, whatever
is checked out when the row is written, and by which command or under which other conditions: what was made otherwise
than it is asked for now is refused, not reported. What was made before that was written down is of an unknown commit,
unless the file of results has the same numbers already; the command of a run is in its `run.json` too.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.predictions import Predictions
from netsmith.run.clock import SystemClock
from netsmith.run.files import write_json
from netsmith.run.machine import machine, versions
from netsmith.run.metrics import top_k_correct
from netsmith.run.result import Result

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results.csv"
FIELDS = (
    "date", "commit", "benchmark", "subject", "budget", "model", "val_top1", "test_top1", "test_low", "test_high", "n",
    "latency_p50_ms", "latency_p90_high_ms", "size_bytes", "note", "command", "machine", "versions",
)  # fmt: skip
MEASURED = tuple(name for name in FIELDS if name not in ("date", "commit", "command", "machine", "versions"))
UNKNOWN = {"date": "unknown", "commit": "unknown"}


def origin(benchmark: str) -> Row:
    """What all rows of a benchmark share: date, commit, machine, versions."""
    return {
        **now(),
        "benchmark": benchmark,
        "machine": host(),
        "versions": json.dumps(versions()),
    }


def host() -> str:
    """The machine of a row, without cards."""
    return f"{machine().cpu}, {machine().cores_usable} cores"


def card(device: str) -> str:
    """The graphics card of a device and what drives it, to stand before the machine; "" of others."""
    if not device.startswith("cuda"):
        return ""
    # Lazily: most benchmarks have no torch of their own.
    import torch

    cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name(device)}, {cuda}, "


def now() -> Row:
    """The columns `date` and `commit` of what is measured by this process."""
    checkout = Path(__file__).parent.parent
    return {"date": SystemClock().wall()[:10], "commit": os.environ.get("NETSMITH_COMMIT") or head_of(checkout)}


@cache
def head_of(checkout: Path) -> str:
    """The commit that was checked out first, and `-dirty` where code is not as committed, new files among it.

    Results and the log of them change meanwhile and are no code. Where files were copied without the commit,
    NETSMITH_COMMIT says it.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(checkout), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    code = ("src", "benchmarks", ":(exclude)benchmarks/*.csv", ":(exclude)benchmarks/*.md")
    try:
        changed = git("status", "--porcelain", "--untracked-files=all", "--", *code)
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            "results name their commit, and this is no checkout of git; set NETSMITH_COMMIT to what "
            "`git rev-parse --short HEAD` says where it is"
        ) from None


def begun(place: Path, *, finished: bool, asked: Mapping[str, str] | None = None) -> list[Row]:
    """What is known of a kept measurement; the commit checked out joins it where it is still to be made or ended.

    One of another machine is refused: rows name the machine that writes them, and compare what was made on it.

    Args:
        place: run folder or file; what is not there is made from the beginning.
        finished: nothing is left to do.
        asked: conditions that its name does not say. Where they were others, or are not known, it is refused.

    Returns:
        `date` and `commit` of every time it was worked on.
    """
    conditions = {"machine": host(), **(asked or {})}
    before, known = _known(place) if place.exists() else (conditions, [])
    if unsaid := [name for name in asked or {} if name not in before]:
        raise SystemExit(
            f"{place} does not say how it was measured ({', '.join(unsaid)}); name another folder, or remove it"
        )
    differ = [name for name in conditions if before.get(name, conditions[name]) != conditions[name]]
    if unlike := [f"{name} {before[name]}, not {conditions[name]}" for name in differ]:
        raise SystemExit(f"{place} was begun with {'; '.join(unlike)}: name another folder, or remove it")
    if not finished and now() not in known:
        known = [*known, now()]
        write_json(_record(place), {"asked": before, "made": known})
    return known


def made(*places: Path) -> Row:
    """The columns `date` and `commit` of a row made of finished kept measurements."""
    return origin_of([each for place in places for each in begun(place, finished=True)])


def origin_of(known: Iterable[Row]) -> Row:
    """The columns `date` (the newest) and `commit` (all) of what `begun` says, of one measurement or of several."""
    found = list(known)
    return {
        "date": max(each["date"] for each in found),
        "commit": " ".join(dict.fromkeys(commit for each in found for commit in each["commit"].split())),
    }


def _record(place: Path) -> Path:
    return place.with_name(f"{place.name}.begun")


def _known(place: Path) -> tuple[dict[str, str], list[Row]]:
    """Conditions, and `date` and `commit` of every time it was worked on, of what is there.

    Without a record: what FOLDER/begun.json says, which came before records. The command of a run is in its run.json.
    """
    former, typed = place / "begun.json", place / "run.json"
    asked: dict[str, str] = {}
    made: list[Row] = [UNKNOWN]
    if _record(place).exists():
        asked, made = (json.loads(_record(place).read_text())[name] for name in ("asked", "made"))
    elif former.exists():
        asked = json.loads(former.read_text())
        made = [UNKNOWN | {"commit": commit} for commit in asked.pop("commits")]
    if "command" not in asked and typed.exists():
        asked["command"] = wording(json.loads(typed.read_text())["command"])
    return asked, made


def wording(command: Sequence[str]) -> str:
    """What decides a measurement in a command of netsmith's: equal for equal ones, wherever their files lie.

    Flags in one order, numbers in one form, of paths their names; without -o, --resume and --quiet.

    Args:
        command: verb, positional arguments, flags; each with its long name.
    """
    groups: list[list[str]] = [[]]
    for word in command:
        if word.startswith("-"):
            groups.append([word])
        else:
            groups[-1].append(_value(word))
    flags = sorted(group for group in groups[1:] if group[0] not in ("-o", "--resume", "--quiet"))
    return " ".join(word for group in [groups[0], *flags] for word in group)


def _value(word: str) -> str:
    try:
        return f"{float(word):.12g}"
    except ValueError:
        return Path(word).name


def run(
    command: Sequence[str], folder: Path, *, program: Sequence[str] = ("-m", "netsmith"), **environment: str
) -> Result:
    """Run a `netsmith fit`, `train` or `prune` unless its folder is finished, going on from where it was stopped.

    One that was begun by another command is refused, finished or not.

    Args:
        command: its words, without the folder's.
        folder: of the run; `made` says of which commit it is.
        program: what Python is to run, given the words.
        environment: of it, beside this process's.
    """
    finished = (folder / "results.json").exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    begun(folder, finished=finished, asked={"command": wording(command)})
    if not finished:
        print("$ netsmith", *command, flush=True)
        more = ["-o", str(folder), "--quiet", *(["--resume"] if command[0] != "fit" else [])]
        subprocess.run([sys.executable, *program, *command, *more], check=True, env=os.environ | environment)
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
    """Add rows to a file of results, made with its header where it is missing.

    A row that is there is not added again: the same numbers at the same commit, or at one that is not known any more.
    """
    fresh = not path.exists()
    with nullcontext(()) if fresh else path.open(newline="") as handle:
        there = list(csv.DictReader(handle))
    rows = [row for row in rows if not any(_same(row, each) for each in there)]
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def _same(row: Row, there: Mapping[str, str]) -> bool:
    """Whether a row of the file holds a new one."""
    old = row["commit"] in (there["commit"], UNKNOWN["commit"])
    same = old and all(str(row.get(name, "")) == there[name] for name in MEASURED if row.get(name) is not None)
    if same:
        print(f"{row['benchmark']}, {row['subject']}: there already, of {there['date']}, commit {there['commit']}")
    return same
