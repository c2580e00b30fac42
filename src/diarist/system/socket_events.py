"""Waiting for events of sockets: by ``select.poll``, or by ``select.select`` where that is missing, as on Windows."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Mapping

READABLE = int(getattr(select, "POLLIN", 1))
URGENT = int(getattr(select, "POLLPRI", 2))
WRITABLE = int(getattr(select, "POLLOUT", 4))
BROKEN = sum(int(getattr(select, name, value)) for name, value in (("POLLERR", 8), ("POLLHUP", 16), ("POLLNVAL", 32)))
"""The flags of ``select.poll``, or the same values where it is missing. ``BROKEN`` is any of three."""


def max_sockets() -> int | None:
    """Return how many sockets can be waited for at a time, or None if there is no limit.

    ``select.select`` is limited to 512 sockets on Windows (``FD_SETSIZE`` in CPython's ``selectmodule.c``). On other
    systems, it is limited to descriptors below 1024, half of which are left to files.
    """
    return None if hasattr(select, "poll") else 512


def wait_for_events(interests: Mapping[int, int], timeout_s: float) -> list[tuple[int, int]]:
    """Wait until a socket has an event, or until the time is over. Return the sockets that have events.

    Args:
        interests: the flags of the events to wait for, by descriptor. ``BROKEN`` need not be among them.
        timeout_s: how long to wait if nothing happens.

    Returns:
        The descriptors with the flags of their events.
    """
    if sys.platform != "win32" and hasattr(select, "poll"):
        poll = select.poll()
        for fd, flags in interests.items():
            poll.register(fd, flags)
        return poll.poll(timeout_s * 1000)
    return _select(interests, timeout_s)


def _select(interests: Mapping[int, int], timeout_s: float) -> list[tuple[int, int]]:
    if not interests:  # Windows refuses three empty lists.
        time.sleep(timeout_s)
        return []
    read, write, urgent = ([fd for fd, flags in interests.items() if flags & each] for each in _SELECTED)
    try:
        ready = select.select(read, write, urgent, timeout_s)
    except (OSError, ValueError):
        # One of the descriptors is closed, and select does not tell which one.
        return [(fd, BROKEN) for fd in interests if not _is_open(fd)]
    events: dict[int, int] = {}
    for flag, descriptors in zip(_SELECTED, ready, strict=True):
        for fd in descriptors:
            events[fd] = events.get(fd, 0) | flag
    return list(events.items())


_SELECTED = (READABLE, WRITABLE, URGENT)


def _is_open(fd: int) -> bool:
    try:
        select.select([fd], [], [], 0)
    except (OSError, ValueError):
        return False
    return True
