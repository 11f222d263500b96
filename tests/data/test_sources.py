"""Every kind of source, and what is said about what cannot be used."""

import io
import os
import pickle
import sys
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pictures import class_files, encoded, noise, write_files

from netsmith.data.archives import Limits
from netsmith.data.audit import audit
from netsmith.data.folders import open_folder
from netsmith.data.items import Source
from netsmith.data.layout import VAL_IS_TEST
from netsmith.data.sources import open_source
from netsmith.errors import InputError

FILES = class_files({"cat": 3, "dog": 2})


def rows(source: Source) -> set[tuple[str, str, str | None]]:
    return {(entry.name, source.classes[entry.labels[0]], entry.split) for entry in source.entries}


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def under(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}/{name}": content for name, content in files.items()}


def test_class_folders(tmp_path: Path) -> None:
    source = open_source(write_files(tmp_path / "pets", FILES))
    assert source.classes == ("cat", "dog")
    assert rows(source) == {(name, name.split("/")[0], None) for name in FILES}
    assert {source.reader.read(name) for name in FILES} == set(FILES.values())
    assert not source.strays


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "validation", "testing"), ("train", "valid", "test")]
)
def test_split_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_files(tmp_path, under(name, FILES))
    source = open_source(tmp_path)
    assert source.classes == ("cat", "dog")
    expected = zip(names, ("train", "val", "test"), strict=True)
    assert rows(source) == {(f"{top}/{name}", name[:3], side) for top, side in expected for name in FILES}
    assert not source.notes


def test_val_becomes_test_when_there_is_no_test(tmp_path: Path) -> None:
    write_files(tmp_path, under("train", FILES) | under("val", FILES))
    source = open_source(str(tmp_path))
    assert {entry.split for entry in source.entries} == {"train", "test"}
    assert source.notes == (VAL_IS_TEST,)


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        ({"train/1.png": b"", "bus/1.png": b""}, ("bus", "train")),  # trains, a class
        ({"train/a/1.png": b"", "bus/b/1.png": b""}, ("bus", "train")),
        ({"a/deep/er/1.png": b"", "b/1.png": b""}, ("a", "b")),
        ({"train/a/1.png": b"", "train/b/1.png": b""}, ("a", "b")),
    ],
)
def test_what_is_a_class(tmp_path: Path, files: dict[str, bytes], classes: tuple[str, ...]) -> None:
    assert open_source(write_files(tmp_path, files)).classes == classes


def test_junk_is_ignored_and_strays_are_reported(tmp_path: Path) -> None:
    junk = {
        ".DS_Store": b"x",
        "cat/.hidden.png": b"x",
        "__MACOSX/cat/._0.png": b"x",
        ".git/config": b"",
        "cat/Thumbs.db": b"",
    }
    write_files(tmp_path, FILES | junk | {"cat/notes.txt": b"hello", "top.png": b"x", "dog/0.heic": b"x"})
    (tmp_path / "mouse").mkdir()
    source = open_source(tmp_path)
    assert {entry.name for entry in source.entries} == set(FILES)
    assert {stray.name for stray in source.strays} == {"cat/notes.txt", "top.png", "dog/0.heic", "mouse"}
    assert "HEIC" in source.notes[0]


def test_links_loops_pipes_and_odd_names_survive(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", FILES)
    odd = os.fsencode(root) + b"/cat/caf\xe9\n.png"
    with open(odd, "wb") as handle:
        handle.write(encoded(noise(99)))
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "gone.png").symlink_to(root / "nothing.png")
    elsewhere = write_files(tmp_path / "elsewhere", {"1.png": encoded(noise(98))})
    (root / "bird").symlink_to(elsewhere)
    os.mkfifo(root / "dog" / "pipe.png")
    source = open_source(root)
    assert source.classes == ("bird", "cat", "dog")
    name = "cat/caf\\udce9\n.png"
    assert source.reader.read(name) == encoded(noise(99))
    assert pickle.loads(pickle.dumps(source)).reader.read(name) == encoded(noise(99))
    reasons = {stray.name: stray.reason for stray in source.strays}
    assert "leads back" in reasons["cat/loop"]
    assert "neither" in reasons["dog/pipe.png"]
    with pytest.raises(InputError, match="cannot be read"):
        source.reader.read("cat/gone.png")


