"""The positions of the jobs in the queue, read for all callers at once."""

from __future__ import annotations

import time

from diarist.background_refresh import RefreshingValue
from diarist.jobs.admission import STORE_TIMEOUT_S, store_timed_out
from diarist.jobs.store import JobStore

MAX_AGE_S = 0.5
"""The positions of all jobs are read at most this often, so that polling costs next to nothing."""


class QueuePositions:
    """Caches the queue positions. Safe to call from any thread."""

    def __init__(self, store: JobStore) -> None:
        self._positions = RefreshingValue("positions", store.queue_positions)

    def get(self, job_id: str) -> int | None:
        """Return the position of a job that was queued a moment ago: 1 for the next job, None if it no longer waits.

        Raises:
            StoreUnavailable: The job store cannot be read.
        """
        now = time.monotonic()
        reading = self._positions.get(MAX_AGE_S, STORE_TIMEOUT_S)
        if reading is not None and job_id not in reading.value and reading.started_at < now:
            reading = self._positions.get(0.0, STORE_TIMEOUT_S)
        if reading is None:
            raise store_timed_out()
        return reading.value.get(job_id)
