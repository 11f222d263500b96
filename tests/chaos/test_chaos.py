"""The fault harness itself, in its smallest size: `make chaos` is the whole of it."""

import subprocess
import sys
from pathlib import Path

import pytest
from faults import Blow
from watched import STARTING, frames_of_netsmith, phase_of

HARNESS = Path(__file__).parent


def stack(*frames: tuple[str, str]) -> str:
    """As faulthandler writes it."""
    lines = [f'  File "{path}", line 1 in {function}' for path, function in frames]
    return "\n".join(["Current thread 0x1 (most recent call first):", *lines])


def test_only_kills_of_train_count_for_what_was_asked() -> None:
    blows = [Blow("SIGKILL", phase) for phase in ("training", "fit: training", "prune: starting", "starting")]
    assert [blow.of_train for blow in blows] == [True, False, False, True]


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


@pytest.mark.slow
def test_three_kills(test_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HARNESS), "--kills", "3", "--seed", "5", "--only", "kills", "--data", str(test_data)]
    done = subprocess.run([*command, "--work", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout
    assert "the same outcome" in done.stdout
