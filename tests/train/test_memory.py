"""The allocator's settings and their switch."""

import os
import platform
import subprocess
import sys

import pytest

COMMAND = "from netsmith.train.memory import keep_large_blocks; print(keep_large_blocks())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings are glibc's")
@pytest.mark.parametrize(("value", "expected"), [("1", "True"), ("0", "False")])
def test_glibc_takes_the_settings_unless_switched_off(value: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env=os.environ | {"NETSMITH_KEEP_MEMORY": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
