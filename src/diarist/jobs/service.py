"""What the HTTP service asks of jobs: take a recording, say how it is, give the result, forget it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from diarist.background_refresh import RefreshingValue
from diarist.errors import Cancelled, EngineUnavailable, JobNotFound, QueueFull, ServiceError, StoreUnavailable
from diarist.jobs.completion import CompletionNotifier
from diarist.jobs.db import metrics_snapshot
from diarist.jobs.db.database import utc_now
from diarist.jobs.db.job_store import SqlJobStore, open_store
from diarist.jobs.db.metrics_snapshot import MetricsSnapshot
from diarist.jobs.db.outbox import FETCH, WEBHOOK, Delivery, OutboxStore
from diarist.jobs.db.quotas import check_fingerprint
from diarist.jobs.db.secrets import webhook_master
from diarist.jobs.db.secure_delete import erase_deleted
from diarist.jobs.error_codes import to_exception
from diarist.jobs.media.directory import MediaStore, open_media
from diarist.jobs.model import (
    ANY_QUEUE,
    Job,
    JobEvent,
    JobFilter,
    JobKind,
    JobPage,
    JobSpec,
    JobState,
    Limits,
    PoolStatus,
    new_job_id,
)
from diarist.jobs.outbox.download import DownloadHandler
from diarist.jobs.outbox.runner import OutboxRunner
from diarist.jobs.outbox.webhook import WebhookHandler
from diarist.jobs.retention import Sweeper
from diarist.jobs.startup_recovery import recover_jobs
from diarist.jobs.store import JobStore
from diarist.jobs.workers.notifier import LocalNotifier, WorkerNotifier
from diarist.jobs.workers.pool import COMMAND, WorkerPool
from diarist.settings import Settings
from diarist.types import Seconds, Transcript, Utterance

logger = logging.getLogger(__name__)

MAX_FILENAME_CHARS = 255

CALLER_LEASE_S = 60.0
"""How long a request counts as attended after its caller was last seen to wait."""

EXTEND_CALLER_LEASE_EVERY_S = 5.0

POSITIONS_AGE_S = 0.5
"""Places in the line are looked up for all jobs at once, this often at the most: polling costs next to nothing."""

PATIENCE_S = 10.0
"""How long a request waits for what the job store tells other requests, where it does not answer."""

WAIT_POLL_S = 1.0
"""Longest time between two looks at the store for a caller who waits, in case that a notice went astray."""

FLEET_POLL_S = 0.25
"""The same where workers are on other machines, which send no notices."""

STALE_S = 60.0
"""A worker that has said nothing for so long is taken for gone."""


def open_service(settings: Settings) -> JobService:
    """The jobs of this installation, not started yet. One service at a time may use a DATA_DIR.

    Raises:
        StoreUnavailable: the job store cannot be read or written; the message says what to do.
        ConfigurationError: a setting cannot be used.
    """
    return JobService(settings, open_store(settings))


class JobService:
    """Safe to call from any thread, once it is started. ``command`` starts a worker process."""

    def __init__(self, settings: Settings, store: SqlJobStore, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._store: JobStore = store
        self._database = store.database
        self._media: MediaStore = open_media(settings)
        self._completion = CompletionNotifier(store, FLEET_POLL_S if settings.distributed else WAIT_POLL_S)
        self._pool = None if settings.distributed else WorkerPool(settings, store, self._notify, command)
        self._queue: WorkerNotifier = _open_queue(settings) if self._pool is None else LocalNotifier(self._pool)
        self._outbox = OutboxStore(self._database)
        self._runner = OutboxRunner(
            self._outbox,
            {
                FETCH: DownloadHandler(
                    settings, store, self._media, self._outbox, self._queue.notify, note=store.update_progress
                ),
                WEBHOOK: WebhookHandler(settings, store, self._outbox, webhook_master(settings, self._database)),
            },
        )
        self._sweeper = Sweeper(settings, self._database, store, self._media)
        self._admitting = threading.Lock()
        self._arriving = 0
        self._counting = threading.Lock()
        self._stopped = False
        self._positions = RefreshingValue("positions", store.queue_positions)
        self._caller_leases: dict[str, float] = {}

    def start(self) -> None:
        """Clear what an earlier run left, then start the workers."""
        if self._pool is None:
            logger.info("Workers are elsewhere: QUEUE_URL is set, and `diarist worker` starts them on any machine")
        else:
            recover_jobs(self._settings, self._store, self._media)
            self._outbox.release()
            self._pool.start()
        self._runner.start()
        self._sweeper.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Let everyone who waits go (``EngineUnavailable``) and end the worker processes."""
        self._stopped = True
        self._completion.close()
        self._sweeper.stop(timeout)
        self._runner.stop(timeout)
        if self._pool is not None:
            self._pool.stop(timeout)
        self._queue.close()

    def check_room(self, size_bytes: int = 0, spec: JobSpec | None = None, limit: int | None = None) -> None:
        """Refuse an upload of about ``size_bytes`` before it is read; ``spec`` is what is known of it by then.

        ``limit`` is as for ``submit``.

        Raises:
            QueueFull: as many recordings wait as may.
            StorageFull: the disk has too little space.
        """
        if spec is not None and spec.kind is JobKind.JOB:
            self._store.check_limits(spec.owner, self._limits(limit))
        else:
            with self._in_turn():
                self._check_waiting()
        self._media.check_room(size_bytes)

    def submit(
        self, recording: BinaryIO | Path, spec: JobSpec, limit: int | None = None, job_id: str | None = None
    ) -> Job:
        """Take a recording: a stream, copied from where it stands, or a file, moved away from where it is.

        Nothing is kept where it fails. ``limit``: how many unfinished jobs the owner may have, where that is not
        MAX_QUEUED_PER_KEY. ``job_id``: of a new job (``new_job_id``); one with another id was made before.

        Raises:
            QueueFull: as many recordings wait as may.
            StorageFull: the disk has too little space, or ran full.
            UploadTooLarge: it is larger than MAX_UPLOAD_MB.
            IdempotencyConflict: its idempotency key stands for another order.
            StoreUnavailable: the job store cannot be written.
        """
        job_id = job_id or new_job_id()
        with ExitStack() as place:
            self._take_place(spec, place)
            try:
                self._media.check_room(recording.stat().st_size if isinstance(recording, Path) else 0)
                size_bytes = self._media.keep(job_id, recording, self._settings.upload_limit_bytes)
                if spec.kind is JobKind.REQUEST:
                    with self._in_turn():
                        # In one step: between the two it would be counted twice, and others refused for it.
                        job = self._create(job_id, spec, size_bytes, limit)
                        place.close()
                else:
                    job = self._create(job_id, spec, size_bytes, limit)
            except _PerhapsKept:
                raise  # the recording stays for now: where there is no job of it, a sweep removes it
            except BaseException:
                self._remove_media(job_id)
                raise
        if job.id != job_id:
            self._remove_media(job_id)
            return job
        logger.info("Job queued: %d bytes", size_bytes, extra={"job_id": job_id})
        self._queue.notify(spec.queue)
        return job

    def submit_url(self, spec: JobSpec, limit: int | None = None, job_id: str | None = None) -> Job:
        """Take a recording that is still to be fetched from ``spec.source_url``. Raises as ``submit``."""
        job = self._create(job_id or new_job_id(), spec, None, limit)
        logger.info("Job queued, to be fetched", extra={"job_id": job.id})
        self._runner.wake()
        return job

    def repeated(self, owner: str, idempotency_key: str, fingerprint: str) -> Job | None:
        """The job that the owner made with this key before. Raises ``IdempotencyConflict`` where it was another."""
        job = self._store.find_by_idempotency_key(owner, idempotency_key)
        return None if job is None else check_fingerprint(job, fingerprint)

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """The job as it is; with ``owner``, as that one may see it.

        Raises:
            JobNotFound: there is none, or it is another owner's, or no job but a request.
        """
        job = self._store.get(job_id)
        if owner is not None and (job.spec.owner != owner or job.spec.kind is not JobKind.JOB):
            raise JobNotFound(f"There is no job {job_id!r}: it never existed, or it was deleted.")
        return job

    def page(self, wanted: JobFilter, limit: int, cursor: str | None = None) -> JobPage:
        """Jobs, newest first. Raises ``InvalidOption`` for a cursor that is none."""
        return self._store.list_jobs(wanted, limit, cursor)

    def position(self, job_id: str) -> int | None:
        """The place of a job that waited a moment ago, 1 for the next; None where it does not wait any more."""
        now = time.monotonic()
        reading = self._positions.get(POSITIONS_AGE_S, PATIENCE_S)
        if reading is not None and job_id not in reading.value and reading.started_at < now:
            reading = self._positions.get(0.0, PATIENCE_S)
        if reading is None:
            raise StoreUnavailable(_SILENT)
        return reading.value.get(job_id)

    def eta_s(self, job: Job) -> Seconds | None:
        """How long a running job still takes, by how long its part so far took; None where nobody can say."""
        if job.state is not JobState.RUNNING or job.started_at is None or job.progress < 0.02:
            return None
        took_s = (utc_now() - job.started_at).total_seconds()
        return max(took_s * (1 - job.progress) / job.progress, 0.0)

    def events(self, job_id: str, after: int = 0) -> tuple[JobEvent, ...]:
        """What happened to a job after the event with this number."""
        return self._store.list_events(job_id, after)

    def partial(self, job_id: str) -> tuple[Utterance, ...]:
        """The utterances that are final so far."""
        found: list[Utterance] = []
        after = 0
        while page := self._store.list_events(job_id, after):
            found += [event.utterance for event in page if event.utterance is not None]
            after = page[-1].number
        return tuple(found)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it has ended, or as it is after ``timeout`` seconds.

        Raises:
            JobNotFound: it is not there, or was deleted meanwhile.
            EngineUnavailable: the service stops, or the engine cannot be loaded and the job has not been begun.
        """
        job = self._completion.wait(job_id, timeout, self._check_engine)
        if self._stopped and not job.state.ended:
            raise EngineUnavailable("The service is stopping. Send the recording again in a moment.")
        self._extend_caller_lease(job)
        return job

    def result(self, job_id: str) -> Transcript:
        """The transcript of a job that succeeded.

        Raises:
            JobNotFound: there is no such job.
            Cancelled: it was canceled.
            ServiceError: it has not ended.
            DiaristError: it failed; the error that it failed with.
        """
        job = self._store.get(job_id)
        if job.error is not None:
            raise to_exception(job.error)
        if job.state is JobState.CANCELED:
            raise Cancelled("The job was canceled.")
        if job.state is not JobState.SUCCEEDED:
            raise ServiceError("The job has not ended yet. Wait for it first.")
        return self._store.get_transcript(job_id)

    def cancel(self, job_id: str) -> Job:
        """Stop a job that has not ended; the work on it stops within two seconds. Raises ``JobNotFound``."""
        job = self._store.cancel(job_id)
        self._queue.notify(job.spec.queue)
        self._completion.notify()
        self._runner.wake()
        return job

    def discard(self, job_id: str) -> None:
        """Forget a job in any state, with its recording and its transcript. No error where it is not there."""
        kept = self._is_job(job_id)
        try:
            self._store.delete(job_id)
        finally:
            self._runner.drop(job_id)
            self._remove_media(job_id)
            self._caller_leases.pop(job_id, None)
            if kept:
                # A request's words are overwritten by the next sweep; who deletes a job wants it gone now.
                erase_deleted(self._database)
            self._queue.notify(ANY_QUEUE)
            self._completion.notify()

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """Every attempt to tell the caller's server of the end, oldest first."""
        return self._outbox.list_deliveries(job_id)

    def counts(self) -> tuple[int, int]:
        """How many jobs wait, and how many are being worked on."""
        states = self._store.count_by_state()
        return states[JobState.QUEUED], states[JobState.RUNNING]

    def report(self) -> PoolStatus:
        """What the workers last said of themselves; ``loading`` before any said anything. Never raises."""
        try:
            return PoolStatus.from_reports(self._store.list_worker_reports(STALE_S))
        except ServiceError as error:
            return PoolStatus("error", (), (str(error),))

    def metrics_snapshot(self) -> MetricsSnapshot:
        """What the metrics are made of, as of now. Raises ``StoreUnavailable``."""
        return metrics_snapshot.read(self._database, STALE_S)

    def _create(self, job_id: str, spec: JobSpec, size_bytes: int | None, limit: int | None) -> Job:
        now = utc_now()
        job = Job(
            id=job_id, state=JobState.QUEUED, spec=replace(spec, filename=_storable(spec.filename)), created_at=now,
            size_bytes=size_bytes or 0, ready=size_bytes is not None, recording=size_bytes is not None,
            stage="queued" if size_bytes is not None else "download",
        )  # fmt: skip
        try:
            if spec.kind is JobKind.JOB:
                return self._store.create(job, self._limits(limit))
            return self._store.create(job, caller_lease_s=CALLER_LEASE_S)
        except StoreUnavailable as error:
            # It may have been kept all the same, where the connection was lost after that.
            try:
                return self._store.get(job_id)
            except JobNotFound:
                raise error from None
            except ServiceError:
                raise _PerhapsKept(str(error)) from error

    def _limits(self, limit: int | None) -> Limits:
        return Limits(self._settings.max_queued, limit or self._settings.max_queued_per_key)

    def _extend_caller_lease(self, job: Job) -> None:
        if job.caller_lease_until is None or job.state.ended:
            return
        # By this machine's own clock: the store's may be another.
        now = time.monotonic()
        if now - self._caller_leases.get(job.id, float("-inf")) >= EXTEND_CALLER_LEASE_EVERY_S:
            self._store.extend_caller_lease(job.id, CALLER_LEASE_S)
            self._caller_leases[job.id] = now

    def _take_place(self, spec: JobSpec, place: ExitStack) -> None:
        """Hold a place for a request while its recording arrives; ``place`` gives it free.

        Jobs are counted by the store alone, in the transaction that keeps them: there is room for many.
        """
        if spec.kind is JobKind.JOB:
            return
        with self._in_turn():
            self._check_waiting()
            with self._counting:
                self._arriving += 1
        place.callback(self._give_place)

    def _give_place(self) -> None:
        # Not in turn: whoever gives up must not wait for a store that holds up another one.
        with self._counting:
            self._arriving -= 1

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """One request at a time is counted and kept. Raises ``StoreUnavailable`` where one takes too long."""
        if not self._admitting.acquire(timeout=PATIENCE_S):
            raise StoreUnavailable(_SILENT)
        try:
            yield
        finally:
            self._admitting.release()

    def _check_waiting(self) -> None:
        most = self._settings.max_waiting
        if self._store.count_unfinished(JobKind.REQUEST) + self._arriving >= most:
            raise QueueFull(
                f"{most} recordings wait already, the most that this service holds. Send yours again in a minute; "
                "whoever runs it can raise MAX_WAITING."
            )

    def _check_engine(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            report = self.report()
            if report.state == "error":
                raise EngineUnavailable(" ".join(("The engine is not available.", *report.errors)))

    def _is_job(self, job_id: str) -> bool:
        try:
            return self._store.get(job_id).spec.kind is JobKind.JOB
        except JobNotFound:
            return False

    def _notify(self) -> None:
        """A worker has ended a job."""
        self._completion.notify()
        self._runner.wake()

    def _remove_media(self, job_id: str) -> None:
        try:
            self._media.remove(job_id)
        except ServiceError as error:
            logger.warning(
                "The recording of a job cannot be removed (%s); the sweep tries again", error, extra={"job_id": job_id}
            )


_SILENT = "The job store does not answer. Try again later; whoever runs the service can see whether the database is up."


class _PerhapsKept(StoreUnavailable):
    """Nobody can say whether the job was made."""


def _open_queue(settings: Settings) -> WorkerNotifier:
    from diarist.jobs.workers.celery_notifier import CeleryNotifier

    return CeleryNotifier(settings.queue_url)


def _storable(filename: str) -> str:
    """Without what a database refuses, and of bounded length; it is never part of a path."""
    return filename.encode("utf-8", "replace").decode("utf-8").replace("\0", "")[:MAX_FILENAME_CHARS]
