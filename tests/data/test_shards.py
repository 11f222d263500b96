"""Tar shards are a source like any other: the same pictures as in folders give the same hashes, splits and order."""

import os
import pickle
from pathlib import Path

import pytest
from pictures import class_files, encoded, noise, write_files
from tar_shards import Members, members, write_shards, write_tar

from netsmith.data.archives import Limits
from netsmith.data.audit import audit
from netsmith.data.items import Source
from netsmith.data.shards import open_shards, shard_paths
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.errors import InputError

FILES = class_files({"cat": 9, "dog": 9})


def test_shards_are_the_folders_they_were_made_of(tmp_path: Path) -> None:
    folders = audit(open_source(write_files(tmp_path / "folders", FILES))).dataset
    assert write_shards(tmp_path / "shards", FILES) == 3
    for pattern in ("part-{000..002}.tar", "part-*.tar", "{part-000,part-001,part-00[2-9]}.tar"):
        shards = audit(open_source(tmp_path / "shards" / pattern)).dataset
        assert shards.classes == folders.classes
        for one, other in zip(
            split(shards, seed=3).items, split(folders, seed=3).items, strict=True
        ):  # in one order, so batches are the same too
            assert (one.key, one.group, one.label, one.split) == (other.key, other.group, other.label, other.split)
        assert split(shards, seed=3).fingerprint == split(folders, seed=3).fingerprint
        assert shards.items[8].name == "part-001.tar/000001.png"
        again = pickle.loads(pickle.dumps(shards))
        assert again.read(again.items[8]) == FILES[folders.items[8].name]


def test_one_shard_is_known_by_the_labels_beside_its_pictures(tmp_path: Path) -> None:
    for label in ("cls", "json"):
        for mode, name in (("w", "x.tar"), ("w:gz", "x.tar.gz")):
            path = write_tar(tmp_path / label / name, members(FILES, label=label), mode=mode)
            source = open_source(path, scratch=tmp_path / "scratch")
            assert source.classes == ("cat", "dog")
            assert len(source.entries) == 18
            assert any("decompressed" in note for note in source.notes) == (mode == "w:gz")
    annotated = {**FILES, "cat/0.json": '{"boxes": []}'}
    assert open_source(write_tar(tmp_path / "folders.tar", annotated)).classes == ("cat", "dog")
    assert open_source(tmp_path / "folders.tar").entries[0].name == "cat/0.png"


def test_given_splits(tmp_path: Path) -> None:
    write_shards(tmp_path, FILES, prefix="data-train")
    write_tar(tmp_path / "data-val-000.tar", members(class_files({"cat": 2, "dog": 2}, seed=90)))
    source = open_source(tmp_path / "data-{train,val}-*.tar")
    assert [entry.split for entry in source.entries] == ["train"] * 18 + ["test"] * 4
    assert "the given val is used as test" in source.notes[0]
    folder = tmp_path / "deep"
    write_shards(folder / "train", FILES)
    write_shards(folder / "validation", class_files({"cat": 2, "dog": 2}, seed=90))
    write_shards(folder / "test", class_files({"cat": 2, "dog": 2}, seed=190))
    found = {entry.split for entry in open_source(folder / "*" / "*.tar").entries}
    assert found == {"train", "val", "test"}


def test_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    pictures: dict[str, bytes | str] = {}
    for number in range(12):
        pictures[f"a/{number}.v2.png"] = encoded(noise(number))  # the key ends at the first dot
        pictures[f"a/{number}.PNG"] = encoded(noise(number))
        pictures[f"a/{number}.{'cls' if number % 2 else 'json'}"] = (
            f" {number}\n" if number % 2 else f'{{"label": {number}}}'
        )
    pictures["a/3.json"] = pictures["a/4.cls"] = "unread"  # .cls goes first, on either side
    pictures["a/4.cls"], pictures["a/4.json"] = "4", "unread"
    pictures["readme.txt"] = "hello"
    pictures["._junk.jpg"] = "x"
    pictures["lonely.jpg"] = encoded(noise(50))
    source = open_source(write_tar(tmp_path / "x.tar", pictures))
    assert source.classes == tuple(map(str, range(12)))
    assert [entry.labels[0] for entry in source.entries] == list(range(12))
    strays = {stray.name: stray.reason for stray in source.strays}
    assert strays["x.tar/readme.txt"] == "its extension is not one of a picture"
    assert "no label" in strays["x.tar/lonely.jpg"]
    assert len(strays) == 14


