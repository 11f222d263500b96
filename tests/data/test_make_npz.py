"""`benchmarks/make_npz.py`: the packed sets become sources, and a changed file is refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from netsmith.data.sources import open_source

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    script = str(ROOT / "benchmarks" / "make_npz.py")
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


def test_fashion_mnist(test_data: Path, tmp_path: Path) -> None:
    done = make("-o", str(tmp_path), "--data", str(test_data), "fashion-mnist")
    assert (done.returncode, done.stderr) == (0, "")
    source = open_source(tmp_path / "fashion-mnist.npz")
    assert (source.classes[0], source.classes[9]) == ("T-shirt/top", "Ankle boot")
    splits = [entry.split for entry in source.entries]
    assert splits == ["train"] * 60_000 + ["test"] * 10_000
    assert np.bincount([entry.labels[0] for entry in source.entries[60_000:]]).tolist() == [1000] * 10
    assert source.reader.read("images[0]").shape == (28, 28)


@pytest.mark.slow
def test_cifar10(test_data: Path, tmp_path: Path) -> None:
    done = make("-o", str(tmp_path), "--data", str(test_data), "cifar10")
    assert (done.returncode, done.stderr) == (0, "")
    source = open_source(tmp_path / "cifar10.npz")
    assert np.bincount([entry.labels[0] for entry in source.entries[50_000:]]).tolist() == [1000] * 10
    assert source.classes[3] == "cat"


def test_a_changed_file_is_refused(test_data: Path, tmp_path: Path) -> None:
    packed = tmp_path / "data" / "fashion-mnist"
    packed.mkdir(parents=True)
    (tmp_path / "data" / "README.md").write_bytes((test_data / "README.md").read_bytes())
    content = bytearray((test_data / "fashion-mnist" / "train-images-idx3-ubyte.xz").read_bytes())
    content[5000] ^= 1
    (packed / "train-images-idx3-ubyte.xz").write_bytes(content)
    done = make("-o", str(tmp_path / "out"), "--data", str(tmp_path / "data"), "fashion-mnist")
    assert done.returncode == 2
    assert "SHA-256" in done.stderr
    assert not (tmp_path / "out").exists()
