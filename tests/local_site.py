"""A web server on this machine that breaks, lies and forwards, for tests of downloads."""

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Site:
    """What the server gives, and what it was asked for.

    Attributes:
        content: of every address.
        breaks_at: bytes after which the next connections end, one entry each.
        etag: strong validator; "" for none.
        status: instead of the content, where not 200.
        stated: SHA-256 of the hub's header on the redirect from /hub.
        leads_to: where /away redirects.
        says_length: whether there is a Content-Length.
        shifted: whether a part is another than was asked for.
        ranges: Range header of every request for content.
        paths: what was asked for.
    """

    url: str = ""
    content: bytes = b""
    breaks_at: list[int] = field(default_factory=list)
    etag: str = '"one"'
    status: int = 200
    stated: str = ""
    leads_to: str = ""
    says_length: bool = True
    shifted: bool = False
    ranges: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def serving(content: bytes) -> Generator[Site]:
    """Serve `content` while the block runs, without the environment's proxies and prohibitions."""
    described = Site(content=content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            described.paths.append(self.path)
            if self.path == "/hub":
                self._head(302, {"Location": "/file", "X-Linked-Etag": f'"{described.stated}"', "Content-Length": "0"})
                return
            if self.path == "/away":
                self._head(302, {"Location": described.leads_to, "Content-Length": "0"})
                return
            described.ranges.append(self.headers.get("Range", ""))
            if described.status != 200:
                self._head(described.status, {"Content-Length": "0"})
                return
            start, status, headers = 0, 200, {}
            size = len(described.content)
            if asked := self.headers.get("Range"):
                wanted = int(asked.removeprefix("bytes=").removesuffix("-"))
                if self.headers.get("If-Range", described.etag) == described.etag:
                    if wanted >= size:
                        self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{size}"})
                        return
                    start, status = wanted + described.shifted, 206
                    headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            if described.etag:
                headers["ETag"] = described.etag
            if described.says_length:
                headers["Content-Length"] = str(size - start)
            self._head(status, headers)
            end = described.breaks_at.pop(0) if described.breaks_at else size
            self.close_connection = True
            with suppress(ConnectionError):  # the other side may have had enough
                self.wfile.write(described.content[start:end])

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    described.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        yield described
    server.shutdown()
    thread.join()
    server.server_close()
