"""What must hold of a run's folder at every moment, and what once it is finished."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from safetensors import safe_open

from netsmith.artifact.bundle import load_bundle
from netsmith.errors import InputError
from netsmith.run.files import sha256_file

MEASURED = "netsmith-measure-"
"""Folders of the system's for temporary files; of one that dies before its worker is there the system takes care."""
TEMPORARY = re.compile(rf"^\..*\.tmp$|\.filling$|\.filled$|^{MEASURED}")
VOLATILE = ("time", "seconds", "images_per_s")
"""Fields of a row of metrics that another clock gives another value."""


def is_temporary(path: Path, root: Path) -> bool:
    """Whether a file below `root` is not there under its own name yet, or lies in a folder that is not."""
    return any(TEMPORARY.search(part) for part in path.relative_to(root).parts)


def temporaries(*roots: Path) -> list[Path]:
    """What writers left that did not come to their end."""
    return [path for root in roots for path in sorted(root.rglob("*")) if TEMPORARY.search(path.name)]


def damages(run: Path, *, ended: bool = False) -> list[str]:
    """What is not whole in a run's folder: nothing, at any moment.

    Args:
        run: the folder; an absent one is whole.
        ended: nobody was in the middle of a row, so a torn last line counts too.
    """
    return [
        f"{path.relative_to(run)}: {trouble}"
        for path in sorted(run.rglob("*"))
        if path.is_file() and not is_temporary(path, run)
        for trouble in _troubles(path, ended=ended)
    ] + [f"{folder.relative_to(run)}: {trouble}" for folder, trouble in _artifacts(run)]


def _troubles(path: Path, *, ended: bool) -> Iterator[str]:
    try:
        match path.suffix:
            case ".json":
                json.loads(path.read_bytes())
                if path.parent.name == "checkpoints":
                    yield from _checkpoint(path)
            case ".jsonl":
                *lines, rest = path.read_bytes().split(b"\n")
                for line in lines:
                    json.loads(line)
                if rest and ended:
                    yield "its last line is torn"
                if path.name == "metrics.jsonl":
                    yield from _metrics([json.loads(line) for line in lines])
            case ".yaml":
                if not isinstance(yaml.safe_load(path.read_bytes()), dict):
                    yield "it is no mapping"
            case ".safetensors":
                with safe_open(path, "numpy") as tensors:
                    names: list[str] = tensors.keys()
                    for name in names:
                        tensors.get_tensor(name)
            case ".onnx":
                onnx.checker.check_model(onnx.load(path))
            case ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    _ = [arrays[name] for name in arrays]
            case ".html":
                if not path.read_text().rstrip().endswith("</html>"):
                    yield "it is cut short"
            case _:
                pass
    except Exception as error:  # whatever a reader says about half a file
        yield f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _checkpoint(path: Path) -> Iterator[str]:
    record, tensors = json.loads(path.read_bytes()), path.with_suffix(".safetensors")
    if not tensors.exists():
        yield "its tensors are missing"
    elif sha256_file(tensors) != record["sha256"]:
        yield "its tensors have another hash"


def _metrics(rows: list[dict[str, Any]]) -> Iterator[str]:
    # A row may complete an earlier one of its step: the answers it had not yet.
    steps = [(row["step"], len(row.keys() & {"val", "train"})) for row in rows]
    if sorted(set(steps)) != steps:
        yield f"steps repeat or go back: {steps}"


def _artifacts(run: Path) -> Iterator[tuple[Path, str]]:
    named = {run / "model", *run.glob("candidates/*/model")}
    written = {path.parent for path in run.rglob("config.json") if not is_temporary(path, run)}
    for folder in sorted(named | written):
        if folder.exists():
            try:
                bundle = load_bundle(folder)
            except InputError as error:
                yield folder, str(error)
                continue
            for name, digest in bundle.config.files.items():
                if sha256_file(folder / name) != digest:
                    yield folder, f"{name} is not the one of config.json"


def outcome(run: Path) -> dict[str, str]:
    """What two runs of one plan have in common, as hashes: weights, graph, answers, examples."""
    names = [f"model/{name}" for name in ("model.safetensors", "model.onnx", "golden.npz")]
    names += [f"predictions/{split}.npz" for split in ("val", "test")]
    return {name: sha256_file(run / name) for name in names if (run / name).exists()}


def metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of metrics without what only says how long something took; none where nothing was trained."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows]


def differences(run: Path, expected: Path, *, same_evaluations: bool) -> list[str]:
    """Where a finished run is not what another one of its plan is.

    Args:
        run, expected: finished.
        same_evaluations: the plan fixes when evaluations are made, as epochs do and a time does not.
    """
    got, wanted = outcome(run), outcome(expected)
    found = [f"{name} is another one" for name in sorted({*got, *wanted}) if got.get(name) != wanted.get(name)]
    here, there = metrics(run), metrics(expected)
    if same_evaluations:
        if [row["step"] for row in here] != [row["step"] for row in there]:
            found.append(f"metrics at steps {[row['step'] for row in here]} and not {[row['step'] for row in there]}")
        elif here != there:
            found.append("metrics have other values")
    elif here[-1]["step"] != there[-1]["step"] or here[-1]["val"] != there[-1]["val"]:
        found.append(f"the last row of metrics is {here[-1]} and not {there[-1]}")
    # A run whose time the kills have used up ends where it stands, and its replay there too.
    end = 1.0 if same_evaluations else there[-1]["progress"]
    if not all(math.isclose(row["progress"], end) for row in here[-1:]):
        found.append("the metrics do not come to the end")
    return found


def digest(values: dict[str, str]) -> str:
    """A short name of an outcome."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