@pytest.mark.parametrize("wrapping", ["", "pets-1.0/"])
@pytest.mark.parametrize("form", ["zip", "zip-stored", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives(tmp_path: Path, form: str, wrapping: str) -> None:
    files = {wrapping + name: content for name, content in FILES.items()}
    path = tmp_path / f"pets.{form.split('-')[0]}"
    if form.startswith("zip"):
        zipped(path, files, zipfile.ZIP_STORED if form == "zip-stored" else zipfile.ZIP_DEFLATED)
    else:
        tarred(path, files, "w:" + form.partition(".")[2])
    for _ in range(2):
        source = open_source(path, scratch=tmp_path / "scratch")
        assert rows(source) == {(name, name.removeprefix(wrapping)[:3], None) for name in files}
        again = pickle.loads(pickle.dumps(source.reader))
        for name, content in files.items():
            assert source.reader.read(name) == again.read(name) == content
    kept = list((tmp_path / "scratch").iterdir()) if (tmp_path / "scratch").exists() else []
    assert len(kept) == ("." in form)


def test_archive_of_splits_and_junk(tmp_path: Path) -> None:
    files = under("data/train", FILES) | under("data/test", FILES) | {"__MACOSX/data/._x": b"", "./data/.DS_Store": b""}
    source = open_source(zipped(tmp_path / "x.zip", files))
    assert {entry.split for entry in source.entries} == {"train", "test"}
    assert source.classes == ("cat", "dog")


def test_csv(tmp_path: Path) -> None:
    write_files(tmp_path / "pictures", FILES)
    table = tmp_path / "labels.csv"
    lines = ["image_path,label,split,extra"]
    lines += [f"pictures/{name},{name[:3].upper()},{'Test' if '0' in name else ''},x" for name in FILES]
    table.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    source = open_source(table)
    assert source.classes == ("CAT", "DOG")
    assert rows(source) == {(f"pictures/{n}", n[:3].upper(), "test" if "0" in n else None) for n in FILES}
    assert source.reader.read("pictures/cat/1.png") == FILES["cat/1.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column 'image_path' and 'label'"),
        ("path,label\n", "no column 'image_path'.*it has path, label"),
        ("image_path,label,labels\na.png,x,x\n", "'label' and a column 'labels'"),
        ("image_path,labels\na.png,\n", "gives no picture a label"),
        ("image_path,labels\na.png,x;;y\n", "line 2 .*empty name between separators"),
        ("image_path,labels\na.png,x;y|x\n", "line 2 .*label x more than once"),
        ("image_path,labels\na.png,x;y,z\n", "line 2 .*2 values"),
        ("image_path,labels,split\na.png,x,train\na.png,y,val\n", "line 3 .*another split than line 2"),
        ("image_path,cat,dog\na.png,1,yes\n", "line 2 .*'yes' in the column 'dog'.*0 or 1"),
        ("image_path,cat,dog\na.png,1,\n", "line 2 .*'' in the column 'dog'"),
        ("image_path,cat;dog,bird\na.png,1,0\n", "column 'cat;dog', which cannot name a class"),
        ("image_path,class\na.png,cat\n", "'cat' in the column 'class'.*name the column of labels"),
        ("image_path,label\n", "no rows"),
        ("image_path,label\na.png,x|y\n", "line 2 .*several labels.*column 'labels'"),
        ("image_path,label\na.png,\n", "line 2 .*empty label"),
        ("image_path,label\na.png\n", "line 2 .*2 values"),
        ("image_path,label\na.png,x,y\n", "line 2 .*2 values"),
        ("image_path,label,split\na.png,x,dev\n", "split in line 2 .*'dev'.*train, val or test"),
        ('image_path,label\n"a.png,x\n', "cannot be read as CSV"),
        (
            "image_path,label\n" + "".join(f"{i}.png,x\n" for i in range(7)),
            "names 7 files .*0.png, 1.png, 2.png and 4 more",
        ),
        ("image_path,label,split\na.png,x,val\na.png,y,test\n", "no training pictures"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded(noise(1)))
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=says):
        open_source(table)


def test_npz(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)
    path = tmp_path / "x.npz"
    np.savez(path, images=images, labels=np.array([7, 10, 7, 10, 7, 9]))
    source = open_source(path)
    assert source.classes == ("7", "9", "10")
    assert [entry.labels[0] for entry in source.entries] == [0, 2, 0, 2, 0, 1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source.reader)).read("images[3]"), images[3])
    given = np.array(["train"] * 4 + ["val"] * 2)
    np.savez_compressed(path, images=images[..., None], labels=[1, 0, 1, 0, 1, 0], classes=["no", "yes"], split=given)
    source = open_source(path)
    assert source.classes == ("no", "yes")
    assert [entry.split for entry in source.entries] == ["train"] * 4 + ["test"] * 2
    assert source.notes == (VAL_IS_TEST,)
    np.savez(path, images=images, labels=list("babbab"))
    assert open_source(path).classes == ("a", "b")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"images": None}, "no array 'images'"),
        ({"labels": None}, "no array 'labels'"),
        ({"images": np.zeros((6, 4, 5), np.float32)}, "must be uint8"),
        ({"images": np.zeros((6, 4, 5, 4), np.uint8)}, "must be uint8"),
        ({"images": np.zeros((0, 4, 5), np.uint8)}, "empty"),
        ({"labels": np.zeros(5, int)}, r"shape \[5\].*\[6\]"),
        ({"labels": np.zeros(6, float)}, "whole numbers or strings"),
        ({"labels": np.array([None] * 6, object)}, "without Python objects"),
        ({"classes": np.array(["a"]), "labels": np.arange(6) % 2}, "goes from 0 to 1 but 'classes' has 1"),
        ({"classes": np.array(["a", "a"])}, "twice"),
        ({"split": np.array(["train", "dev"] * 3)}, r"'split'\[1\].*'dev'"),
        ({"split": np.zeros(6, int)}, "list of strings"),
    ],
)
def test_bad_npz(tmp_path: Path, changed: dict[str, np.ndarray | None], says: str) -> None:
    arrays = {"images": np.zeros((6, 4, 5), np.uint8), "labels": np.arange(6) % 2} | changed
    path = tmp_path / "x.npz"
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=says):
        open_source(path)


