"""Masters are decoded once, whoever needs them first, and come to the same file; what gets in the way costs no picture
and changes no pixel."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import class_files, encoded, noise, write_files

from netsmith.data import masters as module
from netsmith.data.audit import audit
from netsmith.data.items import Dataset
from netsmith.data.masters import Encoding, Masters, encoding_that_fits, filled_ahead, masters
from netsmith.data.prepare import decode
from netsmith.data.shrink import master_shape, shrink
from netsmith.data.sources import open_source
from netsmith.data.store import write_store
from netsmith.errors import InputError
from netsmith.fit.opening import MASTER_MARGIN

SIDE = 8


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    files = class_files({"cat": 10, "dog": 10}) | {"dog/wide.jpg": encoded(noise(40, 30, 90), "JPEG")}
    return audit(open_source(write_files(tmp_path / "data", files))).dataset


def opened(dataset: Dataset, folder: Path, *, encoding: Encoding = "decoded", warn: object = None) -> Masters:
    return masters(dataset, dataset.items, side=SIDE, encoding=encoding, folder=folder, warn=warn)  # type: ignore[arg-type]


def expected(dataset: Dataset) -> list[np.ndarray]:
    return [shrink(dataset.read(item), side=SIDE) for item in dataset.items]


def check(found: Masters, pictures: Sequence[np.ndarray]) -> None:
    assert len(found) == len(pictures)
    for index, picture in enumerate(pictures):
        np.testing.assert_array_equal(found[index], picture)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "waited for nothing"
        time.sleep(0.005)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every picture decoded from here on."""
    count: list[int] = []

    def counting(*arguments: object, **settings: object) -> np.ndarray:
        count.append(1)
        return shrink(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "shrink", counting)
    return count


def test_decoded_when_needed(dataset: Dataset, tmp_path: Path, decoded: list[int]) -> None:
    found = opened(dataset, tmp_path / "c")
    assert not decoded
    check(found, expected(dataset))
    check(found, expected(dataset))
    assert len(decoded) == len(dataset.items)
    assert found.labels.tolist() == [item.label for item in dataset.items]
    assert found.keys == tuple(item.key for item in dataset.items)
    assert found.shapes[-1].tolist() == [8, 16]
    assert found.uniform is None
    with pytest.raises(ValueError, match="read-only"):
        found[0][0, 0, 0] = 1
    with pytest.raises(IndexError):
        found[len(found)]


def test_what_a_photo_takes_is_what_the_readme_says() -> None:
    height, width = master_shape(3000, 4000, side=round(MASTER_MARGIN * 224))
    assert round(3 * height * width / 1e6, 2) == 0.27


def test_uniform_pictures_are_one_array_once_they_all_are_there(dataset: Dataset, tmp_path: Path) -> None:
    found = masters(dataset, dataset.items[:8], side=SIDE, folder=tmp_path / "c")
    assert found.uniform is None
    calls: list[tuple[int, int]] = []
    found.fill(progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (8, 8)
    for again in (found, masters(dataset, dataset.items[:8], side=SIDE, folder=tmp_path / "c")):
        assert again.uniform is not None
        np.testing.assert_array_equal(again.uniform[3], expected(dataset)[3])


@pytest.mark.parametrize("order", ["needed", "fill", "ahead", "both"])
def test_the_file_is_the_one_that_decoding_beforehand_gives(
    order: str, dataset: Dataset, tmp_path: Path, decoded: list[int]
) -> None:
    found = opened(dataset, tmp_path / "c")
    shuffled = np.random.default_rng(3).permutation(len(found)).tolist()
    with filled_ahead(found, shuffled if order in ("ahead", "both") else ()):
        if order in ("needed", "both"):
            with ThreadPoolExecutor(3) as pool:
                list(pool.map(found.__getitem__, shuffled * 3))
        if order in ("ahead", "both"):
            wait_until(lambda: bool(list((tmp_path / "c").glob("*.pixels"))))
    if order in ("needed", "fill"):
        found.fill(workers=3)
    assert len(decoded) == len(found)
    (path,) = (path for path in (tmp_path / "c").iterdir() if path.suffix != ".lock")
    write_store(tmp_path / "beforehand", path.stem, expected(dataset))
    assert path.read_bytes() == (tmp_path / "beforehand").read_bytes()
    check(found, expected(dataset))  # the file has another name now, the pictures are still there
    check(opened(dataset, tmp_path / "c"), expected(dataset))
    assert len(decoded) == len(found)


def test_two_processes_fill_one_file(dataset: Dataset, tmp_path: Path, decoded: list[int]) -> None:
    one, other = opened(dataset, tmp_path / "c"), opened(dataset, tmp_path / "c")
    for index in range(12):
        one[index]
    before = len(decoded)
    check(other, expected(dataset))
    assert len(decoded) == before + len(dataset.items) - 12
    other.fill()
    check(one, expected(dataset))
    one.fill()
    assert len(decoded) == len(dataset.items)
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir()) == [".lock", ".pixels"]


