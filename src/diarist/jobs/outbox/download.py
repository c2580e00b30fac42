"""The errand of a job whose recording is to be fetched from a URL: then the job can be worked on."""

from __future__ import annotations

import fcntl
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from diarist.errors import Cancelled, InputError, JobFailed, JobNotFound, ServiceError, StorageFull
from diarist.jobs.db.outbox import OutboxStore, OutboxTask
from diarist.jobs.error_codes import to_job_error
from diarist.jobs.media.directory import MediaStore, check_disk
from diarist.jobs.model import Job, JobError, JobState
from diarist.jobs.outbox.runner import LEASE_S
from diarist.jobs.store import JobStore
from diarist.observability import logs, tracing
from diarist.outbound.download import Fetched, fetch
from diarist.outbound.networks import parse_networks
from diarist.outbound.ssrf_guard import Resolve, resolve
from diarist.settings import Settings
from diarist.types import Seconds

logger = logging.getLogger(__name__)

TEMP_PREFIX = "diarist-fetch-"
"""Of the files in TEMP_AUDIO_DIR that hold what is being fetched. Each is locked for as long as it is in use."""

STAGE = "download"
BACKOFF = 3.0
"""How many times longer each wait is than the one before."""

Note = Callable[[str, str, float], object]
"""Called as ``note(job_id, stage, done)``, ``done`` 0..1, about twice a second."""


