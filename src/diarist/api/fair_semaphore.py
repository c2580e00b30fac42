"""A lane for requests that take their time: so many at once, the others wait their turn without holding a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairSemaphore(Generic[T]):
    """``places`` may be in it at once. Safe to call from any thread."""

    def __init__(self, slots: int) -> None:
        self._lock = threading.Lock()
        self._free_slots = slots
        self._waiting: deque[T] = deque()
        self._granted: set[T] = set()

    def acquire(self, waiter: T) -> bool:
        """Whether ``who`` may go on now; if not, ``leave`` will name it when it may."""
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
        """Give a place back, or over to the one who has waited longest: that one must be sent to ``enter`` again."""
        with self._lock:
            if not self._waiting:
                self._free_slots += 1
                return None
            next_waiter = self._waiting.popleft()
            self._granted.add(next_waiter)
            return next_waiter