FILL = """
import sys, time
from pathlib import Path
from netsmith.data import masters as module
from netsmith.data.audit import audit
from netsmith.data.masters import filled_ahead, masters
from netsmith.data.sources import open_source

real = module.shrink
def slow(image, *, side):
    picture = real(image, side=side)
    print("decoded", flush=True)
    time.sleep(0.05)
    return picture
module.shrink = slow
dataset = audit(open_source(sys.argv[1])).dataset
found = masters(dataset, dataset.items, side=8, folder=Path(sys.argv[2]))
with filled_ahead(found, range(len(found))):
    for index in reversed(range(len(found))):
        found[index]
"""


def test_killed_at_any_moment(dataset: Dataset, tmp_path: Path, decoded: list[int]) -> None:
    for count in (1, 5, 13):
        arguments = [sys.executable, "-c", FILL, str(tmp_path / "data"), str(tmp_path / "c")]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(count):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not list((tmp_path / "c").glob("*.pixels"))
    found = opened(dataset, tmp_path / "c")
    check(found, expected(dataset))
    assert 0 < len(decoded) <= len(dataset.items) - 5  # gone on with, and none trusted that is not whole
    found.fill()
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir()) == [".lock", ".pixels"]


def test_what_a_kill_left_beside_the_whole_file_goes(dataset: Dataset, tmp_path: Path) -> None:
    opened(dataset, tmp_path / "c").fill()
    (whole,) = (tmp_path / "c").glob("*.pixels")
    whole.with_suffix(".filled").write_bytes(b"marks")  # killed after the file had its name
    opened(dataset, tmp_path / "c")
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir()) == [".lock", ".pixels"]


@pytest.mark.parametrize("damage", ["pixel", "mark", "cut", "marks lost"])
def test_what_a_power_loss_tore_is_decoded_again(
    damage: str, dataset: Dataset, tmp_path: Path, decoded: list[int]
) -> None:
    first = opened(dataset, tmp_path / "c")
    for index in range(10):
        first[index]
    (growing,), (marks,) = ((tmp_path / "c").glob(f"*.{name}") for name in ("filling", "filled"))
    torn = marks if damage == "mark" else growing
    content = bytearray(torn.read_bytes())
    if damage == "cut":
        del content[-5:]
    elif damage != "marks lost":
        content[4096 + 20 if damage == "pixel" else 0] ^= 1
    torn.unlink()
    torn.write_bytes(bytes(content))
    if damage == "marks lost":
        marks.unlink()
    before = len(decoded)
    found = opened(dataset, tmp_path / "c")
    check(found, expected(dataset))
    assert len(decoded) - before == len(found) - (9 if damage in ("pixel", "mark") else 0)


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def free(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=count))


def test_where_there_is_no_room_pictures_are_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        check(opened(dataset, tmp_path / "c", warn=said.append), expected(dataset))
    with monkeypatch.context() as patch:
        free(patch, 1000)
        assert encoding_that_fits(dataset.items, side=SIDE, folder=tmp_path / "c") == "decoded"
        found = opened(dataset, tmp_path / "c", warn=said.append)
        found.fill()
        with filled_ahead(found, range(len(found))):
            check(found, expected(dataset))
    assert len(decoded) == 2 * len(dataset.items)
    assert len(said) == 2
    assert all("has no room for the decoded training pictures (0.0 MB" in text for text in said)
    assert all("(train: --workers)" in text for text in said)
    assert all(text.endswith("weights; make room or set NETSMITH_CACHE to another disk") for text in said)
    assert [path.suffix for path in (tmp_path / "c").iterdir()] == [".lock"]


@pytest.mark.parametrize("encoding", ["decoded", "re-encoded"])
def test_what_a_full_cache_holds_already_is_said(
    encoding: Encoding, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "earlier.pixels").write_bytes(np.random.default_rng(0).bytes(3_000_000))
    free(monkeypatch, 1000)
    said: list[str] = []
    opened(dataset, tmp_path / "c", encoding=encoding, warn=said.append)
    assert re.search(r"make room \(what it holds already, 3\.\d MB, may be deleted when no command runs\)", said[0])


