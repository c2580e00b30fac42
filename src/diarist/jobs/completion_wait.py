"""Waiting for jobs to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from diarist.jobs.model import Job
from diarist.jobs.store import JobStore


class CompletionNotifier:
    """Lets threads wait for the end of a job. Whoever ends a job, or learns that one has ended, calls ``notify``.

    Args:
        store: Where the jobs are read from.
        poll_s: The maximum time between two reads, since notifications can get lost or never be sent.
    """

    def __init__(self, store: JobStore, poll_s: float) -> None:
        self._store = store
        self._poll_s = poll_s
        self._changed = threading.Condition()
        self._notifications = 0
        self._closed = False

    def notify(self) -> None:
        """Make all waiting threads read their jobs again, because some job has ended or was deleted."""
        with self._changed:
            self._notifications += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Release all waiting threads; later calls of ``wait`` do not block."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, job_id: str, timeout: float | None, check: Callable[[Job], None] = lambda _: None) -> Job:
        """Wait until a job has ended, ``timeout`` seconds have passed, or the notifier is closed. Return the job.

        Args:
            job_id: The job.
            timeout: The maximum time to wait; None means no limit.
            check: Called with the unfinished job after every read. Its exceptions end the wait.

        Raises:
            JobNotFound: The job does not exist, or is deleted during the wait.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                seen = self._notifications
            job = self._store.get(job_id)
            left_s = None if deadline is None else deadline - time.monotonic()
            if job.state.ended or self._closed or (left_s is not None and left_s <= 0):
                return job
            check(job)
            with self._changed:
                self._changed.wait_for(
                    lambda seen=seen: self._closed or self._notifications != seen,  # type: ignore[misc]
                    timeout=self._poll_s if left_s is None else min(self._poll_s, left_s),
                )
