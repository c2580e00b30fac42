"""Remove recordings, jobs and temporary files at the end of their retention, and what killed processes left.

Jobs that no worker will process are failed too.

Several processes may sweep at the same time. Everything is removed in such an order that the next sweep finds what a
sweep that was killed left.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from diarist import scratch
from diarist.errors import ServiceError
from diarist.jobs.db.database import Database, utc_now
from diarist.jobs.db.secure_delete import erase_deleted
from diarist.jobs.media.base import MediaStore
from diarist.jobs.store import JobStore
from diarist.jobs.unserved_queues import UnservedQueues
from diarist.settings import Settings

logger = logging.getLogger(__name__)

FULL_SWEEPS = 4
"""The number of full sweeps per RETAIN_TEMP_S; a full sweep lists all recordings."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """The number of items that a sweep removed."""

    recordings: int = 0
    """Recordings of jobs that are still stored."""

    jobs: int = 0
    """Jobs at the end of their retention, with all their data."""

    requests: int = 0
    """Requests whose caller is gone, because the process that served it died."""

    orphans: int = 0
    """Recordings without a job."""

    unserved: int = 0
    """Jobs that failed because no worker serves their queues."""

    files: int = 0
    """Temporary and incomplete files, and parts of recordings of jobs that have ended."""

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))


class Sweeper:
    """Sweeps regularly in its own thread.

    Args:
        settings: the retention times and the folder of temporary files.
        database: the database of the job store.
        store: stores the jobs.
        media: stores the recordings.
    """

    def __init__(self, settings: Settings, database: Database, store: JobStore, media: MediaStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._media = media
        self._retain_temp = timedelta(seconds=settings.retain_temp_s)
        self._unserved_queues = UnservedQueues(store, settings.unserved_queue_s)
        self._orphans: dict[str, datetime] = {}
        self._full_sweep_at: datetime | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Sweep now, and then every SWEEP_EVERY_S."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def sweep_once(self, now: datetime | None = None) -> SweepResult:
        """Remove what has reached the end of its retention.

        ``now`` is a time with a time zone; None means the clocks of the job store and of this machine. What cannot be
        removed is logged, and left for the next sweep.
        """
        current_time = now or utc_now()
        full = self._full_sweep_at is None or current_time - self._full_sweep_at >= self._retain_temp / FULL_SWEEPS
        if full:
            self._full_sweep_at = current_time
        result = SweepResult(
            recordings=self._try_sweep("recordings", lambda: self._sweep_recordings(now)),
            jobs=self._try_sweep("jobs", lambda: self._sweep_jobs(now)),
            requests=self._try_sweep("requests without a caller", self._sweep_requests),
            orphans=self._try_sweep(
                "recordings without a job", lambda: self._sweep_orphans(current_time) if full else 0
            ),
            unserved=self._try_sweep("jobs that no worker processes", self._unserved_queues.fail_jobs),
            files=self._try_sweep("temporary files", lambda: self._sweep_temp(current_time - self._retain_temp))
            + self._try_sweep("parts of jobs that have ended", lambda: self._sweep_parts() if full else 0)
            + self._try_sweep(
                "incomplete recordings",
                lambda: self._media.remove_incomplete(current_time - self._retain_temp) if full else 0,
            ),
        )
        if result:
            logger.info(
                "Removed %d recordings, %d jobs, %d requests without a caller, %d recordings without a job, %d "
                "temporary files; %d jobs failed because no worker serves their queues",
                result.recordings, result.jobs, result.requests, result.orphans, result.files, result.unserved,
            )  # fmt: skip
        # This is part of every sweep, even of one that removed nothing, because owners delete jobs too.
        self._try_sweep("deleted text", lambda: int(erase_deleted(self._database)))
        return result

    def _run(self) -> None:
        while True:
            try:
                self.sweep_once()
            except Exception:
                # The thread has to survive, because nothing else removes these items.
                logger.exception("A sweep failed unexpectedly; the next one follows")
            if self._stopping.wait(self._settings.sweep_every_s):
                return

    def _sweep_recordings(self, now: datetime | None) -> int:
        before = self._now(now) - timedelta(seconds=self._settings.retain_recording_s)

        def remove(job_id: str) -> None:
            self._media.remove(job_id)
            self._store.mark_recording_removed(job_id)

        return self._remove_each(self._store.list_ended_before(before, with_recording=True), remove)

    def _sweep_jobs(self, now: datetime | None) -> int:
        before = self._now(now) - timedelta(seconds=self._settings.retain_result_s)

        def remove(job_id: str) -> None:
            self._media.remove(job_id)
            self._store.delete(job_id)

        return self._remove_each(self._store.list_ended_before(before), remove)

    def _sweep_requests(self) -> int:
        def remove(job_id: str) -> None:
            # The job is deleted first, so that a worker that processes it stops. What is left is an orphan.
            self._store.delete(job_id)
            self._media.remove(job_id)

        return self._remove_each(self._store.list_abandoned_requests(), remove)

    def _sweep_orphans(self, now: datetime) -> int:
        """Remove recordings that have had no job for RETAIN_TEMP_S; until then their job may still be created."""
        found = self._media.job_ids()  # read before the jobs, so that a new recording is not taken for an orphan
        orphans = found - self._store.filter_existing(found)
        self._orphans = {job_id: self._orphans.get(job_id, now) for job_id in orphans}
        old = tuple(job_id for job_id, since in self._orphans.items() if now - since >= self._retain_temp)
        return self._remove_each(old, self._media.remove)

    def _sweep_parts(self) -> int:
        """Remove the parts of jobs that ended without the worker that would have removed them."""
        found = self._media.job_ids(with_parts=True)
        return self._remove_each(self._store.filter_existing(found, ended=True), self._media.remove_parts)

    def _sweep_temp(self, before: datetime) -> int:
        settings = self._settings
        # Only the service uses the default folder.
        prefixes = None if settings.temp_audio_dir is None else scratch.SWEPT_PREFIXES
        return scratch.sweep(settings.temp_dir, before, prefixes)

    def _now(self, now: datetime | None) -> datetime:
        if now is not None:
            return now
        with self._database.reading() as connection:
            return self._database.now(connection)

    def _remove_each(self, job_ids: Iterable[str], remove: Callable[[str], None]) -> int:
        """Call ``remove`` for each job, log failures, and return the number of successes."""
        removed = 0
        failures: list[tuple[str, Exception]] = []
        for job_id in job_ids:
            if self._stopping.is_set():
                break
            try:
                remove(job_id)
                removed += 1
            except (ServiceError, OSError) as error:
                failures.append((job_id, error))
        if failures:
            first, why = failures[0]
            logger.warning(
                "The data of %d jobs cannot be removed; the next sweep tries again: %s", len(failures), why,
                extra={"job_id": first},
            )  # fmt: skip
        return removed

    def _try_sweep(self, what: str, sweep: Callable[[], int]) -> int:
        try:
            return sweep()
        except (ServiceError, OSError) as error:
            logger.warning("The sweep of %s failed; the next one tries again: %s", what, error)
            return 0
