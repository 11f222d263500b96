"""A file from the net into the cache: whole and checked, or not at all.

Deliberate choices: standard library only, http and https only, never from https back to http. What arrived of a broken
download stays in `NAME.part` and the next call asks for the rest, provided that the server can say that its file is
still the same, or that a hash will. The SHA-256 is compared with what is known: the hex digits in the published name,
and what the server states (the Hugging Face hub does, in `X-Linked-Etag`). It is kept beside the file, which has to
have it on every later use. One process downloads while others wait.
"""

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from netsmith import __version__
from netsmith.data.store import locked
from netsmith.errors import InputError
from netsmith.run.files import FULL_DISK, sha256_file, sync_folder, write_json
from netsmith.run.progress import Progress, silent

ATTEMPTS = 5
"""Connections per call: one that breaks after it brought something is taken up again."""
TIMEOUT = 30.0
"""Seconds of silence after which a connection counts as broken."""
LARGEST = 4 * 10**9
"""Bytes that no file of weights reaches."""
_BLOCK = 1 << 20


class DownloadError(InputError):
    """The file is not to be had: no network, not allowed, not there, too large, or not what it should be.

    The message is the reason, in words that stand in brackets; whoever wants the file knows what else would do.
    """


def offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids the network; it has the values that the Hugging Face hub's client knows."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def download(
    url: str,
    path: Path,
    *,
    sha256: str = "",
    largest: int = LARGEST,
    progress: Progress = silent,
) -> Path:
    """The file at `path`, downloaded unless it is there.

    Args:
        url: http or https.
        path: where it goes; its folder is made.
        sha256: first hex digits of its SHA-256 or all 64, "" when they are not known.
        largest: bytes above which it is refused.
        progress: told how many MB have arrived.

    Returns:
        `path`; its content has the hash that is known of it.

    Raises:
        DownloadError: see there; what arrived stays for the next call, unless its hash is wrong.
        InputError: the folder cannot be written.
    """
    try:
        with locked(path):
            if path.is_file():
                _check_cached(path, sha256)
                return path
            if offline():
                raise DownloadError("it is not in the cache, and HF_HUB_OFFLINE forbids to download it")
            _Download(url=url, path=path, sha256=sha256, largest=largest, progress=progress).run()
            return path
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); set NETSMITH_CACHE to a folder that can"
        ) from error


def _check_cached(path: Path, sha256: str) -> None:
    note = _read_note(_beside(path, "json"))
    known = note.get("sha256") or sha256
    if known and not sha256_file(path).startswith(known):
        path.unlink()
        _beside(path, "json").unlink(missing_ok=True)
        raise DownloadError(
            f"the copy in the cache was damaged and is removed, its SHA-256 did not begin with {known[:8]}"
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _read_note(path: Path) -> dict[str, str]:
    """What is remembered of a file; {} where nothing is or it cannot be read, which costs a new download at most."""
    try:
        note = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(key): value for key, value in note.items() if isinstance(value, str)} if isinstance(note, dict) else {}


class _Broken(Exception):
    """The connection ended before the file did."""


