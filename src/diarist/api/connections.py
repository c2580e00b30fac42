"""The connections of the server: how many are accepted, how long each may wait, and which is closed to make room."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from waitress.server import TcpWSGIServer

from diarist.api.http_channel import Channel
from diarist.settings import Settings
from diarist.system.open_files import max_open_files
from diarist.system.socket_events import max_sockets
from diarist.types import Seconds

logger = logging.getLogger(__name__)

ACCEPT_BATCH = 128
"""The maximum number of connections that are accepted at a time, before the others are served again."""

CHECK_INTERVAL_S = 0.25
"""The interval at which the time limits of connections are checked."""

MIN_QUIET_S = 0.03
"""How long a connection must be quiet before it is closed for another. A new one has this time to send a request."""

MIN_QUIET_TRANSFER_S = 5.0
"""The same for an upload or a download: one that makes progress within this time is not closed."""

RESERVED_DESCRIPTORS = 128
"""The number of file descriptors that are left to the database, the workers, the log and new connections."""

DESCRIPTORS_PER_CONNECTION = 2
"""A socket, and the temporary file of an upload or of a response."""

MIN_CONNECTIONS = 16

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

WARNING_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections are open at the same time, and how long they may wait."""

    max_connections: int
    header_timeout_s: Seconds
    keepalive_timeout_s: Seconds
    send_timeout_s: Seconds

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """Return the limits in ``settings``, with no more connections than the system allows."""
        limits = (
            (max_open_files(), DESCRIPTORS_PER_CONNECTION, "the process may only open %d files (ulimit -n)"),
            (max_sockets(), 1, "this system cannot wait for more than %d sockets"),
        )
        maximum = settings.max_connections
        for number, per_connection, reason in limits:
            if number is None:
                continue
            available = max((number - RESERVED_DESCRIPTORS) // per_connection, MIN_CONNECTIONS)
            if available < maximum:
                logger.warning(
                    "At most %d connections are served at the same time, not MAX_CONNECTIONS (%d), because %s",
                    available, settings.max_connections, reason % number,
                )  # fmt: skip
                maximum = available
        return cls(maximum, settings.header_timeout_s, settings.keepalive_timeout_s, settings.send_timeout_s)


class Listener(TcpWSGIServer):  # type: ignore[misc]
    """A listening socket, which accepts connections as long as there is room or room can be made."""

    channel_class = Channel
    connections: Connections

    def readable(self) -> bool:
        return self.accepting and self.connections.may_accept()

    def handle_accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                accepted = self.accept()
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self.connections.lacks_descriptors = True
                return
            if accepted is None:
                return
            connection, address = accepted
            try:
                self.set_socket_options(connection)
                self.channel_class(self, connection, address, self.adj, map=self._map)
            except OSError:  # The client has already reset the connection.
                connection.close()


class Connections:
    """The open connections of all listeners. Its methods are called by the thread that reads all connections."""

    def __init__(self, limits: ConnectionLimits, listeners: Sequence[Listener]) -> None:
        self.lacks_descriptors = False
        self._limits = limits
        self._listeners = tuple(listeners)
        self._checked_at = self._warned_at = self._paused_until = -WARNING_INTERVAL_S
        for listener in self._listeners:
            listener.connections = self

    def channels(self) -> list[Channel]:
        """Return the channels of all open connections."""
        return [channel for listener in self._listeners for channel in listener.active_channels.values()]

    @property
    def full(self) -> bool:
        """Whether there is no room for another connection, unless one is closed."""
        return sum(len(each.active_channels) for each in self._listeners) >= self._limits.max_connections

    @property
    def poll_timeout_s(self) -> Seconds:
        """How long to wait for events at most, so that time limits are kept and room is made."""
        now = time.monotonic()
        return MIN_QUIET_S if self.full or now < self._paused_until else 4 * CHECK_INTERVAL_S

    def may_accept(self) -> bool:
        """Return whether there is room for another connection, or one can be closed for it."""
        now = time.monotonic()
        if self.full:
            return bool(_replaceable(self.channels(), now))
        return now >= self._paused_until

    def close_expired(self) -> None:
        """Close the connections that have waited too long, and the quietest ones if there are too many.

        This must not be called while events of the connections are handled: a new connection would take the place of
        a closed one, with the same descriptor, and receive its events.
        """
        now = time.monotonic()
        if now - self._checked_at >= CHECK_INTERVAL_S:
            self._checked_at = now
            self._check_timeouts(self.channels(), now)
        channels = self.channels()
        excess = len(channels) - self._limits.max_connections
        if self.lacks_descriptors:
            self.lacks_descriptors = False
            excess = max(excess, min(ACCEPT_BATCH, len(channels) // 2 + 1))
            if not self._close_quietest(channels, excess, "The process has no file descriptors left (ulimit -n)"):
                self._paused_until = now + MIN_QUIET_S
        elif excess > 0:
            self._close_quietest(channels, excess, f"More than {self._limits.max_connections} clients are connected")

    def _check_timeouts(self, channels: Sequence[Channel], now: float) -> None:
        limits = self._limits
        crowded = len(channels) > limits.max_connections / 2
        idle_limits = (limits.keepalive_timeout_s, limits.header_timeout_s)
        keepalive_s = min(idle_limits) if crowded else limits.keepalive_timeout_s
        for channel in channels:
            if channel.expired(now, limits.header_timeout_s, keepalive_s, limits.send_timeout_s):
                channel.handle_close()
            else:
                channel.refuse_slow_request(limits.header_timeout_s)

    def _close_quietest(self, channels: Sequence[Channel], number: int, reason: str) -> int:
        """Close up to ``number`` connections, those that have been quiet for longest first. Return how many."""
        now = time.monotonic()
        closed = _replaceable(channels, now)[:number]
        if closed and now - self._warned_at >= WARNING_INTERVAL_S:
            self._warned_at = now
            logger.warning("%s; connections that were idle for longest are closed", reason)
        for channel in closed:
            with suppress(OSError):
                channel.handle_close()
        return len(closed)


def _replaceable(channels: Sequence[Channel], now: Seconds) -> list[Channel]:
    """Return the channels that may be closed for others, the first one first.

    Where all of them transfer data, the quietest ones make room, or else clients that do not read would keep it.
    """
    waiting = [channel for channel in channels if channel.connected and channel.waits]
    overdue_s = {channel: now - channel.quiet_since - _min_quiet_s(channel) for channel in waiting}
    if all(channel.transfers for channel in waiting) and all(each < 0 for each in overdue_s.values()):
        overdue_s = {channel: now - channel.quiet_since - MIN_QUIET_S for channel in waiting}
    return sorted((each for each in waiting if overdue_s[each] >= 0), key=overdue_s.__getitem__, reverse=True)


def _min_quiet_s(channel: Channel) -> Seconds:
    return MIN_QUIET_TRANSFER_S if channel.transfers else MIN_QUIET_S
