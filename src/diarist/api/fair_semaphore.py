"""A semaphore for slow requests that is granted in order of arrival, and whose waiters occupy no thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairSemaphore(Generic[T]):
    """A semaphore with ``slots`` slots that never blocks. Its methods may be called from any thread.

    A waiter that does not get a slot is queued. ``release`` passes the slot on to the waiter that has waited longest.
    """

    def __init__(self, slots: int) -> None:
        self._lock = threading.Lock()
        self._free_slots = slots
        self._waiting: deque[T] = deque()
        self._granted: set[T] = set()

    def acquire(self, waiter: T) -> bool:
        """Return whether ``waiter`` has a slot now. If not, a later ``release`` returns it when a slot is granted."""
        with self._lock:
            if waiter in self._granted:
                self._granted.remove(waiter)
                return True
            if self._free_slots == 0:
                self._waiting.append(waiter)
                return False
            self._free_slots -= 1
            return True

    def release(self) -> T | None:
        """Release a slot, and return the waiter to which it is granted, or None if nothing waits.

        The caller must make that waiter call ``acquire`` again, which then returns true.
        """
        with self._lock:
            if not self._waiting:
                self._free_slots += 1
                return None
            next_waiter = self._waiting.popleft()
            self._granted.add(next_waiter)
            return next_waiter
