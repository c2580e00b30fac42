"""Measure how long ``GET /status`` takes while a thousand other clients hold connections.

    python benchmarks/crowd.py [--clients 1000] [--seconds 10] [--rounds 5]

A new service with empty folders is polled by one client. In each round another process opens all connections at once:
first idle ones, then some that send a byte of a request head each second, and some that send 700 requests and read no
answer. The service is not restarted in between, since memory that is not given back would show then. All run on this
machine, so the clients take processor time from the service. The script needs the ``bench`` extra.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from diarist.types import Seconds
from length import running_service

POLL_INTERVAL_S = 0.01
AFTER_S = 2.0
"""How long after a crowd has left the service is polled again."""

REQUEST = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
CROWDS: dict[str, tuple[bytes, bytes]] = {
    "idle": (b"", b""),
    "a byte of a head each second": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"a"),
    "700 requests, no answer read": (REQUEST * 700, b""),
}
"""What each client sends first, and then each second."""

CROWD_PROGRAM = """
import resource, socket, sys, time
host, port, clients, seconds = sys.argv[1], *map(int, sys.argv[2:5])
first = sys.stdin.buffer.read(int(sys.argv[5]))
then = sys.stdin.buffer.read()
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
connections = []
def send(connection, data):
    try:
        connection.send(data)
    except OSError:
        pass
for _ in range(clients):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(2)
    try:
        connection.connect((host, port))
    except OSError:
        continue
    connection.setblocking(False)
    send(connection, first)
    connections.append(connection)
ends = time.monotonic() + seconds
while time.monotonic() < ends:
    time.sleep(1)
    if then:
        for connection in connections:
            send(connection, then)
"""


@dataclass(frozen=True, slots=True)
class Round:
    """What one client saw while a crowd was there."""

    crowd: str
    polls_ms: tuple[float, ...]
    """The duration of each poll, in order of duration."""

    failed: int
    growth_mb: float
    """How much larger the service's resident size was at most than before the crowd (2^20 bytes)."""

    after_ms: float
    """The longest poll after the crowd has left."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=10, help="how long a crowd stays; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each crowd; default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="diarist-crowd-") as scratch:
        environment = {
            "DATA_DIR": f"{scratch}/data", "LOG_FILE": f"{scratch}/service.log", "FLASK_PORT": "0",
            "FLASK_HOST": "127.0.0.1", "LOG_FORMAT": "plain",
        }  # fmt: skip
        with running_service(environment) as (service, address):
            rounds = [
                measure(service, address, crowd, arguments.clients, arguments.seconds)
                for crowd in CROWDS
                for _ in range(arguments.rounds)
            ]
    print(table(rounds))


def measure(service: psutil.Process, address: str, crowd: str, clients: int, seconds: int) -> Round:
    """Poll the service at ``address`` (host and port) while a crowd is there, and afterwards."""
    host, _, port = address.rpartition(":")
    first, then = CROWDS[crowd]
    before_bytes = largest_bytes = service.memory_info().rss
    program = subprocess.Popen(
        [sys.executable, "-c", CROWD_PROGRAM, host, port, str(clients), str(seconds), str(len(first))],
        stdin=subprocess.PIPE,
    )
    assert program.stdin is not None
    program.stdin.write(first + then)
    program.stdin.close()
    polls_ms, failed = [], 0
    while program.poll() is None:
        try:
            polls_ms.append(1000 * poll(host, int(port)))
        except (OSError, http.client.HTTPException):
            failed += 1
        largest_bytes = max(largest_bytes, service.memory_info().rss)
        time.sleep(POLL_INTERVAL_S)
    time.sleep(AFTER_S)
    after_ms = 1000 * max(poll(host, int(port)) for _ in range(20))
    return Round(crowd, tuple(sorted(polls_ms)), failed, (largest_bytes - before_bytes) / 2**20, after_ms)


def poll(host: str, port: int) -> Seconds:
    """Return how long the service takes to answer one request on a new connection."""
    started = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request("GET", "/status")
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"status {response.status}")
    return time.monotonic() - started


def table(rounds: Sequence[Round]) -> str:
    """Return a Markdown table with a row for each round."""
    rows = [
        [
            each.crowd, str(len(each.polls_ms)), f"{each.polls_ms[len(each.polls_ms) // 2]:.0f}",
            f"{each.polls_ms[int(0.99 * len(each.polls_ms))]:.0f}", f"{each.polls_ms[-1]:.0f}", str(each.failed),
            f"{each.growth_mb:+.0f}", f"{each.after_ms:.0f}",
        ]
        for each in rounds
    ]  # fmt: skip
    head = ["crowd", "polls", "median ms", "99 % ms", "longest ms", "failed", "MB", "afterwards ms"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    main()
