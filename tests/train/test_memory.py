"""The allocator's settings and their switch."""

import os
import platform
import subprocess
import sys

import pytest

COMMAND = "from netsmith.train import memory; print(memory.keep_large_blocks(), memory.give_back_large_blocks())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings are glibc's")
@pytest.mark.parametrize(("value", "expected"), [("1", "True True"), ("0", "False False")])
def test_glibc_takes_the_settings_unless_switched_off(value: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env=os.environ | {"NETSMITH_KEEP_MEMORY": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
