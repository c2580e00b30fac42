"""One round of the event loop of the server: wait for events of the connections, and handle them for a limited time."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from diarist.api.http_channel import Channel
from diarist.system.socket_events import BROKEN, READABLE, URGENT, WRITABLE, wait_for_events
from diarist.types import Seconds

MAX_ROUND_S = 0.02
"""How long events are handled before new connections are accepted again. What is left is found ready again then."""

DISCONNECTED = frozenset(
    (errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNABORTED, errno.EPIPE, errno.EBADF)
)
"""The errors that mean that the connection has ended."""


def run_round(dispatchers: Mapping[int, Any], timeout_s: Seconds) -> None:
    """Wait for events and handle them, at least one, for up to ``MAX_ROUND_S``.

    Waitress' own loop handles all events, in order of descriptors: a client that connects together with a thousand
    others waits until the requests of all of them have been parsed.

    Args:
        dispatchers: the listeners, the channels and the wake-up pipe, by descriptor. Handlers change this mapping.
        timeout_s: how long to wait if nothing is ready.
    """
    ready = _ready(dispatchers, timeout_s)
    deadline = time.monotonic() + MAX_ROUND_S
    for fd, dispatcher, flags in _in_turn(ready):
        # A handler may have closed this connection, and its descriptor may belong to a new one.
        if dispatchers.get(fd) is not dispatcher:
            continue
        if isinstance(dispatcher, Channel):
            dispatcher.handled_at = time.monotonic()
        _handle(dispatcher, flags)
        if time.monotonic() > deadline:
            return


def _ready(dispatchers: Mapping[int, Any], timeout_s: Seconds) -> list[tuple[int, Any, int]]:
    """Return the descriptors that are ready, with their dispatchers and the flags of their events."""
    interests: dict[int, int] = {}
    for fd, dispatcher in tuple(dispatchers.items()):
        flags = READABLE | URGENT if dispatcher.readable() else 0
        if dispatcher.writable() and not dispatcher.accepting:
            flags |= WRITABLE
        if flags:
            interests[fd] = flags
    return [(fd, dispatchers[fd], flags) for fd, flags in wait_for_events(interests, timeout_s) if fd in dispatchers]


def _handle(dispatcher: Any, flags: int) -> None:
    """Handle the events of a dispatcher as ``wasyncore.readwrite`` does, which needs ``select.poll``."""
    try:
        if flags & READABLE:
            dispatcher.handle_read_event()
        if flags & WRITABLE:
            dispatcher.handle_write_event()
        if flags & URGENT:
            dispatcher.handle_expt_event()
        if flags & BROKEN:
            dispatcher.handle_close()
    except OSError as error:
        if error.errno in DISCONNECTED:
            dispatcher.handle_close()
        else:
            dispatcher.handle_error()
    except Exception:  # noqa: BLE001 - the dispatcher logs it
        dispatcher.handle_error()


def _in_turn(ready: Sequence[tuple[int, Any, int]]) -> Iterator[tuple[int, Any, int]]:
    """Yield listeners first, and then by turns the connection that has waited longest and the newest that was not read.

    The first order starves no connection; the second one soon answers a client that connects among many others.
    """
    channels = [each for each in ready if isinstance(each[1], Channel)]
    oldest = sorted(channels, key=lambda each: each[1].handled_at or each[1].accepted_at)
    newest = sorted(
        (each for each in channels if not each[1].handled_at), key=lambda each: each[1].accepted_at, reverse=True
    )
    seen: set[int] = set()
    yield from (each for each in ready if not isinstance(each[1], Channel))
    for each in chain.from_iterable(zip_longest(newest, oldest)):
        if each is not None and each[0] not in seen:
            seen.add(each[0])
            yield each
