"""A netsmith process under observation: which phase it is in, by the stack of its main thread."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
LONGEST = 3600.0
"""Seconds after which a process counts as hanging."""
UNTIMED = "CHAOS_UNTIMED"
"""Set in the environment of a command whose verdicts are not to follow from latencies."""

# The first rule that a frame meets, from the innermost frame outwards: file below netsmith/, function, phase.
_RULES: tuple[tuple[str, str, str], ...] = (
    ("train/checkpoints.py", "save_checkpoint", "checkpoint"),
    ("train/checkpoints.py", "load_checkpoint", "going on"),
    ("train/evaluate.py", "", "evaluation"),
    ("data/audit.py", "", "audit"),
    ("fit/session.py", "read", "audit"),
    ("fit/opening.py", "record_split", "split"),
    ("data/cache.py", "", "cache"),
    ("data/masters.py", "fill", "cache"),
    ("artifact/measure.py", "", "measuring"),
    ("fit/stopwatch.py", "", "measuring"),
    ("artifact/verify.py", "", "verifying"),
    ("artifact/evaluate.py", "", "answers"),
    ("artifact/predictions.py", "", "answers"),
    ("artifact/bundle.py", "", "export"),
    ("export/", "", "export"),
    ("fit/finish.py", "export", "export"),
    ("report/", "", "report"),
    ("run/result.py", "save", "results"),
    ("train/trainer.py", "_advance", "training"),
    ("compress/", "", "choosing"),
    ("fit/stage.py", "judge", "judging"),
)
_BESIDE = {("fit/going_on.py", "make_twin"), ("fit/distilling.py", "_alone")}
"""What trains the network that another is compared with."""
STARTING = "starting"
ORDER = (STARTING, "audit", "split", "choosing", "cache", "preparing", "going on", "training", "checkpoint",
         "evaluation", "export", "judging", "measuring", "answers", "results", "verifying", "report")  # fmt: skip
"""All phases, as a run goes through them."""
_FRAME = re.compile(r'File "([^"]*)", line \d+ in (\S+)')


def frames_of_netsmith(stack: str) -> list[tuple[str, str]]:
    """File below netsmith/ and function of its frames in a stack, the innermost first; not those of being imported."""
    found = [(path, function) for path, function in _FRAME.findall(stack) if "/netsmith/" in path]
    return [(path.rpartition("/netsmith/")[2], function) for path, function in found if function != "<module>"]


def phase_of(stack: str, *, filling: bool) -> str:
    """The phase that a stack of the main thread tells; `filling`: a cache of training pictures is growing."""
    frames = frames_of_netsmith(stack)
    beside = " of the twin" if _BESIDE.intersection(frames) else ""
    for inside, function in frames:
        for file, name, phase in _RULES:
            if inside.startswith(file) and function.startswith(name):
                return f"{'cache' if phase == 'training' and filling else phase}{beside}"
    return "preparing" if "/netsmith/train/" in stack or "/netsmith/models/" in stack else STARTING


def is_whole(stack: str) -> bool:
    """Whether faulthandler came to the end of a stack."""
    return stack.rstrip().endswith("<module>") and "observed.py" in stack


class Watched:
    """One started command.

    Args:
        arguments: of netsmith.
        environment: of the process; its `TMPDIR` marks it and its children.
        log: what it says goes here.
        cache: its NETSMITH_CACHE.
        script: that runs the command, with further arguments of its own before netsmith's.

    Attributes:
        stack: of the main thread, innermost first, when `phase` was asked last; empty where it gave none.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        log: Path,
        cache: Path,
        script: Sequence[str] = (),
    ) -> None:
        self._where = log.with_suffix(".stack")
        self._where.write_bytes(b"")
        self._cache, self._log = cache, log
        self.stack = ""
        wrapper = list(script) or [str(HERE / "observed.py"), str(self._where)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *wrapper, *arguments], env=environment, stdout=output, stderr=output
            )
        self.began = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def said(self) -> str:
        """Standard output and error."""
        return self._log.read_text(errors="replace")

    def phase(self) -> str:
        """Where its main thread stands now."""
        os.truncate(self._where, 0)
        self.stack = ""
        if not self._observed():
            return STARTING
        self.process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + 0.05
        while time.monotonic() < until and self.alive:
            self.stack = self._where.read_text(errors="replace")
            if is_whole(self.stack):
                filling = any(self._cache.glob("pixels/*.filling"))
                return phase_of(self.stack, filling=filling)
        return STARTING

    def _observed(self) -> bool:
        """Whether SIGUSR1 is answered yet: before that it would end the process."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        caught = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)

    @property
    def fell_to_observation(self) -> bool:
        """Whether it died of being asked for its stack: faulthandler may come upon a frame that Python is just making.
        What dies by itself leaves the stack whole that was asked for last."""
        died = self.process.poll() == -signal.SIGSEGV
        return died and not is_whole(self._where.read_text(errors="replace"))

    def reaches(self, wanted: Callable[[str], bool]) -> bool:
        """Wait for a phase; False where the process ended before."""
        while self.alive:
            if wanted(self.phase()):
                return True
            self._refuse_hanging()
            time.sleep(0.001)
        return False

    def lasts(self, seconds: float) -> bool:
        """Wait so long; False where the process ended before."""
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def kill(self) -> str:
        """SIGKILL; the phase that it met, as far as a thousandth of a second before tells."""
        phase = self.phase()
        self.process.kill()
        self.process.wait()
        return phase

    def end(self) -> int:
        """Its exit code, once it ends by itself."""
        while self.alive:
            self._refuse_hanging()
            time.sleep(0.02)
        return self.process.returncode

    def _refuse_hanging(self) -> None:
        if time.monotonic() - self.began > LONGEST:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"no end after {LONGEST:.0f} s: {self.said()[-2000:]}")


def left_running(mark: str, *, looks: int = 200) -> list[int]:
    """Processes that still have `mark` in their environment, after ten seconds (of our own time) to end."""
    found: list[int] = []
    for _ in range(looks):
        found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if _marked(path, mark)]
        if not found:
            break
        time.sleep(0.05)
    return found


def _marked(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes()
    except OSError:
        return False
