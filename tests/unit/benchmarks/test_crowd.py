"""The figures of the benchmark with a crowd of connections, and its measuring of a real server."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

import crowd
from crowd import Round, measure, table


class Status(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/status" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(crowd, "AFTER_S", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Status) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("kind", crowd.CROWDS)
def test_a_server_is_polled_while_a_crowd_is_connected(address, kind):
    measured = measure(psutil.Process(), address, kind, clients=20, seconds=1)
    assert measured.failed == 0
    assert measured.polls_ms
    assert measured.polls_ms == tuple(sorted(measured.polls_ms))


def test_a_server_that_is_gone_afterwards_is_an_error(monkeypatch):
    monkeypatch.setattr(crowd, "AFTER_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        measure(psutil.Process(), f"127.0.0.1:{port}", "idle", clients=1, seconds=0)


def test_the_table_has_a_row_for_each_round():
    rounds = [Round("idle", (1.0, 2.0, 3.0, 250.4), 1, 3.2, 4.6)]
    assert table(rounds).splitlines()[2] == "| idle | 4 | 3 | 250 | 250 | 1 | +3 | 5 |"
