"""A web server on loopback with scripted responses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NETWORK = "127.0.0.0/8"
"""The value of ALLOWED_NETWORKS that permits access to the server."""


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """A response: ``body`` is sent at once, or, with a ``gate``, its second half is sent when the gate is set.

    If the response is ``silent``, nothing is sent before that.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None
    silent: bool = False


class LoopbackSite(ThreadingHTTPServer):
    """A server that sends the responses of ``plan`` in order, and repeats the last one."""

    daemon_threads = False  # so that closing waits for all threads

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: list[Answer] = [Answer()]
        self.asked: list[Asked] = []
        self.began = threading.Semaphore(0)
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def next_answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            return self.plan[min(len(self.asked), len(self.plan)) - 1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: tests include clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackSite
    timeout = 30

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.next_answer(Asked(self.path, headers, body))
        self.close_connection = True
        with suppress(OSError):
            if answer.silent:
                self.server.began.release()
                self._wait_at(answer.gate)
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            half = len(answer.body) if answer.gate is None else len(answer.body) // 2
            self.wfile.write(answer.body[:half])
            self.server.began.release()
            self._wait_at(answer.gate)
            self.wfile.write(answer.body[half:])

    do_POST = do_GET  # noqa: N815

    def _wait_at(self, gate: threading.Event | None) -> None:
        while gate is not None and not self.server.closing.is_set() and not gate.wait(0.05):
            pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[LoopbackSite]:
    """Yield a running server. All of its threads have ended afterwards."""
    site = LoopbackSite()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        site.shutdown()
        thread.join()
        site.server_close()


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition is true, with a timeout."""
    turn = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        turn.wait(0.02)
    raise AssertionError(f"the condition is not true after {seconds} s")