PICTURE = encoded(noise(1))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"0.png": PICTURE, "0.jpg": PICTURE, "0.cls": "1"}, "two pictures of one key"),
        ({"0.png": PICTURE, "0.cls": ""}, "0.cls in .* names no class"),
        ({"0.png": PICTURE, "0.cls": b"\xff\xfe"}, "0.cls in .* cannot be read"),
        ({"0.png": PICTURE, "0.cls": "x" * (2 << 20)}, "0.cls in .* is no label: it has 2,097,152 bytes"),
        ({"0.png": PICTURE, "0.json": "{"}, "0.json in .* cannot be read"),
        ({"0.png": PICTURE, "0.json": "[" * 100_000}, "0.json in .* cannot be read"),
        ({"0.png": PICTURE, "0.json": '{"label": [1, 2]}'}, "0.json in .* names no class"),
        ({"0.png": PICTURE, "0.json": '{"label": true}'}, "0.json in .* names no class"),
        ({"0.png": PICTURE, "0.json": "3"}, "0.json in .* names no class"),
        ({"0.png": PICTURE, "0.cls": "1", "1.png": PICTURE, "1.cls": "cat"}, "partly numbers and partly names .cat."),
        ({"../0.png": PICTURE, "../0.cls": "1"}, "leads outside"),
        ({"0.png": PICTURE}, "no pictures? .*|no label"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path: Path, content: Members, says: str) -> None:
    write_tar(tmp_path / "x.tar", content)
    with pytest.raises(InputError, match=says):
        open_source(tmp_path / "[x].tar")


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a-{x}.tar", *(f"b-{number:02}.tar" for number in range(8, 12)), *(f"c-{n}.tar" for n in range(9, 11))]
    for name in names:
        write_tar(tmp_path / name, {})
    for pattern, expected in {
        "b-{08..11}.tar": names[1:5],
        "c-{10..9}.tar": [names[6], names[5]],
        "{b-1?,c-9,b-11}.tar": [names[3], names[4], names[5]],
        "a-{x}.tar": names[:1],
    }.items():
        assert [str(path) for path in shard_paths(pattern)] == expected
    for pattern, says in {
        "b-{08..12}.tar": r"1 of the 5 shards that b-\{08..12\}.tar names are not there \(b-12.tar\)",
        "z*.tar": "no file matches z",
        "b-{0..999999999}.tar": "more than 100,000",
        "{0..999}{0..999}": "more than 100,000",
    }.items():
        with pytest.raises(InputError, match=says):
            shard_paths(pattern)


def test_what_is_no_set_of_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, FILES, prefix="train")
    write_tar(tmp_path / "more.tar", members(FILES))
    with pytest.raises(InputError, match=r"others are not \(more.tar\); name all or none"):
        open_source(tmp_path / "*.tar")
    (tmp_path / "train-text.tar").write_text("hello" * 200)
    with pytest.raises(InputError, match=r"train-text.tar is not a tar file"):
        open_source(tmp_path / "t*.tar")
    (tmp_path / "train-text.tar").unlink()
    write_tar(tmp_path / "train-val.tar", {})
    with pytest.raises(InputError, match=r"train-val.tar says train and val; rename"):
        open_source(tmp_path / "train-*.tar")
    with pytest.raises(InputError, match=r"holds tar files, no pictures; give '.*/\*\.tar' where they are shards"):
        open_source(tmp_path)
    for remote in ("https://host/x-{00..03}.tar", "s3://bucket/x.tar", "pipe:curl x"):
        with pytest.raises(InputError, match="is not on this machine; fetch it"):
            open_source(remote)


def limited(tmp_path: Path, limits: Limits) -> Source:
    return open_shards("x", sorted(tmp_path.glob("*.tar")), scratch=tmp_path, limits=limits)


def test_limits_and_cut_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, FILES)
    with pytest.raises(InputError, match="more than 20 members"):
        limited(tmp_path, Limits(members=20))
    with pytest.raises(InputError, match="a member of"):
        limited(tmp_path, Limits(member_bytes=100))
    source = limited(tmp_path, Limits())
    first = tmp_path / "part-000.tar"
    first.write_bytes(first.read_bytes()[:700])
    with pytest.raises(InputError, match="is cut off"):
        source.reader.read(source.entries[1].name)
    assert source.reader.read(source.entries[9].name)
    first.unlink()
    with pytest.raises(InputError, match="put it back"):
        source.reader.read(source.entries[0].name)


def test_labels_and_names_that_no_record_can_hold_are_escaped(tmp_path: Path) -> None:
    """Half a character in JSON, and a file name that is not UTF-8."""
    half = {f"{number}.json": '{"label": "\\ud800"}' for number in range(3)}
    cats = {f"{number}.png": content for number, content in enumerate(FILES.values()) if number < 6}
    whole = {f"{number}.json": '{"label": "dog"}' for number in range(3, 6)}
    write_tar(tmp_path / os.fsdecode(b"caf\xe9.tar"), {**cats, **half, **whole})
    source = open_source(f"{tmp_path}/*.tar")
    assert source.classes == ("\\ud800", "dog")
    assert source.entries[0].name == "caf\\udce9.tar/0.png"
    assert source.reader.read(source.entries[0].name) == cats["0.png"]
