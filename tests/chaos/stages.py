"""What the stages are asked for under fire: verbs that begin with a trained model, on digits, with tiny networks.

Latencies that a verdict follows from are made up (`tests/untimed.py`), because on a machine that is under fire another
verdict is right in every run. What the finished run records of itself is measured and verified as ever.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netsmith.run.files import sha256_file

WHOLE = ["--model", "resnet8_cifar", "--epochs", "6", "--threads", "1", "--seed", "3"]
"""Flags of the `train digits` that all of them begin with."""
TRAINED = ["-b", "64", "--threads", "1"]


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        verb, first, flags: of the command.
        same: whether the plan fixes all that is trained, so that interrupted runs end as the undisturbed one.
    """

    verb: str
    first: Path
    flags: Sequence[str]
    same: bool = True


def jobs(model: Path) -> list[Job]:
    """What is asked for of a trained model, a run folder."""
    teacher = ["--teacher", str(model), "--no-twin"]
    return [
        Job("prune", model, ["--macs", "0.6", "--steps", "2", "--epochs", "3", "--max-drop", "100", *TRAINED]),
        Job("distill", Path("resnet8_cifar@0.5"), [*teacher, "--epochs", "4", *TRAINED]),
        Job("quantize", model, ["--max-drop", "100"]),
        Job("compress", model, ["--budget", "size=120kB", "--time", "0"]),
        Job("compress", model, ["--budget", "size=60kB", "--time", "10s", *TRAINED], same=False),
    ]


def content(folder: Path) -> str:
    """A hash of all that a folder holds, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = "\n".join(f"{path.relative_to(folder)} {sha256_file(path)}" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()
