"""Clients that hold connections: they are idle, send little, or do not read, and others are served all the same."""

from __future__ import annotations

import itertools
import re
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from api.conftest import eventually
from api.listener import NotificationListener
from api.process import ServiceProcess
from api.test_server import error_message, script
from api.wire import FORM, Address, answer_on, call, head, recording

pytestmark = pytest.mark.slow

CROWD = 1_000
GET = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATUS = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER_S = 3.0
"""The maximum time of a response. Without load it takes milliseconds, but tests may share a busy machine."""

MAX_GROWTH_BYTES = 50 * 2**20


@contextmanager
def crowd(address: Address, number: int, first: bytes, then: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections that send ``first`` as far as it is accepted, then ``then`` byte by byte, and read nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * CROWD, hard), hard))
    members: list[socket.socket] = []
    ended = threading.Event()

    def send() -> None:
        left = dict.fromkeys(members, first)
        for piece in itertools.cycle(then[i : i + 1] for i in range(len(then))) if then else itertools.repeat(b""):
            for member, rest in left.items():
                with suppress(OSError):
                    left[member] = rest[member.send(rest) :] if rest else piece[member.send(piece) :]
            if ended.wait(0.2):
                return

    sender = threading.Thread(target=send)
    try:
        for _ in range(number):
            members.append(socket.socket())
            members[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
            members[-1].setblocking(False)
            with suppress(BlockingIOError):
                members[-1].connect(address)
        sender.start()
        yield members
    finally:
        ended.set()
        if sender.ident is not None:
            sender.join()
        for member in members:
            member.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def status_within(service: ServiceProcess, seconds: float = ANSWER_S) -> None:
    began = time.monotonic()
    assert call(service.address, "GET", "/status").status == 200
    assert time.monotonic() - began < seconds


def closed(connection: socket.socket) -> bool:
    """Return whether the service has closed the connection, having sent nothing on it."""
    try:
        return bool(select.select([connection], [], [], 0)[0]) and connection.recv(1) == b""
    except ConnectionError:
        return True


def connections(process: psutil.Process) -> int:
    return sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))


@pytest.fixture
def service(start: Callable[..., ServiceProcess]) -> ServiceProcess:
    service = start(HTTP_THREADS=8, MAX_WAITING=2, MAX_LISTENERS=2, MIN_FREE_MB=0, SEND_TIMEOUT_S=2)
    service.wait_for("is ready")
    return service


@pytest.mark.parametrize(
    ("number", "first", "then", "seconds"),
    [
        (40, GET * 700, b"", 12),
        (CROWD, GET * 700, b"", 5),
        (CROWD, b"", b"", 5),
        (CROWD, b"", b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 1_000, 5),
        (CROWD, head(100_000), b"a", 5),
    ],
    ids=["40 that do not read", "1000 that do not read", "idle", "a byte of a head", "a byte of a body"],
)
def test_others_are_served_while_a_crowd_holds_connections(service, number, first, then, seconds):
    process = psutil.Process(service.process.pid)
    for _ in range(20):
        assert call(service.address, "GET", "/openapi.json").status == 200
    before_bytes = process.memory_info().rss
    with crowd(service.address, number, first, then):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status_within(service)
            assert process.memory_info().rss - before_bytes < MAX_GROWTH_BYTES
    eventually(lambda: connections(process) == 0, 30)
    status_within(service)


def test_a_client_that_does_not_read_is_cut_off(service):
    process = psutil.Process(service.process.pid)
    with crowd(service.address, 1, GET * 2_000):
        eventually(lambda: connections(process) == 1)
        eventually(lambda: connections(process) == 0, 10)


