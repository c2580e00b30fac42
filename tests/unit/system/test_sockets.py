from __future__ import annotations

import errno
import socket
import sys

import pytest

from diarist.system.sockets import claim_address, unsent_bytes


@pytest.fixture
def connection():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            near.setblocking(False)
            yield near


def fill(connection):
    try:
        while True:
            connection.send(bytes(2**16))
    except BlockingIOError:
        return


def test_what_the_peer_does_not_read_is_counted(connection):
    assert unsent_bytes(connection) == 0
    fill(connection)
    assert unsent_bytes(connection) > 0


def test_where_the_system_does_not_tell_nothing_is_counted(connection, monkeypatch):
    fill(connection)
    monkeypatch.setitem(sys.modules, "termios", None)
    assert unsent_bytes(connection) == 0


def test_two_programs_cannot_listen_on_one_address():
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            claim_address(each)
        first.bind(("127.0.0.1", 0))
        first.listen()
        with pytest.raises(OSError, match=r"in use") as caught:
            second.bind(first.getsockname())
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_can_be_listened_on_right_after_its_program_has_ended():
    with socket.socket() as first:
        claim_address(first)
        first.bind(("127.0.0.1", 0))
        first.listen()
        address = first.getsockname()
        client = socket.create_connection(address)
        first.accept()[0].close()  # leaves the connection in TIME_WAIT
        client.close()
    with socket.socket() as second:
        claim_address(second)
        second.bind(address)
