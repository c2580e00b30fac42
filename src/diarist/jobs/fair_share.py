"""Sharing of a small number of slots among the owners of API keys, so that none of them can take all.

An owner may take a slot as long as it holds fewer than are free. So one owner alone gets at most half of the slots, two
get a third each, and n owners an equal share of which one more remains for whoever comes next. (This is the dynamic
threshold of Choudhury and Hahne for packets in shared memory, IEEE/ACM Transactions on Networking 6(2), 1998, with
alpha = 1.) A service without keys, or with one, has nobody to share with: the empty owner may take all.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

UNSHARED = ""
"""The owner that may take all slots, because the service has at most one API key."""


def has_free_slot(slots: int, held: Mapping[str, int], owner: str) -> bool:
    """Return whether an owner may take one more slot.

    Args:
        slots: The number of slots.
        held: The number of slots that each owner holds.
        owner: The owner that asks for one.
    """
    free = slots - sum(held.values())
    return free > 0 and (owner == UNSHARED or held.get(owner, 0) < free)


class SharedSlots:
    """Slots that owners share fairly. Safe to call from any thread; nothing blocks."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    def acquire(self, owner: str) -> ExitStack | None:
        """Take a slot, and return what releases it when it is closed, or None if the owner may not take another one."""
        with self._lock:
            if not has_free_slot(self._slots, self._held, owner):
                return None
            self._held[owner] += 1
        slot = ExitStack()  # releases the slot once, however often it is closed
        slot.callback(self._release, owner)
        return slot

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        with self._lock:
            return self._held.total() >= self._slots

    def _release(self, owner: str) -> None:
        with self._lock:
            self._held[owner] -= 1
            self._held += Counter()  # removes owners that hold none
