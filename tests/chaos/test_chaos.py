"""The fault harness itself, in its smallest size: `make chaos` is the whole of it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import demands
import pytest
from faults import Blow
from watched import STARTING, Watched, frames_of_netsmith, phase_of

HARNESS = Path(__file__).parent


def stack(*frames: tuple[str, str]) -> str:
    """As faulthandler writes it."""
    lines = [f'  File "{path}", line 1 in {function}' for path, function in frames]
    return "\n".join(["Current thread 0x1 (most recent call first):", *lines])


WHOLE = stack(("/x/src/netsmith/cli/main.py", "run"), ("/x/tests/chaos/observed.py", "<module>"))


def test_only_kills_of_train_count_for_what_was_asked() -> None:
    blows = [Blow("SIGKILL", phase) for phase in ("training", "fit: training", "prune: starting", "starting")]
    assert [blow.of_train for blow in blows] == [True, False, False, True]


def good_blows() -> list[Blow]:
    """What is enough of every part, and a kill in every phase."""
    parts = [
        Blow(kind, "training", code=code) for kind, code in (("SIGTERM", 143), ("SIGINT twice", 130)) for _ in range(6)
    ]
    parts += [
        Blow("full disk", "training", code=2),
        *(Blow("full disk for a while", "cache", code=0) for _ in range(4)),
    ]
    parts += [Blow("vanished files", "cache", code=2), *(Blow("vanished file", "audit", code=0) for _ in range(4))]
    parts += [Blow("out of memory", "training"), Blow("out of memory", "training")]
    parts += [Blow("loss of power", "everywhere"), Blow("loss of power", "gone on with")]
    verbs = ("fit", "prune", "distill", "quantize", "compress")
    return (
        parts + [Blow("SIGKILL", f"{verb}: choosing") for verb in verbs] + [Blow("SIGKILL", p) for p in demands.PHASES]
    )


PARTS = ("kills", "signals", "disk", "vanish", "memory", "power", "fit", "stages")


def test_a_pass_that_met_every_kind_lacks_nothing() -> None:
    assert list(demands.lacking(good_blows(), PARTS, kills=10, timed=0)) == []
    assert {*demands.LEAST} <= {*PARTS}


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (lambda blow: blow.kind != "SIGTERM", "TOO FEW: 0 SIGTERM that ended train"),
        (
            lambda blow: not blow.kind.startswith("SIGINT") or blow.phase != "training",
            "TOO FEW: 0 Ctrl-C that ended train",
        ),
        (lambda blow: not blow.kind.startswith("full disk"), "TOO FEW: 0 full disks, at least 5"),
        (lambda blow: blow.code != 130, "TOO FEW: 0 Ctrl-C that ended train"),
        (lambda blow: blow.kind != "full disk", "TOO FEW: 0 full disks that ended a command"),
        (lambda blow: not blow.kind.startswith("vanished"), "TOO FEW: 0 vanished pictures, at least 5"),
        (lambda blow: blow.kind != "vanished files", "TOO FEW: 0 vanished pictures that ended a command"),
        (lambda blow: blow.kind != "out of memory", "TOO FEW: 0 shortages"),
        (lambda blow: blow.phase != "gone on with", "TOO FEW: 0 losses of power"),
        (lambda blow: blow.phase != "fit: choosing", "TOO FEW: 0 kills of fit"),
        (lambda blow: blow.phase != "compress: choosing", "TOO FEW: 0 kills of compress"),
        (lambda blow: blow.phase != "report", "TOO FEW: 9 kills of train, 10 were asked for"),
    ],
)
def test_a_pass_without_a_kind_of_fault_says_so(left: Callable[[Blow], bool], said: str) -> None:
    found = demands.lacking([*filter(left, good_blows())], PARTS, kills=10, timed=0)
    assert any(line.startswith(said) for line in found)


def test_of_many_kills_every_phase_is_met() -> None:
    blows = [Blow("SIGKILL", phase) for phase in demands.PHASES if phase != "export"] * 5
    assert list(demands.lacking(blows, ["kills"], kills=45, timed=0)) == ["NOT MET by any kill: export"]
    assert list(demands.lacking(blows, ["kills"], kills=45, timed=6)) == []


def test_a_traceback_of_netsmiths_own_is_not_pythons_end() -> None:
    """Nobody is left to say a sentence where no frame of netsmith's is, however its checkout is called."""
    outermost = ("/home/netsmith/tests/chaos/observed.py", "<module>")
    left = stack(("/usr/lib/python3.11/threading.py", "_shutdown"), outermost)
    own = stack(("/x/src/netsmith/cli/main.py", "run"), ("/x/src/netsmith/cli/main.py", "main"), outermost)
    assert phase_of(own, filling=False) == phase_of(left, filling=False) == STARTING
    assert frames_of_netsmith(own) == [("cli/main.py", "run"), ("cli/main.py", "main")]
    assert frames_of_netsmith(left) == frames_of_netsmith("") == []


def test_a_twin_is_told_from_what_it_is_compared_with() -> None:
    inner = ("/x/src/netsmith/train/trainer.py", "_advance")
    twins = [("/x/src/netsmith/fit/going_on.py", "make_twin"), ("/x/src/netsmith/fit/distilling.py", "_alone")]
    assert [phase_of(stack(inner, outer), filling=False) for outer in twins] == ["training of the twin"] * 2
    assert phase_of(stack(inner, ("/x/src/netsmith/fit/pruning.py", "_alone")), filling=False) == "training"


@pytest.mark.parametrize(("left", "expected"), [("", True), (WHOLE[:40], True), (WHOLE, False)])
def test_a_death_by_observation_is_told_from_one_by_itself(left: str, expected: bool, tmp_path: Path) -> None:
    script = ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    process = Watched([], environment={}, log=tmp_path / "said.txt", cache=tmp_path, script=script)
    (tmp_path / "said.stack").write_text(left)
    assert process.end() == -signal.SIGSEGV
    assert process.fell_to_observation is expected


@pytest.mark.slow
def test_three_kills(test_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HARNESS), "--kills", "3", "--seed", "5", "--only", "kills", "--data", str(test_data)]
    done = subprocess.run([*command, "--work", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout
    assert "the same outcome" in done.stdout
