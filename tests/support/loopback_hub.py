"""A model hub on loopback, which answers the requests of huggingface_hub's own client, and can misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "1" * 40
_BLOCK_BYTES = 2**16


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    """The headers, with names in lower case."""


@dataclass
class Behavior:
    """What the hub does with one file; the defaults are what it should do."""

    content: bytes | None = None
    """What is sent in place of the file."""

    status: int = 200
    error_code: str = ""
    """The code that the client turns into an exception, such as ``GatedRepo``."""

    pause_at: int | None = None
    """The offset in the file at which the hub stops sending, until ``resume`` or the end."""

    break_at: list[int] = field(default_factory=list)
    """The offsets in the file at which the hub closes the connections, one for each request."""

    ranges: bool = True
    """Whether a part of the file can be requested."""

    length: bool = True
    """Whether the length of the file is sent."""


class LoopbackHub(ThreadingHTTPServer):
    """A hub with the files of ``repositories``, by the names of the repositories and of the files."""

    daemon_threads = False  # so that closing waits for all threads

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.behaviors: dict[str, Behavior] = {}
        """The behaviors by the name of the file."""

        self.requests: list[Request] = []
        self.sent_bytes = 0
        self.paused = threading.Event()
        self.resume = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: tests include clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub
    timeout = 30

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server
        self.close_connection = True
        if self.path.startswith("/api/"):  # the client asks once in each process for what it reports about itself
            return self._refuse(404, "")
        with hub.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append(Request(self.command, self.path, headers))
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", unquote(self.path))
        files = hub.repositories.get(match[1]) if match else None
        if match is None or files is None:
            return self._refuse(404, "RepoNotFound")
        name = match[3]
        behavior = hub.behaviors.get(name, Behavior())
        if name not in files:
            return self._refuse(404, "EntryNotFound")
        if behavior.status != 200:
            return self._refuse(behavior.status, behavior.error_code)
        content = files[name] if behavior.content is None else behavior.content
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and behavior.ranges else 0
        if start and start >= len(content):
            return self._refuse(416, "", {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if behavior.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            with suppress(OSError):
                self._send(content, start, behavior)
        return None

    def _send(self, content: bytes, start: int, behavior: Behavior) -> None:
        hub = self.server
        stop = behavior.break_at.pop(0) if behavior.break_at else None
        if behavior.pause_at is not None and behavior.pause_at >= start:
            stop = behavior.pause_at
        for offset in range(start, len(content), _BLOCK_BYTES):
            end = min(offset + _BLOCK_BYTES, len(content) if stop is None else stop)
            if end > offset:
                self.wfile.write(content[offset:end])
                with hub.lock:
                    hub.sent_bytes += end - offset
            if stop is not None and end == stop:
                break
        if stop is None:
            return
        if behavior.pause_at is not None:
            hub.paused.set()
            hub.resume.wait()
            self.wfile.write(content[stop:])

    def _refuse(self, status: int, error_code: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-Error-Code": error_code, "Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[LoopbackHub]:
    """Yield a running hub. All of its threads have ended afterwards."""
    hub = LoopbackHub(repositories)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.resume.set()
        hub.shutdown()
        thread.join()
        hub.server_close()
