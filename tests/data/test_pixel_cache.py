"""Pixel caches hold exactly what they say, survive kill -9, damage, a full disk and a second process."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import class_files, encoded, noise, write_files

from netsmith.data import cache
from netsmith.data.audit import audit
from netsmith.data.items import Dataset
from netsmith.data.prepare import prepare
from netsmith.data.sources import open_source
from netsmith.errors import InputError
from netsmith.run.preprocess import Preprocess

RULE = Preprocess(size=10, crop=0.9)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    files = class_files({"cat": 4, "dog": 4}) | {"dog/wide.jpg": encoded(noise(40, 30, 90), "JPEG")}
    return audit(open_source(write_files(tmp_path / "data", files))).dataset


def test_prepared_is_exact_and_pickles_small(dataset: Dataset, tmp_path: Path) -> None:
    found = cache.prepared(dataset, dataset.items, RULE, folder=tmp_path / "c")
    expected = np.stack([prepare(dataset.read(item), RULE) for item in dataset.items])
    np.testing.assert_array_equal(found.pixels, expected)
    content = pickle.dumps(found)
    assert len(content) < 3000
    np.testing.assert_array_equal(pickle.loads(content).pixels, expected)
    assert len(cache.prepared(dataset, (), RULE, folder=tmp_path / "c").pixels) == 0


def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the builds from here on."""
    count: list[int] = []
    real = cache.write_store

    def counting(*args: object) -> None:
        count.append(1)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "write_store", counting)
    return count


def test_found_again_and_keyed_by_content_settings_and_order(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = built(monkeypatch)
    folder = tmp_path / "c"
    for _ in range(2):
        cache.prepared(dataset, dataset.items, RULE, folder=folder)
    assert len(count) == 1
    cache.prepared(dataset, dataset.items, RULE.model_copy(update={"mean": (0.0, 0.0, 0.0)}), folder=folder)
    assert len(count) == 1  # mean and std are the model's, not the pixels'
    cache.prepared(dataset, dataset.items, RULE.model_copy(update={"crop": 1.0}), folder=folder)
    cache.prepared(dataset, dataset.items[::-1], RULE, folder=folder)
    assert len(count) == 3


@pytest.mark.parametrize("damage", ["cut", "header", "index", "empty", "longer", "other"])
def test_damage_is_seen_and_mended(
    damage: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "c"

    def build() -> np.ndarray:
        return np.array(cache.prepared(dataset, dataset.items, RULE, folder=folder).pixels)

    expected = build()
    (path,) = folder.glob("*.pixels")
    content = path.read_bytes()
    flipped = {"header": 30, "index": len(content) - 40}.get(damage)
    if flipped is not None:
        content = content[:flipped] + bytes([content[flipped] ^ 0x55]) + content[flipped + 1 :]
    damaged = {"cut": content[:-10], "empty": b"", "longer": content + b"x", "other": b"{}" + content[2:]}
    path.write_bytes(damaged.get(damage, content))
    count = built(monkeypatch)
    np.testing.assert_array_equal(build(), expected)
    assert len(count) == 1


def test_a_flipped_evaluation_pixel_is_seen(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    expected = np.array(cache.prepared(dataset, dataset.items, RULE, folder=folder).pixels)
    (path,) = folder.glob("*.pixels")
    content = bytearray(path.read_bytes())
    content[4096 + 700] ^= 1
    path.write_bytes(bytes(content))
    np.testing.assert_array_equal(cache.prepared(dataset, dataset.items, RULE, folder=folder).pixels, expected)


def test_a_lost_picture_is_named_or_dropped_and_comes_back(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lost = tmp_path / "c", tmp_path / "data" / "cat" / "2.png"
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(InputError, match=r"cat/2\.png cannot be read"):
        cache.prepared(dataset, dataset.items, RULE, folder=folder)
    assert not list(folder.glob("*.pixels"))
    assert not list(folder.glob(".*"))
    count = built(monkeypatch)
    told: list[tuple[str, str]] = []
    for _ in range(2):
        found = cache.prepared(
            dataset,
            dataset.items,
            RULE,
            folder=folder,
            on_missing=lambda item, reason: told.append((item.name, reason)),
        )
        assert len(found) == len(found.labels) == len(found.pixels) == 8
        kept = [item for item in dataset.items if item.name != "cat/2.png"]
        assert found.keys == tuple(item.key for item in kept)
        np.testing.assert_array_equal(found.pixels[2], prepare(dataset.read(kept[2]), RULE))
    assert [name for name, _ in told] == ["cat/2.png"] * 2
    assert len(count) == 1
    with pytest.raises(InputError, match=r"cat/2\.png"):
        cache.prepared(dataset, dataset.items, RULE, folder=folder)
    lost.write_bytes(content)
    assert len(cache.prepared(dataset, dataset.items, RULE, folder=folder)) == 9


def test_a_full_disk_says_where_and_leaves_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("netsmith.run.files.os.fsync", full)
    with pytest.raises(InputError, match="No space left.*NETSMITH_CACHE"):
        cache.prepared(dataset, dataset.items, RULE, folder=tmp_path / "c")
    assert not [path for path in (tmp_path / "c").iterdir() if path.suffix != ".lock"]


BUILD = """
import hashlib, sys, time
from pathlib import Path
import netsmith.data.cache as cache
from netsmith.data.audit import audit
from netsmith.data.sources import open_source
from netsmith.run.preprocess import Preprocess

real = cache.prepare
def slow(image, preprocess):
    with open(sys.argv[3], "a") as log:
        log.write("x")
    time.sleep(float(sys.argv[4]))
    return real(image, preprocess)
cache.prepare = slow
dataset = audit(open_source(sys.argv[1])).dataset
found = cache.prepared(dataset, dataset.items, Preprocess(size=10, crop=0.9), folder=Path(sys.argv[2]), workers=1)
print(hashlib.sha256(found.store.pixels.tobytes()).hexdigest())
"""


def start(tmp_path: Path, delay: float) -> "subprocess.Popen[str]":
    arguments = [str(tmp_path / "data"), str(tmp_path / "c"), str(tmp_path / "log"), str(delay)]
    return subprocess.Popen([sys.executable, "-c", BUILD, *arguments], stdout=subprocess.PIPE, text=True)


def decoded(tmp_path: Path) -> int:
    return len((tmp_path / "log").read_text()) if (tmp_path / "log").exists() else 0


def test_kill_at_any_moment_leaves_no_half_cache(dataset: Dataset, tmp_path: Path) -> None:
    for after in (1, 4, 9):
        (tmp_path / "log").write_text("")
        process = start(tmp_path, 0.1)
        while decoded(tmp_path) < after:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not list((tmp_path / "c").glob("*.pixels"))
    assert list((tmp_path / "c").glob(".*.tmp"))
    found = cache.prepared(dataset, dataset.items, RULE, folder=tmp_path / "c")
    np.testing.assert_array_equal(found.pixels[0], prepare(dataset.read(dataset.items[0]), RULE))
    assert not list((tmp_path / "c").glob(".*.tmp"))


def test_two_processes_build_once(dataset: Dataset, tmp_path: Path) -> None:
    both = [start(tmp_path, 0.05) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert outputs[0] == outputs[1] != ""
    assert decoded(tmp_path) == len(dataset.items)


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETSMITH_CACHE", str(tmp_path))
    assert cache.cache_root() == tmp_path
    monkeypatch.delenv("NETSMITH_CACHE")
    assert cache.cache_root() == Path.home() / ".cache" / "netsmith"