class DownloadHandler:
    """Fetches recordings to a private file, hands them to ``media`` and makes their jobs ready.

    Args:
        settings: limits of size and time, networks that are allowed, how often it is tried.
        store: where the jobs are.
        media: where the recording is to lie.
        errands: where the errands are.
        announce: told the queue of each job that can be worked on now.
        note: told how far a download is.
        resolve: what names mean.
        tls: whose certificates are trusted; None is the system's and certifi's.

    Raises:
        ConfigurationError: ALLOWED_NETWORKS cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        media: MediaStore,
        outbox: OutboxStore,
        notify: Callable[[str], object],
        *,
        note: Note = lambda _job_id, _stage, _done: None,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._media = media
        self._outbox = outbox
        self._notify = notify
        self._note = note
        self._networks = parse_networks(settings.allowed_networks)
        self._resolve = resolve
        self._tls = tls

    def run(self, task: OutboxTask, check: Callable[[], None]) -> None:
        """Fetch the recording, unless nobody waits for it any more."""
        job = self._wanted(task)
        if job is None:
            self._clear(task)
            return
        try:
            with (
                logs.about(request=job.spec.request_id, job=job.id),
                tracing.span(STAGE, parent=job.spec.traceparent, kind="client", job_id=job.id, attempt=task.attempts),
                self._private_file() as path,
            ):
                fetched = self._fetch(job, path, check)
                self._keep(job, path, fetched, check)
            self._outbox.complete(task)
        except _Unwanted:
            self._clear(task)
        except InputError as error:
            self._refuse(task, to_job_error(error, job))
        except ServiceError as error:
            if self._wanted(task) is None:
                self._clear(task)
            else:
                self._try_later(task, to_job_error(error, job))

    def failed(self, task: OutboxTask, error: Exception, *, last: bool = False) -> None:
        """Try again later, or fail the job."""
        job = self._wanted(task)
        if job is None:
            self._clear(task)
        elif last:
            self._refuse(task, to_job_error(error, job))
        else:
            self._try_later(task, to_job_error(error, job))

    def _wanted(self, task: OutboxTask) -> Job | None:
        """The job, if it waits for its recording."""
        try:
            job = self._store.get(task.job_id)
        except JobNotFound:
            return None
        return job if job.state is JobState.QUEUED and not job.ready else None

    def _fetch(self, job: Job, path: Path, check: Callable[[], None]) -> Fetched:
        if job.spec.source_url is None:
            raise JobFailed("The job has no URL to fetch its recording from. Send the recording again.")
        settings = self._settings
        known_bytes: int | None = None

        def progress(done_bytes: int, total_bytes: int | None) -> None:
            nonlocal known_bytes
            self._check_wanted(job.id, check)
            if total_bytes is not None and known_bytes is None:
                known_bytes = total_bytes
                self._check_room(total_bytes)
            if total_bytes:
                with suppress(ServiceError):  # how far it is may go unsaid
                    self._note(job.id, STAGE, min(done_bytes / total_bytes, 1.0))

        self._check_room(0)
        return fetch(
            job.spec.source_url,
            path,
            limit_bytes=settings.upload_limit_bytes,
            timeout_s=settings.download_timeout_s,
            networks=self._networks,
            progress=progress,
            resolve=self._resolve,
            tls=self._tls,
        )

    def _keep(self, job: Job, path: Path, fetched: Fetched, check: Callable[[], None]) -> None:
        self._check_wanted(job.id, check)
        limit_bytes = self._settings.upload_limit_bytes
        if self._settings.in_s3:
            # The way there may be long; a stream can be stopped in the middle.
            with path.open("rb") as file:
                watched = _Watched(file, lambda: self._check_wanted(job.id, check))
                size_bytes = self._media.keep(job.id, cast("BinaryIO", watched), limit_bytes)
        else:
            size_bytes = self._media.keep(job.id, path, limit_bytes)
        if not self._store.attach_recording(job.id, size_bytes, fetched.filename):
            raise _Unwanted
        logger.info("Recording fetched: %d bytes", size_bytes, extra={"job_id": job.id})
        self._notify(job.spec.queue)

    def _check_wanted(self, job_id: str, check: Callable[[], None]) -> None:
        check()
        try:
            job = self._store.get(job_id)
        except JobNotFound:
            raise _Unwanted from None
        except ServiceError:
            return  # the lease says in time whether it is still ours
        if job.state is not JobState.QUEUED or job.ready:
            raise _Unwanted

    def _check_room(self, size_bytes: int) -> None:
        settings = self._settings
        self._media.check_room(size_bytes)
        check_disk(settings.temp_dir, size_bytes, settings.min_free_mb * 2**20, "TEMP_AUDIO_DIR")

    def _clear(self, task: OutboxTask) -> None:
        """Nobody waits for the recording: leave nothing of what this, or a process that was killed, has stored."""
        try:
            job = self._store.get(task.job_id)
        except JobNotFound:
            job = None
        if job is None or (job.state.ended and not job.ready):
            self._media.remove(task.job_id)
        self._outbox.complete(task)

    def _refuse(self, task: OutboxTask, error: JobError) -> None:
        if not self._outbox.renew(task, LEASE_S):
            return  # another process has it, and perhaps the recording
        logger.info("The recording cannot be fetched (%s)", error.code, extra={"job_id": task.job_id})
        self._store.reject(task.job_id, error)
        self._clear(task)

    def _try_later(self, task: OutboxTask, error: JobError) -> None:
        if task.attempts >= self._settings.job_attempts:
            words = error.message if task.attempts < 2 else f"{error.message} It was tried {task.attempts} times."
            self._refuse(task, JobError(error.code, words))
            return
        delay_s: Seconds = self._settings.job_retry_s * BACKOFF ** (task.attempts - 1)
        logger.info(
            "The recording could not be fetched (%s); tried again in %.1f s",
            error.code, delay_s, extra={"job_id": task.job_id},
        )  # fmt: skip
        self._outbox.reschedule(task, delay_s)

    @contextmanager
    def _private_file(self) -> Iterator[Path]:
        """A new file that is gone at the end, and that a sweep can tell is in use."""
        try:
            self._settings.temp_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=self._settings.temp_dir)
        except OSError as error:
            raise StorageFull(
                f"No file can be made for the recording ({error.strerror}). Whoever runs the service has to make the "
                "folder for temporary files writable (TEMP_AUDIO_DIR, else tmp in DATA_DIR), or to free its disk."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield Path(name)
        finally:
            os.close(descriptor)
            Path(name).unlink(missing_ok=True)


class _Unwanted(Cancelled):
    """The job was canceled or deleted, or has its recording."""


class _Watched:
    """A stream whose reader hears of it when the job is not wanted any more."""

    def __init__(self, file: BinaryIO, check: Callable[[], None]) -> None:
        self._file = file
        self._check = check

    def read(self, size: int = -1) -> bytes:
        self._check()
        return self._file.read(size)
