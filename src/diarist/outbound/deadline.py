"""How long another machine is waited for, and that the wait can be called off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from diarist.types import Seconds

T = TypeVar("T")

IDLE_TIMEOUT_S: Seconds = 30.0
"""Longest time without a sign of the other side: while it is connected to, and between two pieces of its answer."""

POLL_INTERVAL_S: Seconds = 0.5
"""How often a wait looks up."""


class Deadline:
    """One deadline for all that an exchange takes, from the first question to the last byte.

    Beside it no single step may take longer than ``silence_s``. ``check`` is called about every ``TICK_S``; what it
    raises ends the exchange.
    """

    def __init__(
        self, total_timeout_s: Seconds, check: Callable[[], None], idle_timeout_s: Seconds = IDLE_TIMEOUT_S
    ) -> None:
        self.total_timeout_s = total_timeout_s
        self.idle_timeout_s = min(idle_timeout_s, total_timeout_s)
        self._check = check
        self._checked_at = time.monotonic()
        self._ends_at = self._checked_at + total_timeout_s

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._ends_at

    def wait_for(self, attempt: Callable[[Seconds], T]) -> T:
        """What ``attempt(seconds)`` gives; asked again for as long as it raises ``TimeoutError`` and time is left.

        Raises:
            TimeoutError: no time is left.
        """
        now = time.monotonic()
        attempts_end_at = min(now + self.idle_timeout_s, self._ends_at)
        last_error = TimeoutError("the time is over")
        while now < attempts_end_at:
            if now - self._checked_at >= POLL_INTERVAL_S:
                self._checked_at = now
                self._check()
            try:
                return attempt(min(POLL_INTERVAL_S, attempts_end_at - now))
            except TimeoutError as error:
                last_error = error
            now = time.monotonic()
        raise last_error
