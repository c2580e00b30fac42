"""What is connected to. Nothing here connects to anything beyond this machine: what is public is refused before."""

from __future__ import annotations

import socket
import threading

import httpcore
import pytest

from diarist.errors import Cancelled, UrlRefused
from diarist.outbound import ssrf_guard
from diarist.outbound.deadline import Deadline
from diarist.outbound.ssrf_guard import GuardedBackend, is_local_address, resolve


class Names:
    """A resolver that says something else every time."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, port):
        self.asked.append((host, port))
        return self.answers.pop(0)


def make_deadline(total_timeout_s=10.0, check=lambda: None, idle_timeout_s=10.0):
    return Deadline(total_timeout_s, check, idle_timeout_s)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def callers(listener):
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return 0
    connection.close()
    return 1


def test_a_connection_to_an_allowed_network(listener, loopback):
    stream = GuardedBackend(make_deadline(), loopback).connect_tcp("127.0.0.1", listener.getsockname()[1])
    assert stream.get_extra_info("socket").getpeername() == listener.getsockname()
    assert stream.get_extra_info("ssl_object") is None
    stream.close()
    assert callers(listener) == 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0", "0"],
)
def test_this_machine_in_any_spelling(host, listener):
    """By the system's resolver, as in earnest."""
    with pytest.raises(UrlRefused, match="not public"):
        GuardedBackend(make_deadline()).connect_tcp(host, listener.getsockname()[1])
    assert callers(listener) == 0


@pytest.mark.parametrize("port", [22, 6379])
@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "100.64.0.1", "fd00:ec2::254", "::1", "fe80::1%lo"])
def test_a_name_that_leads_to_an_address_that_is_not_public(address, port):
    names = Names((address,))
    with pytest.raises(UrlRefused, match=r"'evil\.example'"):
        GuardedBackend(make_deadline(), resolve=names).connect_tcp("evil.example", port)
    assert names.asked == [("evil.example", port)]


@pytest.mark.parametrize("found", [("127.0.0.1", "10.0.0.1"), ("10.0.0.1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_every_address_of_a_name_is_checked(found, listener, loopback):
    with pytest.raises(UrlRefused):
        GuardedBackend(make_deadline(), loopback, Names(found)).connect_tcp("mixed.example", listener.getsockname()[1])
    assert callers(listener) == 0


def test_a_name_is_asked_for_once(listener, loopback):
    """A name server that gives another address the second time: DNS rebinding."""
    names = Names(("127.0.0.1",), ("10.0.0.1",))
    stream = GuardedBackend(make_deadline(), loopback, names).connect_tcp(
        "rebinding.example", listener.getsockname()[1]
    )
    assert stream.get_extra_info("socket").getpeername()[0] == "127.0.0.1"
    stream.close()
    assert len(names.asked) == 1


def test_the_log_has_the_address_and_the_caller_has_not(caplog):
    with pytest.raises(UrlRefused) as refused:
        GuardedBackend(make_deadline(), resolve=Names(("10.11.12.13",))).connect_tcp("db.internal", 5432)
    assert "10.11.12.13" not in str(refused.value)
    assert "db.internal was refused, because it resolves to 10.11.12.13" in caplog.text


def test_a_public_address_of_this_machine_is_no_way_around_its_firewall(listener, monkeypatch, loopback):
    monkeypatch.setattr(ssrf_guard, "is_public", lambda _: True)
    port = listener.getsockname()[1]
    with pytest.raises(UrlRefused):
        GuardedBackend(make_deadline()).connect_tcp("127.0.0.1", port)
    assert callers(listener) == 0
    GuardedBackend(make_deadline(), loopback).connect_tcp("127.0.0.1", port).close()
    assert callers(listener) == 1


def test_which_addresses_are_this_machines():
    assert is_local_address("127.0.0.1")
    assert not is_local_address("198.51.100.77")
    assert not is_local_address("2001:db8::77")


def test_the_next_address_is_tried_where_one_takes_no_connection(listener, loopback):
    names = Names(("127.7.7.7", "127.0.0.1"))  # the listener listens at the second alone
    stream = GuardedBackend(make_deadline(), loopback, names).connect_tcp("two.example", listener.getsockname()[1])
    stream.close()
    assert callers(listener) == 1


def test_nothing_listens(loopback):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(httpcore.ConnectError, match="refused"):
        GuardedBackend(make_deadline(), loopback).connect_tcp("127.0.0.1", port)


def test_a_name_without_an_address(loopback):
    with pytest.raises(httpcore.ConnectError, match="no address"):
        GuardedBackend(make_deadline(), loopback, Names(())).connect_tcp("empty.example", 80)


def test_a_name_that_is_none(loopback):
    def unknown(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(httpcore.ConnectError, match=r"cannot be resolved \(Name or service not known\)"):
        GuardedBackend(make_deadline(), loopback, unknown).connect_tcp("nowhere.example", 80)


def test_a_name_that_the_resolver_cannot_take():
    with pytest.raises(httpcore.ConnectError, match="cannot be resolved"):
        GuardedBackend(make_deadline(), resolve=resolve).connect_tcp("a" * 64, 80)


@pytest.fixture
def stuck():
    """A name server that does not answer before the test is over."""
    over = threading.Event()
    threads = []

    def wait(host, port):
        threads.append(threading.current_thread())
        over.wait()
        return ()

    yield wait
    over.set()
    for thread in threads:
        thread.join()


def test_a_name_server_that_does_not_answer(stuck):
    with pytest.raises(httpcore.ConnectTimeout, match="not resolved"):
        GuardedBackend(make_deadline(0.1), resolve=stuck).connect_tcp("slow.example", 80)


def test_a_wait_for_a_name_can_be_called_off(stuck):
    def stop():
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        GuardedBackend(make_deadline(60, stop, 60), resolve=stuck).connect_tcp("slow.example", 80)


def test_a_server_that_takes_no_connection_in_time(loopback):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = []
        try:
            for _ in range(4):  # until the queue of the server, which takes none out of it, is full
                caller = socket.socket()
                caller.setblocking(False)
                caller.connect_ex(("127.0.0.1", port))
                waiting.append(caller)
            with pytest.raises(httpcore.ConnectTimeout, match="does not accept"):
                GuardedBackend(make_deadline(0.3), loopback).connect_tcp("127.0.0.1", port)
        finally:
            for caller in waiting:
                caller.close()


def test_no_socket_of_this_machine():
    with pytest.raises(UrlRefused):
        GuardedBackend(make_deadline()).connect_unix_socket("/run/docker.sock")
