"""A real Chromium, and web servers of other origins whose pages it opens."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

# Names under .test lead to this machine, and no other name leads anywhere.
RESOLVER_RULES = (
    "MAP *.test 127.0.0.1, MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
)

OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-dev-shm-usage", f"--host-resolver-rules={RESOLVER_RULES}",
)  # fmt: skip


@contextlib.contextmanager
def browsing(url: str, profile: Path) -> Iterator[None]:
    """Keep the page open in a browser of its own."""
    assert CHROMIUM
    command = (CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", url)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def shown(url: str, profile: Path, clock_ms: int = 0) -> str:
    """Return the document that a browser shows for a URL, as HTML.

    With ``clock_ms``, the scripts of the page run until its clock has advanced by that time, which takes less time.
    """
    assert CHROMIUM
    clock = (f"--virtual-time-budget={clock_ms}",) if clock_ms else ()
    command = (CHROMIUM, *OPTIONS, *clock, f"--user-data-dir={profile}", "--dump-dom", url)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


class Site(ThreadingHTTPServer):
    """A web server on 127.0.0.1.

    It serves ``page`` as ``/page``. ``GET /start`` sets ``asked``, and is answered with ``start_text`` once there is
    one. What is posted to ``/report`` as JSON comes to ``reports``. All other requests are passed on to ``upstream`` as
    they are, as by a reverse proxy, or answered 404. Pages of any origin may read the first three.
    """

    daemon_threads = True

    def __init__(self, page: str = "", port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.page = page
        self.upstream: tuple[str, int] | None = None
        self.asked = threading.Event()
        self._start_texts: queue.Queue[str] = queue.Queue()
        self.reports: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self, text: str) -> None:
        """Answer ``GET /start``."""
        self._start_texts.put(text)

    def start_text(self) -> str:
        return self._start_texts.get(timeout=60)

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def do_OPTIONS(self) -> None:
        self._handle()

    def log_message(self, *_: object) -> None:
        """Write nothing to the console."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        site = self.server
        if self.path == "/page":
            self._answer(site.page.encode(), "text/html; charset=utf-8")
        elif self.path == "/start":
            site.asked.set()
            self._answer(site.start_text().encode(), "text/plain")
        elif self.path == "/report":
            site.reports.put(json.loads(body))
            self._answer(b"", "text/plain")
        elif site.upstream:
            self._pass_on(body, site.upstream)
        else:
            self.send_error(404)

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, body: bytes, upstream: tuple[str, int]) -> None:
        connection = http.client.HTTPConnection(*upstream, timeout=20)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
