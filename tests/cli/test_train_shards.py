"""Training from tar shards, as typed: what comes of it is what comes of the folders that the shards were made of."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from cut_short import ends_when_exported
from pictures import class_files, write_files
from tar_shards import write_shards

from netsmith.cli.main import run
from netsmith.data import masters
from netsmith.run.files import sha256_file

FILES = class_files({"cat": 24, "dog": 24})
TRAIN = ["--model", "resnet8_cifar@0.5", "--img-size", "16", "--epochs", "3", "-b", "8", "--threads", "1", "-q"]


@pytest.fixture(autouse=True)
def cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring and verifying is no matter of where pictures are from."""
    ends_when_exported(monkeypatch)


def trained(source: Path, place: Path) -> dict[str, str]:
    """Hashes of the exported files."""
    assert run(["train", str(source), *TRAIN, "-o", str(place)]) == 1
    return {name: sha256_file(place / "model" / name) for name in ("model.safetensors", "model.onnx", "golden.npz")}


def test_shards_without_room_for_a_cache_come_to_the_weights_of_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained(write_files(tmp_path / "folders", FILES), tmp_path / "from-folders")
    assert capsys.readouterr().err == "netsmith: exported\n"
    assert write_shards(tmp_path / "shards", FILES, per_shard=16) == 3
    monkeypatch.setenv("NETSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(masters.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert trained(tmp_path / "shards" / "part-{000..002}.tar", tmp_path / "from-shards") == expected
    assert "has no room for the decoded training pictures" in capsys.readouterr().err
