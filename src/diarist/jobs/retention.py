"""Removes what has had its time: recordings, jobs, temporary files, and what processes left that were killed.

Several processes may sweep at once: each thing is gone after the first. Whatever is removed is removed in such an order
that a sweep which is killed in the middle leaves something that the next one finds.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path

from diarist.errors import ServiceError
from diarist.jobs.db.database import Database, utc_now
from diarist.jobs.db.secure_delete import erase_deleted
from diarist.jobs.media.directory import MediaStore
from diarist.jobs.outbox import download
from diarist.jobs.store import JobStore
from diarist.jobs.workers import scatter
from diarist.settings import Settings

logger = logging.getLogger(__name__)

TEMP_PREFIXES = ("diarist-upload-", download.TEMP_PREFIX, scatter.TEMP_PREFIX)
"""Of our files in a TEMP_AUDIO_DIR that somebody chose and that may hold other people's files."""

SEARCHES = 4
"""How often in RETAIN_TEMP_S what was left among the recordings is looked for: that takes a list of all of them."""


@dataclass(frozen=True, slots=True)
class Swept:
    """How much a sweep has removed."""

    recordings: int = 0
    """Of jobs that stay."""

    jobs: int = 0
    """Whose time was over, with all that was theirs."""

    requests: int = 0
    """Whose callers went with the process that spoke to them."""

    strays: int = 0
    """Recordings without a job."""

    files: int = 0
    """Temporary and half-written ones, and what was made of the recordings of jobs for others to work on."""

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))


class Sweeper:
    """Looks for what is to be removed, again and again, in a thread of its own.

    Args:
        settings: how long things are kept, and where temporary files are.
        database: of the job store.
        store: the jobs.
        media: the recordings.
    """

    def __init__(self, settings: Settings, database: Database, store: JobStore, media: MediaStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._media = media
        self._retain_temp = timedelta(seconds=settings.retain_temp_s)
        self._strays: dict[str, datetime] = {}
        self._searched_at: datetime | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Sweep at once, then every SWEEP_EVERY_S."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def sweep_once(self, now: datetime | None = None) -> Swept:
        """Remove what has had its time by ``now``, aware (None: by the clocks of the job store and of this machine).

        What cannot be removed is logged and left for the next sweep.
        """
        today = now or utc_now()
        thorough = self._searched_at is None or today - self._searched_at >= self._retain_temp / SEARCHES
        if thorough:
            self._searched_at = today
        swept = Swept(
            recordings=self._careful("recordings", lambda: self._sweep_recordings(now)),
            jobs=self._careful("jobs", lambda: self._sweep_jobs(now)),
            requests=self._careful("requests without a caller", self._sweep_requests),
            strays=self._careful("recordings without a job", lambda: self._sweep_strays(today) if thorough else 0),
            files=self._careful("temporary files", lambda: self._sweep_temp(today - self._retain_temp))
            + self._careful("parts of jobs that have ended", lambda: self._sweep_parts() if thorough else 0)
            + self._careful(
                "half-written recordings", lambda: self._media.clean(today - self._retain_temp) if thorough else 0
            ),
        )
        if swept:
            logger.info(
                "Removed %d recordings, %d jobs, %d requests without a caller, %d recordings without a job, %d "
                "temporary files",
                swept.recordings, swept.jobs, swept.requests, swept.strays, swept.files,
            )  # fmt: skip
        # In every sweep, and not only after it has removed something: jobs are deleted by their owners, too.
        self._careful("deleted text", lambda: int(erase_deleted(self._database)))
        return swept

    def _run(self) -> None:
        while True:
            try:
                self.sweep_once()
            except Exception:
                # Nobody else removes anything.
                logger.exception("A sweep failed in a way that nobody thought of; the next one is soon")
            if self._stopping.wait(self._settings.sweep_every_s):
                return

    def _sweep_recordings(self, now: datetime | None) -> int:
        before = self._now(now) - timedelta(seconds=self._settings.retain_recording_s)

        def remove(job_id: str) -> None:
            self._media.remove(job_id)
            self._store.mark_recording_removed(job_id)

        return self._each(self._store.list_ended_before(before, with_recording=True), remove)

    def _sweep_jobs(self, now: datetime | None) -> int:
        before = self._now(now) - timedelta(seconds=self._settings.retain_result_s)

        def remove(job_id: str) -> None:
            self._media.remove(job_id)
            self._store.delete(job_id)

        return self._each(self._store.list_ended_before(before), remove)

    def _sweep_requests(self) -> int:
        def remove(job_id: str) -> None:
            # The job first: a worker may be at it, and stops when it is gone. What is left then is a stray.
            self._store.delete(job_id)
            self._media.remove(job_id)

        return self._each(self._store.list_abandoned_requests(), remove)

    def _sweep_strays(self, now: datetime) -> int:
        """Recordings whose jobs are gone, once they were seen so for RETAIN_TEMP_S: until then they may be arriving."""
        found = self._media.job_ids()  # before the jobs: one that comes in between is known
        strays = found - self._store.filter_existing(found)
        self._strays = {job_id: self._strays.get(job_id, now) for job_id in strays}
        old = tuple(job_id for job_id, since in self._strays.items() if now - since >= self._retain_temp)
        return self._each(old, self._media.remove)

    def _sweep_parts(self) -> int:
        """What was made for others of the recordings of jobs that have ended without the worker that removes it."""
        found = self._media.job_ids(with_parts=True)
        return self._each(self._store.filter_existing(found, ended=True), self._media.remove_parts)

    def _sweep_temp(self, before: datetime) -> int:
        settings = self._settings
        left = 0
        for path in _files_in(settings.temp_dir):
            # The default folder is ours alone.
            ours = settings.temp_audio_dir is None or path.name.startswith(TEMP_PREFIXES)
            if ours and _remove_unused(path, before):
                left += 1
        return left

    def _now(self, now: datetime | None) -> datetime:
        if now is not None:
            return now
        with self._database.reading() as connection:
            return self._database.now(connection)

    def _each(self, job_ids: Iterable[str], remove: Callable[[str], None]) -> int:
        """How many were removed; one that cannot be does not keep the others."""
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
                "What is left of %d jobs cannot be removed, the next sweep tries again: %s", len(failures), why,
                extra={"job_id": first},
            )  # fmt: skip
        return removed

    def _careful(self, what: str, sweep: Callable[[], int]) -> int:
        try:
            return sweep()
        except (ServiceError, OSError) as error:
            logger.warning("The sweep of %s failed, the next one tries again: %s", what, error)
            return 0


def _files_in(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    except FileNotFoundError:
        return ()


def _remove_unused(path: Path, before: datetime) -> bool:
    """Remove a file that was last written ``before``, unless a process holds a lock on it."""
    with suppress(FileNotFoundError, BlockingIOError, PermissionError):
        if path.stat().st_mtime < before.timestamp():
            with path.open("r+b") as file:  # NFS locks nothing for one that only reads
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                return True
    return False