def test_truncated_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((600, 4, 5), np.uint8), labels=np.arange(600) % 2)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="not a whole zip"):
        open_source(path)


def test_digits() -> None:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    source = open_source("digits")
    assert len(source.entries) == 1797
    first = source.reader.read("digits[0]")
    assert first.dtype == np.uint8
    np.testing.assert_allclose(first, load_digits().images[0] * 255 / 16, atol=0.5)
    result = audit(source)
    assert (result.widths.max, sum(result.counts.values())) == (8, 1797)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install 'netsmith\[train\]'"):
        open_source("digits")


def test_missing_paths_name_what_is_near(tmp_path: Path) -> None:
    write_files(tmp_path, {"flowers/a/1.png": b""})
    with pytest.raises(InputError, match="no such file or folder: .*did you mean flowers"):
        open_source(tmp_path / "flower")
    for name in ("x" * 5000, "nul\0"):
        with pytest.raises(InputError, match="no such file or folder"):
            open_source(tmp_path / name)
    with pytest.raises(InputError, match="is not there either"):
        open_source(tmp_path / "nowhere" / "flower")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no pictures in"),
        ({"cat/notes.txt": b""}, r"no pictures in .* it holds cat/notes.txt"),
        ({"1.png": b"", "2.png": b""}, "no class folders"),
        ({"val/a/1.png": b"", "test/b/1.png": b""}, "no training pictures"),
        ({"train/a/1.png": b"", "val/a/1.png": b"", "valid/a/1.png": b""}, "names one split twice"),
    ],
)
def test_unusable_folders(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(InputError, match=says):
        open_source(write_files(root, files))


def test_unusable_files(tmp_path: Path) -> None:
    for name, content, says in [
        ("x.zip", b"no zip", "fetch it again"),
        ("x.tar.gz", b"no tar", "not a whole tar"),
        ("x.zip", b"", "empty"),
        ("x.png", encoded(noise(1)), "not a data set"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=says):
            open_source(tmp_path / name)


def test_real_sets(test_data: Path) -> None:
    for name, train, test, classes in [("flowers-sample", 70, 30, 5), ("imagenette224", 2000, 600, 10)]:
        source = open_source(test_data / name / f"{name}.zip")
        found = [entry.split for entry in source.entries]
        assert (found.count("train"), found.count("test"), len(source.classes)) == (train, test, classes)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_a_member_that_is_no_array(tmp_path: Path, name: str) -> None:
    """numpy gives its bytes."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for each in ("images", "labels"):
            content = io.BytesIO()
            np.save(content, np.zeros((4, 8, 8), np.uint8) if each == "images" else np.arange(4) % 2)
            archive.writestr(f"{each}.npy", b"no array" if each == name else content.getvalue())
    with pytest.raises(InputError, match=f"cannot be read \\('{name}' is no array\\); write it again"):
        open_source(path)


def test_links_that_multiply_the_ways(tmp_path: Path) -> None:
    """Twenty folders of two links each into the next: a million ways to the last."""
    folders = [tmp_path / f"{level}" for level in range(21)]
    for folder in folders:
        folder.mkdir()
    for folder, into in pairwise(folders):
        for link in ("a", "b"):
            (folder / link).symlink_to(into)
    with pytest.raises(InputError, match="holds more than 500 files and folders; split it"):
        open_folder(folders[0], limits=Limits(members=500))


def test_a_shard_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "x-0.tar")

    (tmp_path / "x-0.tar").write_bytes(b"")
    monkeypatch.setattr("netsmith.data.sources.open_shards", refused)
    with pytest.raises(InputError, match=r"x-0\.tar cannot be read \(Permission denied\); change its permissions"):
        open_source(f"{tmp_path}/x-*.tar")
