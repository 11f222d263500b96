"""Downloads from a server on this machine that breaks, lies and forwards; nothing here needs a network."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from local_site import Site, serving

from netsmith.data.download import DownloadError, download
from netsmith.errors import InputError

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site() -> Generator[Site]:
    with serving(CONTENT) as site:
        yield site


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_whole_file_and_no_second_request(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[float, float | None]] = []
    path = tmp_path / "deep" / "a.bin"

    def progress(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
        seen.append((done, total))

    for _ in range(2):
        assert download(f"{site.url}/file", path, sha256=SHA256[:8], progress=progress) == path
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == {"a.bin", "a.bin.json"}
    assert site.ranges == [""]
    assert seen[-1] == (3.0, 3.0)


def test_a_broken_connection_is_taken_up_again(site: Site, tmp_path: Path) -> None:
    site.breaks_at = [1_000_000, 2_500_000]
    download(f"{site.url}/file", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.ranges == ["", "bytes=1000000-", "bytes=2500000-"]


def test_the_next_call_resumes(site: Site, tmp_path: Path) -> None:
    site.breaks_at = [1_000_000] * 2
    with pytest.raises(DownloadError, match=r"broke at 1.0 of 3.0 MB; 1.0 MB are kept and the same command goes on"):
        download(f"{site.url}/file", tmp_path / "a.bin")
    assert names(tmp_path) == {"a.bin.part", "a.bin.part.json"}
    download(f"{site.url}/file", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.ranges[-1] == "bytes=1000000-"
    assert names(tmp_path) == {"a.bin", "a.bin.json"}


@pytest.mark.parametrize("change", ["file", "address", "no validator"])
def test_halves_of_two_files_are_never_joined(change: str, site: Site, tmp_path: Path) -> None:
    if change == "no validator":
        site.etag = ""
    site.breaks_at = [1_000_000] * 2
    with pytest.raises(DownloadError):
        download(f"{site.url}/file", tmp_path / "a.bin")
    site.content = os.urandom(len(CONTENT))
    site.breaks_at = []
    if change == "file":
        site.etag = '"two"'
    download(f"{site.url}/{'other' if change == 'address' else 'file'}", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == site.content


def test_a_hash_alone_is_enough_to_resume(site: Site, tmp_path: Path) -> None:
    site.etag = ""
    site.breaks_at = [1_000_000]
    download(f"{site.url}/file", tmp_path / "a.bin", sha256=SHA256)
    assert site.ranges == ["", "bytes=1000000-"]


@pytest.mark.parametrize("where", ["published", "stated by the hub"])
def test_another_hash_is_refused_and_nothing_stays(where: str, site: Site, tmp_path: Path) -> None:
    if where == "published":
        url, known = f"{site.url}/file", "0badc0de"
    else:
        url, known, site.stated = f"{site.url}/hub", "", "0badc0de" + SHA256[8:]
    with pytest.raises(DownloadError, match=f"begins with {SHA256[:8]}, not 0badc0de"):
        download(url, tmp_path / "a.bin", sha256=known)
    assert names(tmp_path) == set()


def test_the_hash_the_hub_states_is_kept_and_holds(site: Site, tmp_path: Path) -> None:
    site.stated = SHA256
    path = download(f"{site.url}/hub", tmp_path / "a.bin")
    assert json.loads((tmp_path / "a.bin.json").read_text())["sha256"] == SHA256
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(DownloadError, match=f"damaged and is removed, its SHA-256 did not begin with {SHA256[:8]}"):
        download(f"{site.url}/hub", path)
    assert names(tmp_path) == set()
    assert download(f"{site.url}/hub", path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"status": 404}, "HTTP 404: Not Found"),
        ({"status": 503}, "HTTP 503: Service Unavailable"),
        ({"content": bytes(2_000_001)}, "it has 2,000,001 bytes, .* at most 2,000,000"),
        ({"content": bytes(9_000_000), "says_length": False}, "it has over 2,000,000 bytes"),
    ],
)
def test_what_the_server_says_against_it(settings: dict[str, Any], said: str, site: Site, tmp_path: Path) -> None:
    for name, value in settings.items():
        setattr(site, name, value)
    with pytest.raises(DownloadError, match=said):
        download(f"{site.url}/file", tmp_path / "a.bin", largest=2_000_000)
    assert names(tmp_path) == set()


def test_another_part_than_asked_for_is_refused(site: Site, tmp_path: Path) -> None:
    site.breaks_at, site.shifted = [1_000_000], True
    with pytest.raises(DownloadError, match="another part than was asked for"):
        download(f"{site.url}/file", tmp_path / "a.bin")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("leads_to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "/away", "gopher:x"])
def test_a_redirect_leads_to_http_or_nowhere(leads_to: str, site: Site, tmp_path: Path) -> None:
    site.leads_to = leads_to
    with pytest.raises(DownloadError):
        download(f"{site.url}/away", tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_only_http_is_opened(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(DownloadError):
        download((tmp_path / "secret").as_uri(), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_no_network_and_not_allowed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match="refused"):
        download("http://127.0.0.1:1/file", tmp_path / "a.bin")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        download(f"{site.url}/file", tmp_path / "a.bin")
    assert site.ranges == []
    (tmp_path / "a.bin").write_bytes(CONTENT)  # put there by hand
    assert download(f"{site.url}/file", tmp_path / "a.bin", sha256=SHA256[:8]).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="NETSMITH_CACHE"):
        download(f"{site.url}/file", tmp_path / "file" / "a.bin")


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"url": 3}', "[" * 100_000])
def test_a_damaged_note_costs_a_new_download(note: str, site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"?" * 10)
    (tmp_path / "a.bin.part.json").write_text(note)
    assert download(f"{site.url}/file", tmp_path / "a.bin").read_bytes() == CONTENT


def test_downloading_needs_no_torch() -> None:
    code = "import sys, netsmith.data.pretrained; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_server_says_cannot_draw_on_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"\x1b[31mFTP " + b"x" * 1000 + b"\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DownloadError) as caught:
            download(f"http://127.0.0.1:{server.getsockname()[1]}/file", tmp_path / "a.bin")
        thread.join()
    assert "\x1b" not in str(caught.value)
    assert "FTP xxx" in str(caught.value)
    assert len(str(caught.value)) < 300
