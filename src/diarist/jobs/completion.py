"""Threads that wait for a job to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from diarist.jobs.model import Job
from diarist.jobs.store import JobStore


class CompletionNotifier:
    """Lets threads wait for the end of a job; whoever learns of an end calls ``notify``.

    Args:
        store: where the job is looked at.
        poll_s: longest time between two looks, in case that a notice went astray or nobody sends any.
    """

    def __init__(self, store: JobStore, poll_s: float) -> None:
        self._store = store
        self._poll_s = poll_s
        self._changed = threading.Condition()
        self._notices = 0
        self._closed = False

    def notify(self) -> None:
        """Some job has ended, or was deleted: let every thread look at its own."""
        with self._changed:
            self._notices += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let every thread go, now and from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, job_id: str, timeout: float | None, check: Callable[[Job], None] = lambda _: None) -> Job:
        """The job once it has ended, or as it is after ``timeout`` seconds (None: no limit) or once closed.

        ``check`` sees the unfinished job at every look and may raise.

        Raises:
            JobNotFound: it is not there, or was deleted meanwhile.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                seen = self._notices
            job = self._store.get(job_id)
            left = None if until is None else until - time.monotonic()
            if job.state.ended or self._closed or (left is not None and left <= 0):
                return job
            check(job)
            with self._changed:
                self._changed.wait_for(
                    lambda seen=seen: self._closed or self._notices != seen,  # type: ignore[misc]
                    timeout=self._poll_s if left is None else min(self._poll_s, left),
                )
