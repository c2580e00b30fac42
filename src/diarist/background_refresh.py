"""A value that a background thread reads from a store, so that a store that hangs does not block its callers."""

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
    """A value and when it was read."""

    value: ValueT
    started_at: Seconds
    """When reading the value began, by ``time.monotonic``. Later changes may be missing from it."""

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

    A thread of its own reads the value, at most one at a time, and ends after that. A store that does not answer
    therefore blocks callers for no longer than they are willing to wait.

    Args:
        name: What the value is; the threads that read it have this name.
        read: Reads the value. Its exceptions are raised to all callers that wait for this attempt.
        retry_s: For how long an exception is also raised to later callers, before ``read`` is called again.
    """

    def __init__(self, name: str, read: Callable[[], ValueT], retry_s: Seconds = 0.0) -> None:
        self._name = name
        self._read = read
        self._retry_s = retry_s
        self._changed = threading.Condition()
        self._current: _Attempt | None = None
        self._failed: _Attempt | None = None
        self._last: CachedValue[ValueT] | None = None
        self._failing_since: Seconds | None = None

    @property
    def last(self) -> CachedValue[ValueT] | None:
        """The value as it was last read successfully, or None."""
        return self._last

    @property
    def failing_s(self) -> Seconds:
        """For how long no attempt to read the value has succeeded; 0 if the last one did."""
        with self._changed:
            return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def get(self, max_age_s: Seconds, timeout_s: Seconds) -> CachedValue[ValueT] | None:
        """Return the value if it was read at most ``max_age_s`` seconds ago; otherwise wait for it to be read.

        A caller that arrives when an attempt has already taken longer than ``timeout_s`` does not wait at all.

        Returns:
            None if the value is not read within ``timeout_s`` seconds.

        Raises:
            Exception: Whatever reading the value raised.
        """
        with self._changed:
            now = time.monotonic()
            min_started_at, deadline = now - max_age_s, now + timeout_s
            while self._last is None or self._last.started_at < min_started_at:
                attempt = self._recent_failure() or self._start_attempt()
                left_s = min(deadline, attempt.started_at + timeout_s) - time.monotonic()
                if not self._changed.wait_for(lambda attempt=attempt: attempt.ended_at is not None, left_s):  # type: ignore[misc]
                    return None
                if attempt.error is not None:
                    raise attempt.error
            return self._last

    def refresh(self) -> None:
        """Start reading the value, unless that is in progress. Does not wait for it."""
        with self._changed:
            self._start_attempt()

    def _recent_failure(self) -> _Attempt | None:
        failed = self._failed
        if failed is None or failed.ended_at is None or time.monotonic() - failed.ended_at >= self._retry_s:
            return None
        return failed

    def _start_attempt(self) -> _Attempt:
        if self._current is None:
            attempt = _Attempt(time.monotonic())
            threading.Thread(target=self._run, args=(attempt,), name=self._name, daemon=True).start()
            self._current = attempt
            if self._failing_since is None:
                self._failing_since = attempt.started_at
        return self._current

    def _run(self, attempt: _Attempt) -> None:
        result: CachedValue[ValueT] | None = None
        try:
            result = CachedValue(self._read(), attempt.started_at)
        except ServiceError as error:
            attempt.error = error
        except Exception as error:
            logger.exception("Reading the %s failed", self._name)
            attempt.error = error
        finally:
            with self._changed:
                self._current = None
                attempt.ended_at = time.monotonic()
                if result is None:
                    self._failed = attempt
                else:
                    self._last, self._failed, self._failing_since = result, None, None
                self._changed.notify_all()
