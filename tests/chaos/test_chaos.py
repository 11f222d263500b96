"""The fault harness itself, in its smallest size: `make chaos` is the whole of it."""

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent


@pytest.mark.slow
def test_three_kills(test_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HARNESS), "--kills", "3", "--seed", "5", "--only", "kills", "--data", str(test_data)]
    done = subprocess.run([*command, "--work", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout
    assert "the same outcome" in done.stdout