def test_a_client_that_reads_slowly_receives_everything(service):
    one = call(service.address, "GET", "/openapi.json").body
    number = 40
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        connection.settimeout(20)
        connection.connect(service.address)
        connection.sendall(GET * (number - 1) + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = bytearray()
        began = time.monotonic()
        while data := connection.recv(2**16 if time.monotonic() - began > 5 else 2**12):
            received += data
            if time.monotonic() - began < 5:
                time.sleep(0.05)  # a slow connection
    assert time.monotonic() - began > 5
    assert received.count(one) == number


def test_requests_that_are_sent_at_once_are_answered_in_their_order(service):
    body = recording("{}")
    requests = [STATUS] * 300 + [head(len(body)) + body, GET, head(len(body)) + body, STATUS]
    requests = [each.replace(b"\r\n", f"\r\nX-Request-ID: {i}\r\n".encode(), 1) for i, each in enumerate(requests)]
    requests[-1] = requests[-1].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with socket.create_connection(service.address, timeout=20) as connection:
        connection.sendall(b"\r\n".join(requests))
        answers = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200"] * len(requests)
    assert [int(each) for each in re.findall(rb"X-Request-Id: (\d+)", answers)] == list(range(len(requests)))


def test_the_oldest_idle_connection_makes_room(start):
    service = start(MAX_CONNECTIONS=16)
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(service.address)) for _ in range(16)]
        idle[0].sendall(STATUS)
        assert answer_on(idle[0]).status == 200  # so it is not the oldest any more
        status_within(service)
        eventually(lambda: closed(idle[1]))
        assert [closed(each) for each in idle] == [False, True] + [False] * 14
    service.wait_for("WARNING .*More than 16 clients are connected")


def test_uploads_that_make_progress_are_not_cut_off(start):
    service = start(MAX_CONNECTIONS=16)
    service.wait_for("is ready")
    body = recording("{}" + " " * 200_000)
    with socket.create_connection(service.address, timeout=20) as upload:
        upload.sendall(head(len(body)))
        for i in range(0, len(body), 10_000):
            upload.sendall(body[i : i + 10_000])
            with ExitStack() as stack:
                for _ in range(16):
                    stack.enter_context(socket.create_connection(service.address))
                status_within(service)
        assert answer_on(upload).status == 200


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_NOFILE"), reason="this system cannot limit a process's descriptors")
def test_where_descriptors_run_out_the_oldest_connections_make_room(start):
    service = start()
    service.wait_for("is ready")
    status_within(service)
    process = psutil.Process(service.process.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 24, process.rlimit(psutil.RLIMIT_NOFILE)[1]))
    with crowd(service.address, 100, b""):
        for _ in range(10):
            status_within(service)
    service.wait_for("WARNING .*no file descriptors left")


def test_as_many_connections_are_served_as_there_are_descriptors_for(start):
    command = ("prlimit", "--nofile=192", *ServiceProcess.COMMAND)
    service = start(command=command)
    service.wait_for("At most 32 connections are served at the same time, not MAX_CONNECTIONS")
    status_within(service)


def test_a_first_request_must_arrive_in_time(start):
    service = start(HEADER_TIMEOUT_S=1)
    with socket.create_connection(service.address, timeout=20) as silent:
        assert silent.recv(1) == b""
    with crowd(service.address, 1, b"", b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 1_000) as (slow,):
        slow.setblocking(True)
        error_message(answer_on(slow), 408, "upload_too_slow")
    with crowd(service.address, 1, b"", b"\r\n\r\n") as (empty,):
        eventually(lambda: closed(empty), 10)


def test_a_connection_may_be_idle_between_requests(start):
    service = start(HEADER_TIMEOUT_S=1, KEEPALIVE_TIMEOUT_S=4)
    with socket.create_connection(service.address, timeout=20) as connection:
        for _ in range(2):
            connection.sendall(STATUS)
            assert answer_on(connection).status == 200
            assert select.select([connection], [], [], 2)[0] == []
        assert connection.recv(1) == b""


def test_under_pressure_idle_connections_are_closed_sooner(start):
    service = start(HEADER_TIMEOUT_S=2, MAX_CONNECTIONS=16)
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(service.address, timeout=20)) for _ in range(12)]
        for each in idle:
            each.sendall(STATUS)
            assert answer_on(each).status == 200
        eventually(lambda: any(map(closed, idle)), 10)


def test_an_event_stream_is_not_idle(start, tmp_path):
    service = start(HEADER_TIMEOUT_S=1, KEEPALIVE_TIMEOUT_S=1, SEND_TIMEOUT_S=1, MAX_CONNECTIONS=16)
    service.wait_for("is ready")
    job = call(service.address, "POST", "/v1/jobs", recording(script(until=str(tmp_path / "go"))), FORM).json
    with NotificationListener(service.address, job["links"]["events"]) as listener, ExitStack() as stack:
        listener.until("state", state="running")
        idle = [stack.enter_context(socket.create_connection(service.address)) for _ in range(40)]
        eventually(lambda: all(map(closed, idle)), 20)
        (tmp_path / "go").touch()
        assert listener.until("state", state="succeeded")
    assert call(service.address, "DELETE", job["links"]["self"]).status == 204
