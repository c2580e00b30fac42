"""Time limits of an exchange with another machine, which can be canceled while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from diarist.types import Seconds

T = TypeVar("T")

IDLE_TIMEOUT_S: Seconds = 30.0
"""The longest wait for the other machine: for the connection, and between two chunks of the response."""

POLL_INTERVAL_S: Seconds = 0.5
"""How often a wait is interrupted to call ``check``."""


class Deadline:
    """The deadline of a whole exchange, from resolving the name to the last byte of the response.

    In addition, no single step may take longer than ``idle_timeout_s``. ``check`` is called about every
    ``POLL_INTERVAL_S``; an exception that it raises ends the exchange.
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
        """Return whether the deadline has passed."""
        return time.monotonic() >= self._ends_at

    def wait_for(self, attempt: Callable[[Seconds], T]) -> T:
        """Return the result of ``attempt(seconds)``; call it again while it raises ``TimeoutError`` and time is left.

        Raises:
            TimeoutError: there is no time left.
        """
        now = time.monotonic()
        attempts_end_at = min(now + self.idle_timeout_s, self._ends_at)
        last_error = TimeoutError("the deadline has passed")
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
