"""The faults, one function each: throw it at an attempt, say what it met and what is wrong afterwards."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import watched
import wholeness
from ground import Attempt, last_line
from watched import HERE, Watched

SECONDS = {"starting": 2.0, "audit": 0.3, "cache": 0.01, "preparing": 0.1, "going on": 0.01, "training": 2.0,
           "export": 0.03, "measuring": 2.0, "verifying": 2.0}  # fmt: skip
"""How long after a phase began a fault may come, at most; 2 ms where nothing is said."""
TRIES = 5


@dataclass
class Blow:
    """One fault and what came of it.

    Attributes:
        kind: of fault.
        phase: that it met.
        wrong: nothing, where all went as promised.
        writing: a file was being written at that moment.
        code: exit code that the command ended with by itself; None where it did not.
    """

    kind: str
    phase: str
    wrong: list[str] = field(default_factory=list)
    writing: bool = False
    code: int | None = None

    @property
    def of_train(self) -> bool:
        """Whether it met a `train`: the phases of other verbs say theirs."""
        return ": " not in self.phase


def aimed(process: Watched, phase: str | None, draw: random.Random, *, seconds: float) -> bool:
    """Wait for the moment of a fault: in a phase, or any moment of a run of so many seconds; False where none came."""
    if phase is None:
        return process.lasts(draw.uniform(0.0, seconds))
    return process.reaches(lambda now: now == phase) and process.lasts(draw.uniform(0.0, SECONDS.get(phase, 0.002)))


def reached(attempt: Attempt, phase: str) -> Watched | None:
    """The command when it comes to a phase; None where it ended before. One that observing ended is typed again."""
    for _ in range(TRIES):
        process = attempt.start()
        if process.reaches(lambda now: now == phase):
            return process
        if not process.fell_to_observation:
            break
    return None


def kill(attempt: Attempt, phase: str | None, draw: random.Random, *, seconds: float) -> Blow | None:
    """SIGKILL, None where the run ended before; afterwards everything that has its name is whole."""
    process = attempt.start()
    began = set(wholeness.temporaries(attempt.run, attempt.cache))
    if not aimed(process, phase, draw, seconds=seconds):
        return None
    before = valid_model(attempt)
    met = process.kill()
    blow = Blow("SIGKILL", met, attempt.troubles())
    blow.writing = bool(set(wholeness.temporaries(attempt.run, attempt.cache)) - began)
    if before and not valid_model(attempt):
        blow.wrong.append("the model that was there is gone")
    blow.wrong += [f"process {n} outlived it" for n in watched.left_running(f"TMPDIR={attempt.scratch}")]
    return blow


def valid_model(attempt: Attempt) -> bool:
    """Whether an artifact stands in the run."""
    return (attempt.run / "model" / "config.json").exists()


def stop(
    attempt: Attempt,
    number: signal.Signals,
    phase: str | None,
    draw: random.Random,
    *,
    times: int = 1,
    seconds: float = 0.0,
) -> Blow | None:
    """SIGTERM or Ctrl-C: the exit code says so, one sentence says how to go on, nothing temporary is left.

    In a phase, or with None at any moment of a run of so many seconds, but not while Python and libraries start.
    """
    process = attempt.start()
    if phase is None and not process.reaches(lambda now: now != watched.STARTING):
        return None
    if not aimed(process, phase, draw, seconds=seconds):
        return None
    met = process.phase()
    begins = met == watched.STARTING and not attempt.run.exists()
    ends = attempt.reported and not watched.frames_of_netsmith(process.stack)
    outside = begins or ends  # Python's own beginning and end, where nobody can say a sentence
    for _ in range(times):
        if process.alive:
            process.process.send_signal(number)
            time.sleep(0.01)
    code, said = process.end(), process.said()
    if process.fell_to_observation:
        return None
    blow = Blow(number.name + " twice" * (times > 1), met, attempt.troubles(), code=code)
    if code == 0:  # it came to its end before it looked
        return blow
    wanted = {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    if code != wanted and not (outside and code == -number):
        blow.wrong.append(f"exit code {code} and not {wanted}: {last_line(said)}")
    if "Traceback" in said and not outside:
        blow.wrong.append(f"a traceback: {said[-1500:]}")
    if attempt.run.exists() and met != watched.STARTING and "--resume" not in last_line(said) and times == 1:
        blow.wrong.append(f"it does not say how to go on: {last_line(said)}")
    left = wholeness.temporaries(attempt.run, attempt.scratch)
    blow.wrong += [f"{path} was left" for path in left if times == 1]
    blow.wrong += [f"process {n} was left" for n in watched.left_running(f"TMPDIR={attempt.scratch}")]
    return blow


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """While this is entered, the file system of `folder` has no byte left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            for size in (1 << 20, 4096, 1):
                while file.write(bytes(size)):
                    pass
        except OSError:
            pass
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass
    try:
        yield
    finally:
        ballast.unlink()


