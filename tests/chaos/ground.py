"""The job that faults are thrown at: a small network on real photos, and the places of one attempt at it."""

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import watched
import wholeness

NETWORK = ["--model", "resnet20_cifar@0.25", "--img-size", "32", "-b", "8", "--threads", "1", "--seed", "3"]
RANDOM = ["--ema", "0.9", "--mixup", "0.2", "--random-erase", "0.2", "--drop", "0.1"]
FIXED = ["--epochs", "12", *NETWORK, *RANDOM]
TIMED = ["--time", "6s", *NETWORK, *RANDOM]
HUNGRY = ["--epochs", "2", "--model", "resnet20_cifar", "--img-size", "64", "-b", "60", "--threads", "1"]
"""About half a gigabyte of activations in an update."""
ATTEMPTS = 3
"""Of the last measurement: where other work made the machine another one meanwhile, a run is right to refuse it."""
PLANNED = ("run.json", "recipe.yaml", "data.json", "plan.jsonl")
"""What a run's plan can be obeyed from."""


@dataclass
class Attempt:
    """One run folder with a cache and a temporary folder of its own.

    Attributes:
        place: holds all of it.
        pictures: the data set, or what else the command begins with.
        flags: of the command.
        verb: of the command.
        plan: finished run of which the plan is to be obeyed, if any.
        logs: folder for what its processes say, by default `place`.
        untimed: latencies that verdicts follow from are made up.
        newest: of its processes.
    """

    place: Path
    pictures: Path
    flags: Sequence[str]
    verb: str = "train"
    plan: Path | None = None
    logs: Path | None = None
    untimed: bool = False
    starts: int = 0
    newest: watched.Watched | None = None

    def __post_init__(self) -> None:
        for folder in (self.place, self.cache, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        if self.plan is not None:
            self.run.mkdir()
            for name in PLANNED:
                shutil.copyfile(self.plan / name, self.run / name)

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.place / "run"

    @property
    def cache(self) -> Path:
        """NETSMITH_CACHE."""
        return self.place / "cache"

    @property
    def scratch(self) -> Path:
        """TMPDIR, by which processes are known too."""
        return self.place / "tmp"

    @property
    def reported(self) -> bool:
        """Whether the run came to its end."""
        return (self.run / "report.html").exists()

    def pictures_known(self) -> list[str] | None:
        """Which pictures the run is about, by hash; None before it is written down."""
        path = self.run / "data.json"
        return sorted(json.loads(path.read_bytes())["items"]) if path.exists() else None

    @property
    def environment(self) -> dict[str, str]:
        """Of the attempt's processes."""
        places = {"NETSMITH_CACHE": str(self.cache), "TMPDIR": str(self.scratch)}
        untimed = {watched.UNTIMED: "1"} if self.untimed else {}
        return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | places | untimed

    @property
    def command(self) -> list[str]:
        """As typed, first and again."""
        resume = ["--resume"] if self.verb != "fit" else []
        return [self.verb, str(self.pictures), *self.flags, "-o", str(self.run), *resume]

    def start(self, script: Sequence[str] = ()) -> watched.Watched:
        """The command typed (again)."""
        self.starts += 1
        log = (self.logs or self.place) / f"said-{self.starts}.txt"
        self.newest = watched.Watched(
            self.command, environment=self.environment, log=log, cache=self.cache, script=script
        )
        return self.newest

    def came_to_its_end(self) -> list[str]:
        """What is wrong with a command that ended before a fault could come; a busy machine's latency is not."""
        assert self.newest is not None
        code, said = self.newest.end(), last_line(self.newest.said())
        if self.newest.fell_to_observation:
            return []
        return [] if code == 0 or (code == 1 and "latency" in said) else [f"it ended with {code} by itself: {said}"]

    def finish(self) -> list[str]:
        """Go on to the end undisturbed; what is wrong with it then."""
        for _ in range(ATTEMPTS):
            process = self.start()
            code, said = process.end(), last_line(process.said())
            if code == 0:
                return self.troubles_at_the_end()
            if code != 1 or "latency" not in said:
                break
        return [f"going on ended with {code}: {said}"]

    def troubles(self) -> list[str]:
        """What is wrong with the folder in the middle of everything."""
        return wholeness.damages(self.run)

    def troubles_at_the_end(self) -> list[str]:
        """What is wrong with a finished run, its cache and its temporary folder."""
        left = wholeness.temporaries(self.run, self.cache, self.scratch)
        left = [path for path in left if not path.name.startswith(wholeness.MEASURED)]
        found = wholeness.damages(self.run, ended=True) + [f"{path} was left" for path in left]
        found += [f"process {number} was left" for number in watched.left_running(f"TMPDIR={self.scratch}")]
        if not (self.run / "results.json").exists():
            found.append("there is no results.json")
        return found

    def clear(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.place, ignore_errors=True)


def unpack(archive: Path, folder: Path) -> Path:
    """The photos as files; 100 of 5 kinds of flowers."""
    if not folder.exists():
        with zipfile.ZipFile(archive) as photos:
            photos.extractall(folder)
    return folder


def last_line(text: str) -> str:
    """What a command said last."""
    return (text.strip().splitlines() or ["nothing"])[-1]


def mounted(folder: Path, size: str) -> bool:
    """A file system of its own in memory at `folder`, where this user may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def unmount(folder: Path) -> None:
    """The end of `mounted`."""
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)
