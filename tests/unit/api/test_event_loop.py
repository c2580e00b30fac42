"""The turns in which the event loop of the server handles its connections."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable

import pytest

from diarist.api import event_loop
from diarist.api.event_loop import run_round
from diarist.api.http_channel import Channel


class FakeChannel(Channel):
    """A channel on a real socket, whose reading is a function."""

    def __init__(self, connection: socket.socket, accepted_at: float, read: Callable[[FakeChannel], None]) -> None:
        self.socket, self.accepted_at, self.handled_at, self._read = connection, accepted_at, 0.0, read
        self.accepting = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self._read(self)


@pytest.fixture(params=["poll", "select"], autouse=True)
def _way(request, monkeypatch):
    if request.param == "select":
        monkeypatch.delattr(select, "poll")


@pytest.fixture
def connect():
    """Return a function that gives the descriptor and the channel of a connection that has data to read."""
    opened: list[socket.socket] = []

    def connection(accepted_at: float, read: Callable[[FakeChannel], None]) -> tuple[int, FakeChannel]:
        ours, theirs = socket.socketpair()
        opened.extend((ours, theirs))
        theirs.send(b"x")
        return ours.fileno(), FakeChannel(ours, accepted_at, read)

    yield connection
    for each in opened:
        each.close()


def test_a_round_takes_the_connections_that_waited_longest_and_the_newest_by_turns(connect):
    order: list[float] = []
    map_ = dict(connect(at, lambda channel: order.append(channel.accepted_at)) for at in (1.0, 2.0, 3.0, 4.0, 5.0))
    run_round(map_, 1.0)
    assert order == [5.0, 1.0, 4.0, 2.0, 3.0]


def test_connections_that_a_round_did_not_reach_are_first_in_the_next(connect, monkeypatch):
    monkeypatch.setattr(event_loop, "MAX_ROUND_S", -1.0)  # one event a round
    order: list[float] = []
    map_ = dict(connect(at, lambda channel: order.append(channel.accepted_at)) for at in (1.0, 2.0, 3.0))
    for each in map_.values():
        each.handled_at = each.accepted_at
    for _ in range(6):
        run_round(map_, 1.0)
    assert order == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]


def test_a_round_ends_in_time_and_handles_at_least_one_event(connect, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(event_loop.time, "monotonic", lambda: float(next(clock)))
    handled: list[FakeChannel] = []
    map_ = dict(connect(at, handled.append) for at in (1.0, 2.0, 3.0))
    run_round(map_, 1.0)
    assert len(handled) == 1


def test_an_event_of_a_closed_connection_does_not_reach_the_next_one_with_its_descriptor(connect):
    handled: list[str] = []
    _, new = connect(9.0, lambda _: handled.append("new"))
    victim_fd, victim = connect(1.0, lambda _: handled.append("victim"))
    map_: dict[int, FakeChannel] = {}

    def close_the_victim(_: FakeChannel) -> None:
        handled.append("closer")
        map_[victim_fd] = new

    closer_fd, closer = connect(2.0, close_the_victim)
    map_.update({victim_fd: victim, closer_fd: closer})
    run_round(map_, 1.0)
    assert handled == ["closer"]


@pytest.mark.parametrize(
    ("error", "handler"),
    [(ConnectionResetError(errno.ECONNRESET, ""), "close"), (OSError(errno.EIO, ""), "error"), (KeyError(), "error")],
)
def test_an_error_of_a_connection_ends_only_that_connection(connect, error, handler):
    handled: list[str] = []

    def fail(_: FakeChannel) -> None:
        raise error

    fd, failing = connect(1.0, fail)
    failing.handle_close = lambda: handled.append("close")
    failing.handle_error = lambda: handled.append("error")
    other_fd, other = connect(2.0, lambda _: handled.append("other"))
    run_round({fd: failing, other_fd: other}, 1.0)
    assert sorted(handled) == sorted([handler, "other"])
