"""A cold cache as a person meets it: killed or robbed of a picture while the first epoch decodes, and gone on with."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import encoded, noise, write_files

from netsmith.run.files import sha256_file

COMMAND = [sys.executable, "-m", "netsmith", "train", "photos", "--model", "resnet20_cifar@0.25", "--epochs", "2"]
COMMAND += ["--threads", "1", "--img-size", "32", "-q"]
COUNT = 400


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of the size of photos, and what undisturbed training makes of them."""
    root = tmp_path_factory.mktemp("cold")
    files = {f"photos/{'ab'[n % 2]}/{n}.jpg": encoded(noise(n, 600, 800), "JPEG", quality=90) for n in range(COUNT)}
    write_files(root, files)
    assert typed(root, "whole")[0] == 0
    return root


def started(place: Path, name: str) -> "subprocess.Popen[str]":
    """A run with a cache of its own, begun or gone on with."""
    environment = os.environ | {"NETSMITH_CACHE": str(place / f"{name}-cache")}
    command = [*COMMAND, "-o", name, "--resume"]
    return subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)


def typed(place: Path, name: str) -> tuple[int, str]:
    process = started(place, name)
    _, said = process.communicate()
    return process.returncode, said


def weights(place: Path, name: str) -> str:
    return sha256_file(place / name / "model" / "model.safetensors")


def decoded(place: Path, name: str) -> int:
    """Pictures that are in the growing cache."""
    marks = [path.read_bytes() for path in (place / f"{name}-cache" / "pixels").glob("*.filled")]
    return sum(content[4::8].count(1) for content in marks)


def wait(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> bool:
    while process.poll() is None and not condition():
        time.sleep(0.002)
    return process.poll() is None


@pytest.mark.slow
def test_killed_while_the_first_epoch_decodes(place: Path) -> None:
    draw = random.Random(0)
    seen = 0
    for _ in range(4):
        process = started(place, "killed")
        wanted = seen + draw.randrange(1, (COUNT - seen) // 3)  # the machine may decode some more before it kills
        assert wait(process, lambda wanted=wanted: decoded(place, "killed") >= wanted)
        process.kill()
        process.communicate()
        before, seen = seen, decoded(place, "killed")
        assert before < seen <= COUNT
    code, said = typed(place, "killed")
    assert code == 0, said
    assert weights(place, "killed") == weights(place, "whole")


@pytest.mark.slow
def test_a_picture_that_vanishes_meanwhile(place: Path) -> None:
    process = started(place, "robbed")
    assert wait(process, lambda: decoded(place, "robbed") >= 5)
    os.rename(place / "photos", place / "elsewhere")
    _, said = process.communicate()
    os.rename(place / "elsewhere", place / "photos")
    assert process.returncode == 2, said
    assert "Traceback" not in said
    assert "and training needs it: put it back" in said.splitlines()[-1]
    code, said = typed(place, "robbed")
    assert code == 0, said
    assert weights(place, "robbed") == weights(place, "whole")
