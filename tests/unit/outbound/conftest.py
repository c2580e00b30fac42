"""A web server on this machine that behaves as badly as it is told to."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network

import pytest

LOOPBACK = (ip_network("127.0.0.0/8"),)


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Site(ThreadingHTTPServer):
    """Answers with what ``pages`` has for the path: ``page(handler, site)`` writes the answer."""

    daemon_threads = False  # so that closing waits for all of them

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Callable[[Handler, Site], None]] = {}
        self.asked: list[Asked] = []
        self.written_bytes = 0
        self.closing = threading.Event()
        self.names: list[str | None] = []
        self.scheme = "http"

    @property
    def port(self) -> int:
        return self.server_address[1]

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def secure(self, context: ssl.SSLContext) -> None:
        context.sni_callback = lambda _, name, __: self.names.append(name)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "https"

    def answer(self, path: str, body: bytes = b"", *, status: int = 200, headers: dict[str, str] | None = None) -> str:
        """Give ``body`` at ``path``; its URL."""

        def page(handler: Handler, site: Site) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.write(body)

        self.pages[path] = page
        return self.url(path)

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        return self.answer(path, status=status, headers={"Location": location})

    def raw(self, path: str, *pieces: bytes, every_s: float = 0.0, forever: bool = False, hang: bool = False) -> str:
        """Send ``pieces`` as they are, ``every_s`` one, the last one ``forever``, or ``hang`` at the end."""

        def page(handler: Handler, site: Site) -> None:
            for piece in pieces:
                handler.write(piece)
                site.closing.wait(every_s)
            while forever and not site.closing.wait(every_s):
                handler.write(pieces[-1])
            if hang:
                site.closing.wait()

        self.pages[path] = page
        return self.url(path)

    def handle_error(self, request: object, client_address: object) -> None:
        """Those who break off are what these tests are about."""


def not_found(handler: Handler, _: Site) -> None:
    handler.send_error(404)


class Handler(BaseHTTPRequestHandler):
    server: Site
    timeout = 30

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(self.command, self.path, headers, body))
        with suppress(ConnectionError, ssl.SSLError):
            self.server.pages.get(self.path, not_found)(self, self.server)
        self.close_connection = True

    do_POST = do_GET  # noqa: N815

    def write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.written_bytes += len(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def make_site() -> Iterator[Callable[[], Site]]:
    sites: list[tuple[Site, threading.Thread]] = []

    def make(context: ssl.SSLContext | None = None) -> Site:
        site = Site()
        if context:
            site.secure(context)
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        sites.append((site, thread))
        return site

    yield make
    for site, thread in sites:
        site.closing.set()
        site.shutdown()
        thread.join()
        site.server_close()


@pytest.fixture
def site(make_site: Callable[[], Site]) -> Site:
    return make_site()


@pytest.fixture
def loopback() -> object:
    """The networks to allow so that ``site`` can be reached."""
    return LOOPBACK
