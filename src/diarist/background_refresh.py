"""A value that is read from a store for everyone who asks, so that a store that hangs holds up nobody."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from diarist.errors import ServiceError
from diarist.types import Seconds

logger = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class CachedValue(Generic[ValueT]):
    """A value that was read, and when."""

    value: ValueT
    started_at: Seconds
    """When the reading began, by ``time.monotonic``: what changed after that may be missing."""

    @property
    def age_s(self) -> Seconds:
        return time.monotonic() - self.started_at


@dataclass(slots=True)
class _Attempt:
    started_at: Seconds
    ended_at: Seconds | None = None
    error: Exception | None = None


class RefreshingValue(Generic[ValueT]):
    """Reads a value for any number of threads. Safe to call from any thread.

    The value is read by a thread that lives for one reading, one at a time, so that a store that does not answer holds
    up nobody for longer than they are ready to wait.

    Args:
        name: what the value is; the threads that read it have this name.
        read: reads the value. What it raises is raised to those who wait for this reading.
        retry_s: how long what it raised is raised to those who come later, too, before it is called again.
    """

    def __init__(self, name: str, read: Callable[[], ValueT], retry_s: Seconds = 0.0) -> None:
        self._name = name
        self._read = read
        self._retry_s = retry_s
        self._news = threading.Condition()
        self._current: _Attempt | None = None
        self._failed: _Attempt | None = None
        self._last: CachedValue[ValueT] | None = None
        self._unanswered_since: Seconds | None = None

    @property
    def last(self) -> CachedValue[ValueT] | None:
        """The last reading that succeeded."""
        return self._last

    @property
    def failing_s(self) -> Seconds:
        """How long the value has been asked for in vain; 0 where the last reading succeeded."""
        with self._news:
            return 0.0 if self._unanswered_since is None else time.monotonic() - self._unanswered_since

    def get(self, max_age_s: Seconds, patience_s: Seconds) -> CachedValue[ValueT] | None:
        """Return a reading that began at most ``max_age_s`` seconds ago, or later.

        Whoever comes while a reading has taken longer than ``patience_s`` already does not wait at all.

        Returns:
            None where the value is not read within ``patience_s`` seconds.

        Raises:
            Exception: whatever reading the value raised.
        """
        with self._news:
            now = time.monotonic()
            wanted, deadline = now - max_age_s, now + patience_s
            while self._last is None or self._last.started_at < wanted:
                attempt = self._just_failed() or self._begin()
                left_s = min(deadline, attempt.started_at + patience_s) - time.monotonic()
                if not self._news.wait_for(lambda attempt=attempt: attempt.ended_at is not None, left_s):  # type: ignore[misc]
                    return None
                if attempt.error is not None:
                    raise attempt.error
            return self._last

    def refresh(self) -> None:
        """Have the value read now, unless it is being read. Does not wait for it."""
        with self._news:
            self._begin()

    def _just_failed(self) -> _Attempt | None:
        failed = self._failed
        if failed is None or failed.ended_at is None or time.monotonic() - failed.ended_at >= self._retry_s:
            return None
        return failed

    def _begin(self) -> _Attempt:
        if self._current is None:
            attempt = _Attempt(time.monotonic())
            threading.Thread(target=self._run, args=(attempt,), name=self._name, daemon=True).start()
            self._current = attempt
            if self._unanswered_since is None:
                self._unanswered_since = attempt.started_at
        return self._current

    def _run(self, attempt: _Attempt) -> None:
        reading: CachedValue[ValueT] | None = None
        try:
            reading = CachedValue(self._read(), attempt.started_at)
        except ServiceError as error:
            attempt.error = error
        except Exception as error:
            logger.exception("The %s cannot be read", self._name)
            attempt.error = error
        finally:
            with self._news:
                self._current = None
                attempt.ended_at = time.monotonic()
                if reading is None:
                    self._failed = attempt
                else:
                    self._last, self._failed, self._unanswered_since = reading, None, None
                self._news.notify_all()
