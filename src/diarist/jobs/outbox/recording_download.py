"""Download the recording of a job from its URL; the job is ready for a worker afterwards."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from diarist import scratch
from diarist.errors import Cancelled, InputError, JobFailed, JobNotFound, QuotaExceeded, ServiceError, StorageFull
from diarist.jobs.db.outbox import OutboxStore, OutboxTask
from diarist.jobs.error_codes import to_job_error
from diarist.jobs.media.base import MediaStore
from diarist.jobs.model import Job, JobError, JobState
from diarist.jobs.outbox.runner import LEASE_S
from diarist.jobs.store import JobStore
from diarist.observability import logs, tracing
from diarist.outbound.download import FetchedFile, fetch
from diarist.outbound.networks import parse_networks
from diarist.outbound.ssrf_guard import Resolve, resolve
from diarist.settings import Settings
from diarist.types import Seconds

logger = logging.getLogger(__name__)

STAGE = "download"
BACKOFF = 3.0
"""The factor by which each delay is longer than the previous one."""

ReportProgress = Callable[[str, str, float], object]
"""Called as ``report(job_id, stage, done)``, with ``done`` from 0 to 1, about twice a second."""


class DownloadHandler:
    """Downloads recordings to a private file, stores them in ``media``, and makes their jobs ready.

    Args:
        settings: the limits of size and time, the networks that are allowed, and the number of attempts.
        store: stores the jobs.
        media: stores the recordings.
        outbox: stores the tasks.
        notify: called with the queue of each job that has become ready.
        report_progress: called with the progress of a download.
        resolve: resolves host names.
        tls: the certificates to trust; None means those of the system and of certifi.

    Raises:
        ConfigurationError: ALLOWED_NETWORKS is not valid.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        media: MediaStore,
        outbox: OutboxStore,
        notify: Callable[[str], object],
        *,
        report_progress: ReportProgress = lambda _job_id, _stage, _done: None,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._media = media
        self._outbox = outbox
        self._notify = notify
        self._report_progress = report_progress
        self._networks = parse_networks(settings.allowed_networks)
        self._resolve = resolve
        self._tls = tls

    def run(self, task: OutboxTask, check: Callable[[], None]) -> None:
        """Download the recording, unless the job no longer waits for it."""
        job = self._waiting_job(task)
        if job is None:
            self._discard(task)
            return
        try:
            with (
                logs.log_context(request=job.spec.request_id, job=job.id),
                tracing.span(STAGE, parent=job.spec.traceparent, kind="client", job_id=job.id, attempt=task.attempts),
                self._private_file() as path,
            ):
                fetched = self._fetch(job, path, check)
                self._store_recording(job, path, fetched, check)
            self._outbox.complete(task)
        except _NotWaitingError:
            self._discard(task)
        except (InputError, QuotaExceeded) as error:
            self._fail_job(task, to_job_error(error, job))
        except ServiceError as error:
            if self._waiting_job(task) is None:
                self._discard(task)
            else:
                self._retry_later(task, to_job_error(error, job))

    def failed(self, task: OutboxTask, error: Exception, *, last: bool = False) -> None:
        """Retry the task later, or fail the job."""
        job = self._waiting_job(task)
        if job is None:
            self._discard(task)
        elif last:
            self._fail_job(task, to_job_error(error, job))
        else:
            self._retry_later(task, to_job_error(error, job))

    def _waiting_job(self, task: OutboxTask) -> Job | None:
        """Return the job if it waits for its recording."""
        try:
            job = self._store.get(task.job_id)
        except JobNotFound:
            return None
        return job if job.state is JobState.QUEUED and not job.ready else None

    def _fetch(self, job: Job, path: Path, check: Callable[[], None]) -> FetchedFile:
        if job.spec.source_url is None:
            raise JobFailed("The job has no URL to download its recording from. Send the recording again.")
        settings = self._settings
        announced_bytes: int | None = None

        def progress(done_bytes: int, total_bytes: int | None) -> None:
            nonlocal announced_bytes
            self._check_waiting(job.id, check)
            if total_bytes is not None and announced_bytes is None:
                announced_bytes = total_bytes
                self._check_free_space(total_bytes)
            if total_bytes:
                with suppress(ServiceError):  # progress is optional
                    self._report_progress(job.id, STAGE, min(done_bytes / total_bytes, 1.0))

        self._check_free_space(0)
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

    def _store_recording(self, job: Job, path: Path, fetched: FetchedFile, check: Callable[[], None]) -> None:
        self._check_waiting(job.id, check)
        limit_bytes = self._settings.upload_limit_bytes
        if self._settings.in_s3:
            # The transfer to S3 may take long; a stream can be stopped in the middle.
            with path.open("rb") as file:
                checked = _CheckedStream(file, lambda: self._check_waiting(job.id, check))
                size_bytes = self._media.store_recording(job.id, cast("BinaryIO", checked), limit_bytes)
        else:
            size_bytes = self._media.store_recording(job.id, path, limit_bytes)
        stored_limit_bytes = self._settings.stored_limit_bytes
        if not self._store.attach_recording(job.id, size_bytes, fetched.filename, stored_limit_bytes):
            raise _NotWaitingError
        logger.info("Recording downloaded: %d bytes", size_bytes, extra={"job_id": job.id})
        self._notify(job.spec.queue)

    def _check_waiting(self, job_id: str, check: Callable[[], None]) -> None:
        check()
        try:
            job = self._store.get(job_id)
        except JobNotFound:
            raise _NotWaitingError from None
        except ServiceError:
            return  # the lease expires if the job store stays unavailable
        if job.state is not JobState.QUEUED or job.ready:
            raise _NotWaitingError

    def _check_free_space(self, size_bytes: int) -> None:
        settings = self._settings
        self._media.check_free_space(size_bytes)
        scratch.check_free_space(settings.temp_dir, size_bytes, settings.min_free_mb * 2**20, "TEMP_AUDIO_DIR")

    def _discard(self, task: OutboxTask) -> None:
        """Remove what this process, or one that was killed, stored of a recording that no job waits for."""
        try:
            job = self._store.get(task.job_id)
        except JobNotFound:
            job = None
        if job is None or (job.state.ended and not job.ready):
            self._media.remove(task.job_id)
        self._outbox.complete(task)

    def _fail_job(self, task: OutboxTask, error: JobError) -> None:
        if not self._outbox.renew(task, LEASE_S):
            return  # another process has the task, and perhaps the recording
        logger.info("The recording cannot be downloaded (%s)", error.code, extra={"job_id": task.job_id})
        self._store.reject(task.job_id, error)
        self._discard(task)

    def _retry_later(self, task: OutboxTask, error: JobError) -> None:
        if task.attempts >= self._settings.job_attempts:
            message = error.message if task.attempts < 2 else f"{error.message} There were {task.attempts} attempts."
            self._fail_job(task, JobError(error.code, message))
            return
        delay_s: Seconds = self._settings.job_retry_s * BACKOFF ** (task.attempts - 1)
        logger.info(
            "The recording could not be downloaded (%s); the next attempt is in %.1f s",
            error.code, delay_s, extra={"job_id": task.job_id},
        )  # fmt: skip
        self._outbox.reschedule(task, delay_s)

    @contextmanager
    def _private_file(self) -> Iterator[Path]:
        """Create a locked temporary file, which is removed at the end."""
        with ExitStack() as stack:
            try:
                path = stack.enter_context(scratch.locked_file(self._settings.temp_dir, scratch.DOWNLOAD_PREFIX))
            except OSError as error:
                raise StorageFull(
                    f"No temporary file can be created for the recording ({error.strerror}). The operator of the "
                    "service has to make the folder for temporary files writable (TEMP_AUDIO_DIR, or tmp in DATA_DIR), "
                    "or free space on its disk."
                ) from error
            yield path


class _NotWaitingError(Cancelled):
    """The job was canceled or deleted, or has its recording already."""


class _CheckedStream:
    """A stream that calls ``check`` before each read."""

    def __init__(self, file: BinaryIO, check: Callable[[], None]) -> None:
        self._file = file
        self._check = check

    def read(self, size: int = -1) -> bytes:
        self._check()
        return self._file.read(size)
