"""Events of sockets, by ``select.poll`` and by ``select.select``."""

from __future__ import annotations

import select
import socket
import time

import pytest

from diarist.system.socket_events import BROKEN, READABLE, URGENT, WRITABLE, max_sockets, wait_for_events


@pytest.fixture(params=["poll", "select"], autouse=True)
def way(request, monkeypatch):
    if request.param == "select":
        monkeypatch.delattr(select, "poll")
    return request.param


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_socket_without_data_can_only_be_written(pair):
    fd = pair[0].fileno()
    assert wait_for_events({fd: READABLE | WRITABLE}, 10.0) == [(fd, WRITABLE)]


def test_data_and_the_end_of_a_connection_can_be_read(pair):
    ours, theirs = pair
    theirs.send(b"x")
    assert wait_for_events({ours.fileno(): READABLE}, 10.0) == [(ours.fileno(), READABLE)]
    ours.recv(1)
    theirs.close()
    [(fd, flags)] = wait_for_events({ours.fileno(): READABLE}, 10.0)
    assert (fd, flags & READABLE) == (ours.fileno(), READABLE)


def test_urgent_data():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as theirs:
        ours, _ = listener.accept()
        with ours:
            theirs.send(b"!", socket.MSG_OOB)
            [(_, flags)] = wait_for_events({ours.fileno(): URGENT}, 10.0)
            assert flags & URGENT


@pytest.mark.parametrize("interested", [True, False])
def test_the_wait_ends_in_time(pair, interested):
    began = time.monotonic()
    assert wait_for_events({pair[0].fileno(): READABLE} if interested else {}, 0.05) == []
    assert 0.04 < time.monotonic() - began < 10.0


def test_a_closed_socket_is_reported_and_the_others_are_next(pair):
    ours, theirs = pair
    closed, _ = other = socket.socketpair()
    fd = closed.fileno()
    for each in other:
        each.close()
    theirs.send(b"x")
    first = dict(wait_for_events({fd: READABLE, ours.fileno(): READABLE}, 10.0))
    assert first[fd] & BROKEN
    assert wait_for_events({ours.fileno(): READABLE}, 10.0) == [(ours.fileno(), READABLE)]


def test_the_number_of_sockets_is_limited_without_poll(way):
    assert max_sockets() == (None if way == "poll" else 512)
