"""The job service: it creates, cancels and deletes jobs, waits for them, and returns their results."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from diarist import scratch
from diarist.display_text import shown_filename
from diarist.errors import Cancelled, EngineUnavailable, JobNotFound, ServiceError, StoreUnavailable
from diarist.jobs.admission import RequestAdmission
from diarist.jobs.completion_wait import CompletionNotifier
from diarist.jobs.db import metrics_snapshot
from diarist.jobs.db.database import utc_now
from diarist.jobs.db.job_store import SqlJobStore
from diarist.jobs.db.metrics_snapshot import MetricsSnapshot
from diarist.jobs.db.outbox import FETCH, WEBHOOK, OutboxStore
from diarist.jobs.db.quotas import check_fingerprint
from diarist.jobs.db.secrets import webhook_master
from diarist.jobs.db.secure_delete import erase_deleted
from diarist.jobs.error_codes import to_exception
from diarist.jobs.fair_share import UNSHARED
from diarist.jobs.media.base import MediaStore
from diarist.jobs.media.factory import open_media
from diarist.jobs.model import ANY_QUEUE, Job, JobKind, JobSpec, JobState, Limits, PoolStatus, new_job_id
from diarist.jobs.outbox.recording_download import DownloadHandler
from diarist.jobs.outbox.runner import OutboxRunner
from diarist.jobs.outbox.webhook_delivery import WebhookHandler
from diarist.jobs.queue_positions import QueuePositions
from diarist.jobs.retention import Sweeper
from diarist.jobs.startup_recovery import recover_jobs
from diarist.jobs.store import JobStore
from diarist.jobs.unserved_queues import WORKER_TIMEOUT_S
from diarist.jobs.workers.pool import COMMAND, WorkerPool
from diarist.jobs.workers.wakeup import LocalNotifier, WorkerNotifier
from diarist.settings import Settings
from diarist.types import Transcript, Utterance

logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 2**20
"""A disk with less free space counts as full, even if MIN_FREE_MB is 0: a transaction of the job store needs some."""

CALLER_LEASE_S = 60.0
"""How long a request stays valid after its caller was last known to wait."""

EXTEND_CALLER_LEASE_EVERY_S = 5.0

LOCAL_POLL_S = 1.0
"""The longest interval between two reads of the store for a waiting caller, in case a notification was lost."""

FLEET_POLL_S = 0.25
"""The same interval if the workers run on other machines, which send no notifications."""


class JobService:
    """Everything that the HTTP service asks of jobs. Safe to call from any thread once it is started.

    Plain reads go to ``store`` and ``outbox`` directly.

    Args:
        settings: The settings of the service.
        store: The job store. It is not closed with the service.
        command: The command that starts a worker process.

    Raises:
        ConfigurationError: A setting cannot be used.
        StoreUnavailable: The job store cannot be read or written.
    """

    def __init__(self, settings: Settings, store: SqlJobStore, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self.store: JobStore = store
        self._database = store.database
        self._media: MediaStore = open_media(settings)
        self._completion = CompletionNotifier(store, FLEET_POLL_S if settings.distributed else LOCAL_POLL_S)
        self._pool = None if settings.distributed else WorkerPool(settings, store, self._on_job_ended, command)
        self._notifier: WorkerNotifier = _open_notifier(settings) if self._pool is None else LocalNotifier(self._pool)
        self.outbox = OutboxStore(self._database)
        self._outbox_runner = OutboxRunner(
            self.outbox,
            {
                FETCH: DownloadHandler(
                    settings,
                    store,
                    self._media,
                    self.outbox,
                    self._notifier.notify,
                    report_progress=store.update_progress,
                ),
                WEBHOOK: WebhookHandler(settings, store, self.outbox, webhook_master(settings, self._database)),
            },
        )
        self._sweeper = Sweeper(settings, self._database, store, self._media)
        self._admission = RequestAdmission(store, settings.max_waiting)
        self.queue_positions = QueuePositions(store)
        self._stopped = False
        self._caller_leases: dict[str, float] = {}

    def start(self) -> None:
        """Recover the jobs of an earlier run, then start the workers."""
        if self._pool is None:
            logger.info("QUEUE_URL is set, so workers run elsewhere: start them with `diarist worker` on any machine")
        else:
            recover_jobs(self._settings, self.store, self._media)
            self.outbox.release()
            self._pool.start()
        self._outbox_runner.start()
        self._sweeper.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Release all waiting callers with ``EngineUnavailable`` and end the worker processes."""
        self._stopped = True
        self._completion.close()
        self._sweeper.stop(timeout)
        self._outbox_runner.stop(timeout)
        if self._pool is not None:
            self._pool.stop(timeout)
        self._notifier.close()

    def check_capacity(
        self,
        size_bytes: int = 0,
        spec: JobSpec | None = None,
        limit: int | None = None,
        sharing_owner: str = UNSHARED,
        recording_bytes: int = 0,
    ) -> None:
        """Check that an upload of about ``size_bytes`` would be accepted, before it is read.

        Args:
            size_bytes: The declared size of the upload.
            spec: What is known of the job spec so far; None for a request.
            limit: As in ``submit``.
            sharing_owner: As in ``submit``.
            recording_bytes: The least size that the recording in the upload has.

        Raises:
            QueueFull: The maximum number of jobs has been reached.
            QuotaExceeded: The recordings of the owner would be too large.
            StorageFull: The disk has too little free space.
        """
        if spec is not None and spec.kind is JobKind.JOB:
            self.store.check_limits(spec.owner, self._limits(limit), recording_bytes)
        else:
            self._admission.check(sharing_owner)
        self._media.check_free_space(size_bytes)

    def check_storage(self) -> None:
        """Check that recordings and results can be stored. Folders that somebody removed are created again.

        Raises:
            StorageFull: A disk of this machine has less than MIN_FREE_MB free.
            MediaUnavailable: A folder cannot be created or written.
        """
        settings = self._settings
        min_free_bytes = max(settings.min_free_mb * 2**20, MIN_FREE_BYTES)
        scratch.check_temp_dir(settings.temp_dir, min_free_bytes)
        self._media.check_free_space(MIN_FREE_BYTES)
        if not settings.database_url:
            # If DATA_DIR was removed, the job store reports that.
            with suppress(FileNotFoundError):
                scratch.check_free_space(settings.data_dir, 0, min_free_bytes, "DATA_DIR")

    def submit(
        self,
        recording: BinaryIO | Path,
        spec: JobSpec,
        limit: int | None = None,
        job_id: str | None = None,
        sharing_owner: str = UNSHARED,
    ) -> Job:
        """Create a job from a recording, or return the job that the owner created with the same idempotency key.

        Nothing is stored if this fails.

        Args:
            recording: A stream, which is copied from its current position, or a file, which is moved.
            spec: What to do with the recording.
            limit: The maximum number of unfinished jobs of the owner; None for MAX_QUEUED_PER_KEY.
            job_id: The ID for a new job (see ``new_job_id``). A job with another ID was created earlier.
            sharing_owner: The owner that shares the places of requests with others, or ``UNSHARED``.

        Raises:
            QueueFull: The maximum number of jobs has been reached.
            QuotaExceeded: The recordings of the owner would be too large.
            StorageFull: The disk has too little free space, or ran full.
            UploadTooLarge: The recording is larger than MAX_UPLOAD_MB.
            IdempotencyConflict: The idempotency key was used for another request.
            StoreUnavailable: The job store cannot be written.
        """
        job_id = job_id or new_job_id()
        with self._admission.reserve(sharing_owner) if spec.kind is JobKind.REQUEST else nullcontext() as reservation:
            try:
                self._media.check_free_space(recording.stat().st_size if isinstance(recording, Path) else 0)
                size_bytes = self._media.store_recording(job_id, recording, self._settings.upload_limit_bytes)
                create = partial(self._create, job_id, spec, size_bytes, limit)
                job = create() if reservation is None else reservation.redeem(create)
            except _CreationUnconfirmed:
                raise  # The recording stays for now; if it has no job, a sweep removes it.
            except BaseException:
                self._remove_media(job_id)
                raise
        if job.id != job_id:
            self._remove_media(job_id)
            return job
        logger.info("Job queued: %d bytes", size_bytes, extra={"job_id": job_id})
        self._notifier.notify(spec.queue)
        return job

    def submit_url(self, spec: JobSpec, limit: int | None = None, job_id: str | None = None) -> Job:
        """Create a job whose recording is downloaded from ``spec.source_url``. Arguments and errors as ``submit``."""
        job = self._create(job_id or new_job_id(), spec, None, limit)
        logger.info("Job queued: its recording is to be downloaded", extra={"job_id": job.id})
        self._outbox_runner.wake()
        return job

    def find_by_idempotency_key(self, owner: str, idempotency_key: str, fingerprint: str) -> Job | None:
        """Return the job that the owner created with this key, or None.

        Raises:
            IdempotencyConflict: The key was used for another request.
        """
        job = self.store.find_by_idempotency_key(owner, idempotency_key)
        return None if job is None else check_fingerprint(job, fingerprint)

    def get(self, job_id: str, owner: str) -> Job:
        """Return the job with this ID.

        Raises:
            JobNotFound: There is no such job, it belongs to another owner, or it is a request.
        """
        job = self.store.get(job_id)
        if job.spec.owner != owner or job.spec.kind is not JobKind.JOB:
            raise JobNotFound(f"There is no job {job_id!r}: it never existed, or it was deleted.")
        return job

    def final_utterances(self, job_id: str) -> tuple[Utterance, ...]:
        """Return the utterances of a job that are final so far."""
        utterances: list[Utterance] = []
        after = 0
        while page := self.store.list_events(job_id, after):
            utterances += [event.utterance for event in page if event.utterance is not None]
            after = page[-1].number
        return tuple(utterances)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until the job has ended, for at most ``timeout`` seconds, and return it.

        Raises:
            JobNotFound: There is no such job, or it was deleted meanwhile.
            EngineUnavailable: The service is stopping, or the engine cannot be loaded and the job has not started.
        """
        job = self._completion.wait(job_id, timeout, self._check_engine)
        if self._stopped and not job.state.ended:
            raise EngineUnavailable("The service is stopping. Send the recording again in a moment.")
        self._extend_caller_lease(job)
        return job

    def result(self, job_id: str) -> Transcript:
        """Return the transcript of a job that succeeded.

        Raises:
            JobNotFound: There is no such job.
            Cancelled: The job was canceled.
            ServiceError: The job has not ended.
            DiaristError: The job failed; this is the error that it failed with.
        """
        job = self.store.get(job_id)
        if job.error is not None:
            raise to_exception(job.error)
        if job.state is JobState.CANCELED:
            raise Cancelled("The job was canceled.")
        if job.state is not JobState.SUCCEEDED:
            raise ServiceError("The job has not ended yet. Wait for it first.")
        return self.store.get_transcript(job_id)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended. Its worker stops within two seconds. Raises ``JobNotFound``."""
        job = self.store.cancel(job_id)
        self._notifier.notify(job.spec.queue)
        self._completion.notify()
        self._outbox_runner.wake()
        return job

    def delete(self, job_id: str) -> None:
        """Delete a job in any state, with its recording and its transcript. It is no error if there is none.

        If the job store cannot be written, nothing of a job is deleted. The recording of a request is deleted all the
        same, because nobody can ask for it any more.
        """
        is_job = self._is_job(job_id)
        try:
            self.store.delete(job_id)
        except ServiceError:
            # The job may have been deleted all the same, if the connection was lost after the commit.
            if self._exists(job_id):
                if not is_job:
                    self._remove_media(job_id)
                raise
        self._outbox_runner.cancel(job_id)
        self._remove_media(job_id)
        self._caller_leases.pop(job_id, None)
        if is_job:
            # The next sweep overwrites the text of a request; whoever deletes a job wants it gone now.
            erase_deleted(self._database)
        self._notifier.notify(ANY_QUEUE)
        self._completion.notify()

    def pool_status(self) -> PoolStatus:
        """Return what the workers last reported: ``loading`` before the first report, ``error`` without the store."""
        try:
            return PoolStatus.from_reports(self.store.list_worker_reports(WORKER_TIMEOUT_S))
        except ServiceError as error:
            return PoolStatus("error", (), (error.public_message,))

    def metrics_snapshot(self) -> MetricsSnapshot:
        """Read the values of the metrics that the job store holds. Raises ``StoreUnavailable``."""
        return metrics_snapshot.read(self._database, WORKER_TIMEOUT_S)

    def _create(self, job_id: str, spec: JobSpec, size_bytes: int | None, limit: int | None) -> Job:
        job = Job(
            id=job_id, state=JobState.QUEUED, spec=replace(spec, filename=shown_filename(spec.filename)),
            created_at=utc_now(), size_bytes=size_bytes or 0, ready=size_bytes is not None,
            recording=size_bytes is not None, stage="queued" if size_bytes is not None else "download",
        )  # fmt: skip
        try:
            if spec.kind is JobKind.JOB:
                return self.store.create(job, self._limits(limit))
            return self.store.create(job, caller_lease_s=CALLER_LEASE_S)
        except StoreUnavailable as error:
            # The job may have been stored all the same, if the connection was lost after the commit.
            try:
                return self.store.get(job_id)
            except JobNotFound:
                raise error from None
            except ServiceError:
                raise _CreationUnconfirmed(str(error)) from error

    def _limits(self, limit: int | None) -> Limits:
        settings = self._settings
        return Limits(settings.max_queued, limit or settings.max_queued_per_key, settings.stored_limit_bytes)

    def _extend_caller_lease(self, job: Job) -> None:
        if job.caller_lease_until is None or job.state.ended:
            return
        # This uses the clock of this machine: the clock of the store may differ.
        now = time.monotonic()
        if now - self._caller_leases.get(job.id, float("-inf")) >= EXTEND_CALLER_LEASE_EVERY_S:
            self.store.extend_caller_lease(job.id, CALLER_LEASE_S)
            self._caller_leases[job.id] = now

    def _check_engine(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            status = self.pool_status()
            if status.state == "error":
                raise EngineUnavailable(" ".join(("The engine is not available.", *status.errors)))

    def _is_job(self, job_id: str) -> bool:
        try:
            return self.store.get(job_id).spec.kind is JobKind.JOB
        except JobNotFound:
            return False

    def _exists(self, job_id: str) -> bool:
        """Return whether the store has this job, or cannot be asked."""
        try:
            self.store.get(job_id)
        except JobNotFound:
            return False
        except ServiceError:
            return True
        return True

    def _on_job_ended(self) -> None:
        self._completion.notify()
        self._outbox_runner.wake()

    def _remove_media(self, job_id: str) -> None:
        try:
            self._media.remove(job_id)
        except ServiceError as error:
            logger.warning(
                "The recording of a job cannot be removed (%s); the sweep will try again", error,
                extra={"job_id": job_id},
            )  # fmt: skip


class _CreationUnconfirmed(StoreUnavailable):
    """The job store failed in a way that leaves open whether the job was created."""


def _open_notifier(settings: Settings) -> WorkerNotifier:
    from diarist.jobs.workers.celery_wakeup import CeleryNotifier

    return CeleryNotifier(settings.queue_url)