@dataclass(kw_only=True)
class _Download:
    url: str
    path: Path
    sha256: str
    largest: int
    progress: Progress

    @property
    def part(self) -> Path:
        return _beside(self.path, "part")

    @property
    def note(self) -> Path:
        return _beside(self.path, "part.json")

    def run(self) -> None:
        stated = ""
        for attempt in range(1, ATTEMPTS + 1):
            before = self._held()
            try:
                stated = self._connect() or stated
                break
            except _Broken as broken:
                if attempt == ATTEMPTS or self._held() <= before:
                    raise self._failed(broken) from broken
        self._accept(stated)

    def _held(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _failed(self, broken: _Broken) -> DownloadError:
        held = self._held()
        kept = f"; {held / 1e6:.1f} MB are kept and the same command goes on from there" if held else ""
        return DownloadError(f"{broken}{kept}")

    def _connect(self) -> str:
        """One connection, from where the last one ended to the end of the file; the SHA-256 that the server states."""
        start, note = self._held(), _read_note(self.note)
        validator = note.get("validator", "")
        # Without a word that it is the same file, two halves might not belong together.
        if start and (note.get("url") != self.url or not (validator or self.sha256)):
            start = 0
        headers = {"User-Agent": f"netsmith/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})
        redirects = _Redirects()
        try:
            response = _opener(redirects).open(urllib.request.Request(self.url, headers=headers), timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                self._forget()
                raise _Broken("the server has another file by now, the same command starts again") from error
            raise DownloadError(f"HTTP {error.code}: {_printable(error.reason)}") from error
        except urllib.error.URLError as error:
            raise _Broken(_printable(error.reason)) from error
        except (http.client.HTTPException, OSError, UnicodeError) as error:
            raise _Broken(_printable(error) or type(error).__name__) from error
        with response:
            self._receive(response, start)
        return redirects.sha256 or _stated_sha256(response.headers)

    def _receive(self, response: http.client.HTTPResponse, start: int) -> None:
        if response.status == http.client.PARTIAL_CONTENT:
            found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != start:
                self._forget()
                raise DownloadError("the server sent another part than was asked for")
            total = None if found[2] == "*" else int(found[2])
        else:
            start = 0
            length = response.headers.get("Content-Length", "")
            total = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        if (total or 0) > self.largest:
            raise self._too_large(f"{total:,}")
        validator = response.headers.get("ETag", "")
        strong = validator if re.fullmatch(r'"[\x21\x23-\x7e]+"', validator) else ""
        write_json(self.note, {"url": self.url, "validator": strong})
        with open(self.part, "r+b" if start else "wb") as handle:
            handle.seek(start)
            handle.truncate()
            done = start
            while block := _read(response):
                handle.write(block)
                done += len(block)
                if done > self.largest:
                    raise self._too_large(f"over {self.largest:,}")
                self.progress(f"downloading {self.path.name}", done / 1e6, None if total is None else total / 1e6, "MB")
            handle.flush()
            os.fsync(handle.fileno())
        if total is not None and done != total:
            raise _Broken(f"the connection broke at {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    def _too_large(self, size: str) -> DownloadError:
        self._forget()
        return DownloadError(f"it has {size} bytes, and the weights of this network have at most {self.largest:,}")

    def _accept(self, stated: str) -> None:
        """Give the finished file its name if it has the hash that is known of it."""
        found = sha256_file(self.part)
        for known in (self.sha256, stated):
            if not found.startswith(known):
                self._forget()
                raise DownloadError(
                    f"it arrived damaged and was removed, its SHA-256 begins with {found[:8]}, not {known[:8]}"
                )
        write_json(_beside(self.path, "json"), {"url": self.url, "sha256": found})
        os.replace(self.part, self.path)
        self.note.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _printable(reason: object) -> str:
    """What a server says for itself, short and on one line."""
    return "".join(letter for letter in str(reason) if letter.isprintable())[:160]


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise _Broken(_printable(error) or type(error).__name__) from error


def _stated_sha256(headers: Message) -> str:
    """The SHA-256 that a server of the Hugging Face hub's kind states; "" where it states none."""
    found = re.fullmatch(r'(?:W/)?"?([0-9a-f]{64})"?', headers.get("X-Linked-Etag", ""))
    return found[1] if found else ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, never out of https, and keeps the hash that the hub states before it sends one on."""

    def __init__(self) -> None:
        self.sha256 = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(req.full_url).scheme == "https" != urlsplit(newurl).scheme:
            raise DownloadError("its address leads out of https")
        self.sha256 = self.sha256 or _stated_sha256(headers)
        return super().redirect_request(req, fp, code, msg, cast(Any, headers), newurl)


def _opener(redirects: _Redirects) -> urllib.request.OpenerDirector:
    """Opens http and https and nothing else: urllib's usual opener reads local files too."""
    opener = urllib.request.OpenerDirector()
    handlers: Mapping[str, urllib.request.BaseHandler] = {
        "proxy": urllib.request.ProxyHandler(),
        "http": urllib.request.HTTPHandler(),
        "https": urllib.request.HTTPSHandler(),
        "unknown": urllib.request.UnknownHandler(),
        "default": urllib.request.HTTPDefaultErrorHandler(),
        "redirect": redirects,
        "errors": urllib.request.HTTPErrorProcessor(),
    }
    for handler in handlers.values():
        opener.add_handler(handler)
    return opener
