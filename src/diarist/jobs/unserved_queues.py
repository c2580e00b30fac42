"""Failing jobs that no worker will process, because none serves their queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from diarist.errors import QueueUnserved
from diarist.jobs.model import JobError, WorkerReport
from diarist.jobs.store import JobStore
from diarist.types import Seconds

logger = logging.getLogger(__name__)

WORKER_TIMEOUT_S: Seconds = 60.0
"""A worker that has not reported for this long counts as gone."""


class UnservedQueues:
    """Observes which queues no worker serves, and fails jobs that have waited in one of them for too long.

    The time is counted from when this object first finds the queue unserved, so that a long queue is not failed when
    all its workers restart, nor when this process is the first to start.

    Args:
        store: Stores the jobs and the reports of workers.
        timeout_s: How long a queue may be unserved, and a job wait in it.
        clock: The time in seconds, which never goes back.
    """

    def __init__(self, store: JobStore, timeout_s: Seconds, clock: Callable[[], Seconds] = time.monotonic) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._clock = clock
        self._unserved_since: dict[str, Seconds] = {}

    def fail_jobs(self) -> int:
        """Fail the jobs whose time is over, and return how many there were. Raises ``StoreUnavailable``."""
        reports = self._store.list_worker_reports(WORKER_TIMEOUT_S)
        now = self._clock()
        waiting = self._store.list_waiting_queues()
        unserved = [queue for queue in waiting if not any(_serves(report, queue) for report in reports)]
        self._unserved_since = {queue: self._unserved_since.get(queue, now) for queue in unserved}
        failed = 0
        for queue, since in self._unserved_since.items():
            if now - since < self._timeout_s:
                continue
            error = JobError(QueueUnserved.code, _message(queue, self._timeout_s))
            for job_id in self._store.fail_waiting(queue, self._timeout_s, error):
                logger.warning("Job failed: no worker serves the queue %s", queue, extra={"job_id": job_id})
                failed += 1
        return failed


def _serves(report: WorkerReport, queue: str) -> bool:
    """Return whether a worker serves a queue, or may serve it when its engine has been loaded."""
    if report.state == "error":
        return False
    return report.state == "loading" or not report.queues or queue in report.queues


def _message(queue: str, timeout_s: Seconds) -> str:
    return (
        f"No worker has served the queue {queue!r} for {timeout_s:g} s, so the recording was not processed. Ask the "
        "operator of the service to start such a worker, or send the recording with another `queue`, such as `any`."
    )