def test_pixels_that_memory_will_not_hold_are_said_once(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(picture.size for picture in expected(dataset))

    def told(memory: int, folder: str = "c") -> list[str]:
        said: list[str] = []
        monkeypatch.setattr(module, "machine", lambda: SimpleNamespace(memory_bytes=memory))
        opened(dataset, tmp_path / folder, warn=said.append)
        return said

    assert told(needed) == told(0) == []  # 0: unknown
    for fill in (False, True):
        if fill:
            opened(dataset, tmp_path / "c").fill()
        (said,) = told(needed - 1)
        assert "are more than this machine's memory" in said
    free(monkeypatch, 0)
    (said,) = told(needed - 1, "d")  # nothing is kept, so nothing is read again
    assert "has no room" in said


@pytest.mark.parametrize("how", ["needed", "fill", "ahead"])
def test_a_disk_that_fills_up_in_the_middle(
    how: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    real, calls = os.pwrite, [0]

    def pwrite(file: int, content: bytes, offset: int) -> int:
        calls[0] += 1
        return real(file, content, offset) if calls[0] < 14 else full()

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        found = opened(dataset, tmp_path / "c", warn=said.append)
        if how == "fill":
            found.fill()
        with filled_ahead(found, range(len(found)) if how == "ahead" else ()):
            check(found, expected(dataset))
        check(found, expected(dataset))
    assert len(said) == 1
    assert "cannot be kept any more (No space left on device)" in said[0]
    assert not list((tmp_path / "c").glob("*.pixels"))
    again = opened(dataset, tmp_path / "c")
    again.fill()
    check(again, expected(dataset))
    assert sorted(path.suffix for path in (tmp_path / "c").iterdir()) == [".lock", ".pixels"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(place: Path) -> None:
    with open(place / "other", "wb", buffering=0) as handle, suppress(OSError):
        while True:
            handle.write(bytes(4096))


@pytest.mark.parametrize("encoding", ["decoded", "re-encoded"])
def test_on_a_disk_that_others_fill_up(
    encoding: Encoding, small_disk: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_FREE", 0)
    plenty = opened(dataset, tmp_path / "plenty", encoding=encoding)
    pictures = [np.array(plenty[index]) for index in range(len(plenty))]
    said: list[str] = []
    found = opened(dataset, small_disk, encoding=encoding, warn=said.append)
    np.testing.assert_array_equal(found[3], pictures[3])
    fill_up(small_disk)
    check(found, pictures)
    found.fill()
    check(found, pictures)
    if encoding == "decoded":  # its room was reserved
        assert said == []
        assert list(small_disk.glob("*.pixels"))
    else:
        assert "cannot be kept any more (No space left on device)" in said[-1]
        check(opened(dataset, small_disk, encoding=encoding), pictures)
    said.clear()
    check(masters(dataset, dataset.items, side=9, folder=small_disk, warn=said.append), [
        shrink(dataset.read(item), side=9) for item in dataset.items
    ])  # fmt: skip
    assert "has no room" in said[0]


def test_a_folder_that_cannot_be_written_is_said(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def readonly(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / "file").write_text("mine")
    for call in (
        lambda: opened(dataset, tmp_path / "file" / "pixels"),
        lambda: encoding_that_fits(dataset.items, side=SIDE, folder=tmp_path / "file"),
    ):
        with pytest.raises(
            InputError, match=r"cannot be kept in .*file.*(Not a directory|File exists).*NETSMITH_CACHE"
        ):
            call()
    monkeypatch.setattr(os, "posix_fallocate", readonly)
    with pytest.raises(InputError, match="Read-only.*NETSMITH_CACHE"):
        opened(dataset, tmp_path / "c")


def test_a_limit_on_the_size_of_files(dataset: Dataset, tmp_path: Path) -> None:
    said: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # ulimit -f
    try:
        check(opened(dataset, tmp_path / "c", warn=said.append), expected(dataset))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "has no room" in said[0]


def test_which_encoding_fits(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fits() -> Encoding:
        return encoding_that_fits(dataset.items, side=SIDE, folder=tmp_path / "c")

    needed = sum(picture.size for picture in expected(dataset))
    assert fits() == "decoded"
    free(monkeypatch, module.KEPT_FREE + needed)
    assert fits() == "decoded"
    free(monkeypatch, module.KEPT_FREE + needed - 1)
    assert fits() == "re-encoded"
    free(monkeypatch, module.KEPT_FREE)
    assert fits() == "decoded"  # from the source, at every use
    free(monkeypatch, 1 << 40)
    opened(dataset, tmp_path / "c").fill()
    free(monkeypatch, 0)
    assert fits() == "decoded"  # it is there


def test_re_encoded_pictures_are_the_same_kept_or_not(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    said: list[str] = []
    first = opened(dataset, tmp_path / "c", encoding="re-encoded", warn=said.append)
    pictures = [np.array(first[index]) for index in range(len(first))]
    for picture, exact in zip(pictures, expected(dataset), strict=True):
        assert picture.shape == exact.shape
        assert 0 < np.abs(picture.astype(int) - exact).mean() < 12
    check(first, pictures)
    beside = opened(dataset, tmp_path / "c", encoding="re-encoded")  # another process holds the file: reads only
    check(beside, pictures)
    assert len(decoded) == len(pictures)
    assert first.uniform is None
    del first, beside
    (path,) = (tmp_path / "c").glob("*.jpegs")
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF
    path.write_bytes(bytes(content))
    check(opened(dataset, tmp_path / "c", encoding="re-encoded"), pictures)
    assert len(decoded) == len(pictures) + 1
    free(monkeypatch, 0)
    check(opened(dataset, tmp_path / "d", encoding="re-encoded", warn=said.append), pictures)
    assert not list((tmp_path / "d").glob("*.jpegs"))
    assert "and decoded whenever" in said[0]
    assert "made anew whenever" in said[1]


def test_a_picture_that_vanishes(dataset: Dataset, tmp_path: Path) -> None:
    lost = tmp_path / "data" / "cat" / "7.png"
    index = [item.name for item in dataset.items].index("cat/7.png")
    found = opened(dataset, tmp_path / "c")
    pictures = expected(dataset)
    content = lost.read_bytes()
    for change in (lost.unlink, lambda: lost.write_bytes(content + b"x")):
        change()
        with filled_ahead(found, range(len(found))):
            check_all_but(found, pictures, index)
            with pytest.raises(InputError, match=r"^cat/7\.png .*, and training needs it: put it back") as refused:
                found[index]
        assert "mend it" not in str(refused.value)
    assert not list((tmp_path / "c").glob("*.pixels"))
    shutil.rmtree(tmp_path / "data")  # the others need no file any more
    check_all_but(found, pictures, index)
    lost.parent.mkdir(parents=True)
    lost.write_bytes(content)
    found.fill()
    check(found, pictures)
    assert list((tmp_path / "c").glob("*.pixels"))


def check_all_but(found: Masters, pictures: Sequence[np.ndarray], index: int) -> None:
    for other, picture in enumerate(pictures):
        if other != index:
            np.testing.assert_array_equal(found[other], picture)


def test_a_defect_in_the_background_is_not_silent(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> np.ndarray:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "shrink", broken)
    with pytest.raises(ZeroDivisionError), filled_ahead(opened(dataset, tmp_path / "c"), [3]):
        time.sleep(0.05)


def test_grey_arrays(tmp_path: Path) -> None:
    images = np.stack([noise(seed, 6, 6)[..., 0] for seed in range(12)])
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(12) % 2)
    dataset = audit(open_source(tmp_path / "x.npz")).dataset
    found = opened(dataset, tmp_path / "c")
    found.fill()
    np.testing.assert_array_equal(found.uniform, images[..., None].repeat(3, 3))


@pytest.mark.parametrize("simplejpeg", [True, False])
def test_shapes_are_known_before_anything_is_decoded(simplejpeg: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not simplejpeg:
        monkeypatch.setattr("netsmith.data.shrink._simplejpeg", lambda: None)
    draw = np.random.default_rng(0)
    for form in ("JPEG", "PNG"):
        for _ in range(60):
            height, width, side = (int(number) for number in draw.integers(1, 150, 3))
            content = encoded(noise(1, height, width), form)
            assert shrink(content, side=side).shape[:2] == master_shape(height, width, side=side), (form, height, width)


def test_jpegs_are_decoded_at_the_smallest_power_of_two_that_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(noise(1, 161, 322), "JPEG")
    for side, decoded in ((162, 161), (82, 161), (81, 81), (60, 81), (41, 41), (40, 41), (21, 21), (2, 21)):
        for name in ("simplejpeg", "pillow"):
            seen: list[tuple[int, ...]] = []

            def watched(pixels: np.ndarray, limit: int, seen: list[tuple[int, ...]] = seen) -> np.ndarray:
                seen.append(pixels.shape)
                return pixels

            with monkeypatch.context() as patch:
                patch.setattr("netsmith.data.shrink.centre", watched)
                if name == "pillow":
                    patch.setattr("netsmith.data.shrink._simplejpeg", lambda: None)
                shrink(content, side=side)
            assert [shape[0] for shape in seen] == [decoded], (name, side)


@pytest.mark.slow
def test_real_photos(test_data: Path, tmp_path: Path) -> None:
    dataset = audit(open_source(test_data / "flowers-sample" / "flowers-sample.zip")).dataset
    found = masters(dataset, dataset.items, side=64, folder=tmp_path)
    for index in range(0, len(found), 9):
        exact = shrink(decode(dataset.read(dataset.items[index])), side=64)  # type: ignore[arg-type]
        assert exact.shape == found[index].shape
        assert np.abs(exact.astype(int) - found[index]).mean() < 6
