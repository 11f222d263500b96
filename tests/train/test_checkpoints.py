"""Checkpoints: whole or passed over, of this run or refused, the newest kept."""

import errno
import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from netsmith.errors import InputError
from netsmith.train import checkpoints as module
from netsmith.train.checkpoints import Checkpoint, Identity, load_checkpoint, save_checkpoint, steps_saved

OURS = Identity(recipe={"lr": 0.1, "model": "tiny"}, data="d")
SHAPES = {"network.conv.weight": (4, 3, 3, 3), "network.count": ()}


def tensors(value: float = 1.0) -> dict[str, Tensor]:
    weight = torch.full((4, 3, 3, 3), value).contiguous(memory_format=torch.channels_last)
    return {
        "network.conv.weight": weight,
        "network.count": torch.tensor(7),
        "optimizer.conv.weight.momentum_buffer": weight / 3,
    }


def save(folder: Path, step: int) -> None:
    save_checkpoint(folder, step=step, tensors=tensors(step / 7), identity=OURS, state={"elapsed": step / 3})


def load(folder: Path, *, identity: Identity = OURS, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Checkpoint | None:
    return load_checkpoint(folder, identity=identity, shapes=shapes, warn=pytest.fail)


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path, 5)
    found = load(tmp_path)
    assert found is not None
    assert (found.step, found.state) == (5, {"elapsed": 5 / 3})
    for name, tensor in tensors(5 / 7).items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_the_newest_two_are_kept_and_no_temporary_file(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        save(tmp_path, step)
    assert steps_saved(tmp_path) == [11, 10]
    assert len(list(tmp_path.iterdir())) == 4


def test_an_absent_folder_holds_none(tmp_path: Path) -> None:
    assert load(tmp_path / "none") is None


def tensors_cut_short(folder: Path) -> None:
    path = folder / "step-00000002.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def tensors_flipped(folder: Path) -> None:
    path = folder / "step-00000002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def tensors_missing(folder: Path) -> None:
    (folder / "step-00000002.safetensors").unlink()


def record_cut_short(folder: Path) -> None:
    path = folder / "step-00000002.json"
    path.write_bytes(path.read_bytes()[:40])


def tensors_a_pickle(folder: Path) -> None:
    (folder / "step-00000002.safetensors").write_bytes(pickle.dumps(tensors()))


DAMAGE = [tensors_cut_short, tensors_flipped, tensors_missing, record_cut_short, tensors_a_pickle]


def said_of_going_on_from_the_first(folder: Path) -> str:
    said: list[str] = []
    found = load_checkpoint(folder, identity=OURS, shapes=SHAPES, warn=said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    return said[0]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_passed_over_with_a_word(tmp_path: Path, damage: object) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    damage(tmp_path)  # pyright: ignore
    said = said_of_going_on_from_the_first(tmp_path)
    assert "step-00000002" in said
    assert "damaged" in said


def test_tensors_without_a_record_were_never_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "step-00000002.json").unlink()  # killed between the two files
    found = load(tmp_path)
    assert found is not None
    assert found.step == 1
    save(tmp_path, 2)
    assert steps_saved(tmp_path) == [2, 1]


def test_when_all_are_damaged_nothing_is_guessed(tmp_path: Path) -> None:
    save(tmp_path, 2)
    tensors_cut_short(tmp_path)
    with pytest.raises(InputError, match="every checkpoint in .* is damaged"):
        load_checkpoint(tmp_path, identity=OURS, shapes=SHAPES, warn=lambda text: None)


def test_later_ones_that_were_passed_over_do_not_push_out_good_ones(tmp_path: Path) -> None:
    for step in (8, 9):
        save(tmp_path, step)
        for path in tmp_path.glob(f"step-{step:08d}.safetensors"):
            path.write_bytes(b"")
    save(tmp_path, 5)
    save(tmp_path, 6)
    assert steps_saved(tmp_path) == [6, 5]


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (Identity(recipe={"lr": 0.2, "model": "tiny"}, data="d"), "with lr 0.1 and not 0.2"),
        (Identity(recipe={"lr": 0.1, "model": "other"}, data="d"), "with model tiny and not other"),
        (Identity(recipe={"lr": 0.1, "model": "tiny"}, data="e"), "on other data"),
    ],
)
def test_another_recipe_or_other_data_is_refused(tmp_path: Path, identity: Identity, words: str) -> None:
    save(tmp_path, 3)
    with pytest.raises(InputError, match=words):
        load(tmp_path, identity=identity)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (SHAPES | {"network.fc.bias": (3,)}, "it lacks fc.bias"),
        ({"network.count": ()}, "it holds conv.weight"),
        (
            SHAPES | {"network.conv.weight": (8, 3, 3, 3)},
            r"conv.weight has shape \[4, 3, 3, 3\] and not \[8, 3, 3, 3\]",
        ),
    ],
)
def test_another_network_is_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], words: str) -> None:
    save(tmp_path, 3)
    with pytest.raises(InputError, match=words):
        load(tmp_path, shapes=shapes)


@pytest.mark.parametrize("failing", ["write_bytes", "write_json"])
def test_a_full_disk_leaves_the_checkpoints_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    save(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(module, failing, full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 2)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    found = load(tmp_path)
    assert found is not None
    assert found.step == 1


@pytest.mark.slow
def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of its own that is too small, where this machine lets a test mount one (as root)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount: {made.stderr.decode().strip()}")
    try:
        save(disk / "checkpoints", 1)
        big = tensors() | {"network.big": torch.zeros(100_000)}
        with pytest.raises(OSError, match="No space") as caught:
            save_checkpoint(disk / "checkpoints", step=2, tensors=big, identity=OURS, state={})
        assert caught.value.errno == errno.ENOSPC
        assert len(list((disk / "checkpoints").iterdir())) == 2
        found = load(disk / "checkpoints")
        assert found is not None
        assert found.step == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_record_names_what_it_belongs_to(tmp_path: Path) -> None:
    save(tmp_path, 4)
    record = json.loads((tmp_path / "step-00000004.json").read_text())
    assert record["format"] == 1
    assert record["identity"]["recipe"] == OURS.recipe
    assert record["bytes"] == (tmp_path / "step-00000004.safetensors").stat().st_size


def test_one_that_the_disk_does_not_give_back_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "step-00000002.safetensors":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    said = said_of_going_on_from_the_first(tmp_path)
    assert "step-00000002.json is damaged (it cannot be read, Input/output error) and is passed over" in said