def full_disk(attempt: Attempt, disk: Path, phase: str, *, seconds: float | None) -> Blow | None:
    """The disk of run and cache fills up and stays full until the command ends, or for so many seconds.

    The command goes on and says so, or ends with exit code 2 and one sentence.
    """
    if (process := reached(attempt, phase)) is None:
        return None
    with filled(disk):
        if seconds is None:
            code = process.end()
        else:
            process.lasts(seconds)
    if seconds is not None:
        code = process.end()
    said = process.said()
    blow = Blow("full disk" if seconds is None else "full disk for a while", phase, attempt.troubles(), code=code)
    if code not in (0, 2):
        blow.wrong.append(f"exit code {code}: {said[-1500:]}")
    if "Traceback" in said:
        blow.wrong.append(f"a traceback: {said[-1500:]}")
    if not any(word in (said if code == 0 else last_line(said)) for word in ("space", "room")):
        blow.wrong.append(f"it does not say that the disk is full: {last_line(said)}")
    return blow


def vanished(attempt: Attempt, phase: str, draw: random.Random, *, share: float) -> Blow | None:
    """Pictures go away in a phase and come back later: exit code 2 with one sentence, unless nobody needed them.

    One that is gone before the run has begun is left out, as any that cannot be read.
    """
    if (process := reached(attempt, phase)) is None:
        return None
    away = attempt.place / "away"
    photos = sorted(path for path in attempt.pictures.rglob("*.jpg"))
    chosen = draw.sample(photos, max(1, round(share * len(photos))))
    for path in chosen:
        target = away / path.relative_to(attempt.pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
    code = process.end()
    blow = Blow("vanished files" if len(chosen) > 1 else "vanished file", phase, attempt.troubles(), code=code)
    blow.wrong += _told(code, process.said(), "reading" if phase == "audit" else "training or evaluation")
    if code == 2 and attempt.pictures_known() is not None:  # and while they are away, the same again
        again = attempt.start()
        code = again.end()
        if code != 2 or "Traceback" in again.said():
            blow.wrong.append(f"gone on with while they are away: exit code {code}, {last_line(again.said())}")
    for path in chosen:
        os.rename(away / path.relative_to(attempt.pictures), path)
    shutil.rmtree(away)
    return blow


def _told(code: int, said: str, where: str) -> list[str]:
    if code not in (0, 2):
        return [f"exit code {code} when a file vanished in {where}: {last_line(said)}"]
    return [f"a traceback when a file vanished in {where}: {said[-1500:]}"] if "Traceback" in said else []


def starved(attempt: Attempt, mebibytes: int) -> Blow:
    """The process may take so much more memory from its first update on: the batch is divided, and that is said."""
    process = attempt.start([str(HERE / "starved.py"), str(mebibytes)])
    code, said = process.end(), process.said()
    blow = Blow("out of memory", "training", attempt.troubles())
    if code != 0:
        return Blow("out of memory", "training", [*blow.wrong, f"exit code {code}: {said[-1500:]}"])
    if '"kind": "grad_accum"' not in (attempt.run / "plan.jsonl").read_text():
        blow.wrong.append("memory did not run out; give it less")
    elif "memory ran out" not in said:
        blow.wrong.append("it is not said")
    return blow
