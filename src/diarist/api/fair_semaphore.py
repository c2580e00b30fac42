"""A lane for requests that take their time: so many at once, the others wait their turn without holding a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairSemaphore(Generic[T]):
    """``places`` may be in it at once. Safe to call from any thread."""

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._waiting: deque[T] = deque()
        self._called: set[T] = set()

    def enter(self, who: T) -> bool:
        """Whether ``who`` may go on now; if not, ``leave`` will name it when it may."""
        with self._lock:
            if who in self._called:
                self._called.remove(who)
                return True
            if self._free == 0:
                self._waiting.append(who)
                return False
            self._free -= 1
            return True

    def leave(self) -> T | None:
        """Give a place back, or over to the one who has waited longest: that one must be sent to ``enter`` again."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return None
            following = self._waiting.popleft()
            self._called.add(following)
            return following
