"""How long another machine is waited for, and that the wait can be called off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from diarist.types import Seconds

T = TypeVar("T")

SILENCE_S: Seconds = 30.0
"""Longest time without a sign of the other side: while it is connected to, and between two pieces of its answer."""

TICK_S: Seconds = 0.5
"""How often a wait looks up."""


class Deadline:
    """One deadline for all that an exchange takes, from the first question to the last byte.

    Beside it no single step may take longer than ``silence_s``. ``check`` is called about every ``TICK_S``; what it
    raises ends the exchange.
    """

    def __init__(self, total_s: Seconds, check: Callable[[], None], silence_s: Seconds = SILENCE_S) -> None:
        self.total_s = total_s
        self.silence_s = min(silence_s, total_s)
        self._check = check
        self._checked = time.monotonic()
        self._deadline = self._checked + total_s

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._deadline

    def insist(self, attempt: Callable[[Seconds], T]) -> T:
        """What ``attempt(seconds)`` gives; asked again for as long as it raises ``TimeoutError`` and time is left.

        Raises:
            TimeoutError: no time is left.
        """
        now = time.monotonic()
        until = min(now + self.silence_s, self._deadline)
        failure = TimeoutError("the time is over")
        while now < until:
            if now - self._checked >= TICK_S:
                self._checked = now
                self._check()
            try:
                return attempt(min(TICK_S, until - now))
            except TimeoutError as error:
                failure = error
            now = time.monotonic()
        raise failure
