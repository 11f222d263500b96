import os

import pytest

from netsmith.errors import InputError
from netsmith.run.files import append_jsonl, read_jsonl, replacing, sha256_file, write_json, write_text


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_new_folders_are_on_the_disk_before_what_lies_in_them(tmp_path, monkeypatch):
    synced: list[str] = []
    sync = os.fsync

    def fsync(handle):
        sync(handle)
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), tmp_path))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a" / "b" / "c.json", "new")
    assert synced[:2] == [".", "a"]  # the names a, b; then the file and its own
    assert synced[2].startswith("a/b/.c.json.")
    assert synced[3:] == ["a/b"]
    write_text(tmp_path / "a" / "b" / "c.json", "again")
    assert len(synced) == 6


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new, longer")
        assert path.read_text() == "old"
    assert path.read_text() == "new, longer"


def test_nan_is_not_json(tmp_path):
    for write in (
        lambda: write_json(tmp_path / "a", {"x": float("nan")}),
        lambda: append_jsonl(tmp_path / "a", {"x": float("inf")}),
    ):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("torn", [b'{"n": 2', b"", b'{"n": 2, "text": "\xc3'])
def test_torn_rows(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"n": 1, "text": "ü\n"})
    path.write_bytes(path.read_bytes() + torn)
    assert read_jsonl(path) == [{"n": 1, "text": "ü\n"}]
    append_jsonl(path, {"n": 3})
    assert [row["n"] for row in read_jsonl(path)] == [1, 3]


def test_a_file_that_is_one_torn_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n"')
    assert read_jsonl(path) == []
    append_jsonl(path, {"n": 1})
    assert read_jsonl(path) == [{"n": 1}]


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    counted: list[int] = []
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "a", progress=counted.append) == digest
    assert counted == [3]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "is not JSON"),
        ("[1]", "is no JSON object"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"n": ' + "9" * 400 + "}", "a number of 400 digits"),
        ("\x00" * 40, "is not JSON"),
    ],
    ids=("word", "list", "deep", "long", "zeros"),
)
def test_a_damaged_row_is_named(tmp_path, line, says):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": -9223372036854775808}\n{"n": 18446744073709551615}\n' + line + "\n")
    with pytest.raises(InputError, match=f"^line 3 of .*{says}.*restore it from a copy"):
        read_jsonl(path)


def test_rows_are_not_appended_through_a_link(tmp_path):
    (tmp_path / "mine.txt").write_text("years of work")
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(OSError, match="rows.jsonl"):
        append_jsonl(tmp_path / "rows.jsonl", {"n": 1})
    assert (tmp_path / "mine.txt").read_text() == "years of work"
