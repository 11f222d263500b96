"""Hostile and damaged archives: refused as a whole, nothing written outside of scratch, nothing left in it."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from pictures import class_files, encoded, noise

from netsmith.data.archives import Limits, read_tar, read_zip
from netsmith.data.prepare import ImageError
from netsmith.data.sources import open_source
from netsmith.errors import InputError

FILES = class_files({"cat": 3, "dog": 3})


def zip_with(path: Path, extra: zipfile.ZipInfo | str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, picture in FILES.items():
            archive.writestr(name, picture)
        archive.writestr(extra, content)
    return path


def tar_with(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, picture in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(picture)
            archive.addfile(member, io.BytesIO(picture))
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


OUTSIDE = ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\evil.png", "cat/..\\..\\evil.png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    scratch = tmp_path / "in" / "scratch"
    for path in (
        zip_with(tmp_path / "x.zip", name),
        tar_with(tmp_path / "x.tar", entry(name)),
        tar_with(tmp_path / "x.tar.gz", entry(name), mode="w:gz"),
    ):
        with pytest.raises(InputError, match="leads outside"):
            open_source(path, scratch=scratch)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InputError, match="link, device or sparse file"):
        open_source(tar_with(tmp_path / "x.tar", entry("cat/9.png", kind, "cat/0.png")), scratch=tmp_path)


def test_links_in_zips(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("cat/9.png")
    info.external_attr = 0o120777 << 16
    with pytest.raises(InputError, match="link or device"):
        open_source(zip_with(tmp_path / "x.zip", info, b"/etc/passwd"))


def test_bombs(tmp_path: Path) -> None:
    zeros = bytes(80 << 20)
    with pytest.raises(InputError, match="decompression bomb"):
        open_source(zip_with(tmp_path / "x.zip", "cat/9.png", zeros))
    scratch = tmp_path / "scratch"
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=1) as handle:
        handle.write(zeros)
    with pytest.raises(InputError, match="decompression bomb"):
        open_source(tmp_path / "x.tar.gz", scratch=scratch)
    assert not list(scratch.iterdir())
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.zip").read_bytes())
    with pytest.raises(InputError, match="decompression bomb"):
        open_source(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(members=5), "more than 5 members"),
        (Limits(member_bytes=100), "a member of .* bytes"),
        (Limits(total_bytes=500), "unpacks to"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_zip(zip_with(tmp_path / "x.zip", "cat/9.png", bytes(200)), limits=limits)
    with pytest.raises(InputError, match=says):
        read_tar(tar_with(tmp_path / "x.tar", entry("cat/9.png", size=200)), scratch=tmp_path, limits=limits)


def test_encrypted(tmp_path: Path) -> None:
    content = bytearray(zip_with(tmp_path / "x.zip", "cat/9.png").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(bytes(content))
    with pytest.raises(InputError, match="encrypted"):
        open_source(tmp_path / "x.zip")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_truncated_tars(tmp_path: Path, mode: str) -> None:
    path = tar_with(tmp_path / "x.tar", entry("cat/9.png", size=20_000), mode=mode)
    path.write_bytes(path.read_bytes()[: -6000 if mode == "w" else -40])
    scratch = tmp_path / "scratch"
    with pytest.raises(InputError, match="fetch"):
        source = open_source(path, scratch=scratch)
        source.reader.read("cat/9.png")
    assert not scratch.exists() or not list(scratch.iterdir())


def test_a_damaged_member_is_one_bad_picture(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, picture in FILES.items():
            archive.writestr(name, picture)
        archive.writestr("cat/9.png", encoded(noise(77)))
    content = path.read_bytes()
    at = content.index(encoded(noise(77)))
    path.write_bytes(content[: at + 30] + b"XXXX" + content[at + 34 :])
    source = open_source(path)
    assert source.reader.read("cat/0.png") == FILES["cat/0.png"]
    with pytest.raises(InputError, match="cannot be read from"):
        source.reader.read("cat/9.png")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    picture = encoded(noise(5))
    with tarfile.open(path, "w", encoding="utf-8", errors="surrogateescape") as archive:
        for name in ("cat/caf\udce9.png", "dog/1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture)
            archive.addfile(member, io.BytesIO(picture))
    source = open_source(path, scratch=tmp_path)
    assert source.reader.read("cat/caf\\udce9.png") == picture


@pytest.mark.parametrize("size", [-1, -1024])
def test_a_member_of_less_than_nothing(tmp_path: Path, size: int) -> None:
    """Reading so much would read all that follows; skipping it would come back to the same header without end."""
    path = tar_with(tmp_path / "x.tar", entry("cat/9.png", size=20_000))
    content = bytearray(path.read_bytes())
    at = content.index(b"cat/9.png\0")
    content[at + 124 : at + 136] = size.to_bytes(12, "big", signed=True)  # as GNU tar writes what is not octal
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="holds a member of -|not a whole tar archive"):
        open_source(path, scratch=tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_headers_without_end(tmp_path: Path, kind: bytes) -> None:
    path = tar_with(tmp_path / "x.tar", entry("././@LongLink", kind, size=17 << 20))
    with pytest.raises(InputError, match="a header of an impossible size"):
        open_source(path, scratch=tmp_path)


def test_long_names(tmp_path: Path) -> None:
    name = f"cat/{'long' * 60}.png"
    path = tar_with(tmp_path / "x.tar", entry(name))
    assert name in {each.name for each in open_source(path, scratch=tmp_path).entries}


def test_a_damaged_header_is_one_bad_picture(tmp_path: Path) -> None:
    path = zip_with(tmp_path / "x.zip", "cat/ü.png", encoded(noise(77)))
    content = path.read_bytes()
    at = content.index("ü".encode())  # in the member's own header; the list at the end stays
    path.write_bytes(content[:at] + b"\xff\xff" + content[at + 2 :])
    source = open_source(path)
    assert source.reader.read("cat/0.png") == FILES["cat/0.png"]
    with pytest.raises(ImageError, match="cannot be read from"):
        source.reader.read("cat/ü.png")


def test_a_cache_that_cannot_be_written_is_not_the_archives_fault(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "x.tar.gz", mode="w:gz")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be unpacked into .*file/scratch .*set NETSMITH_CACHE"):
        open_source(path, scratch=tmp_path / "file" / "scratch")
