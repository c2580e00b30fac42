"""What the HTTP service asks of jobs: submit a recording, wait, fetch the result, forget it."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from diarist.errors import Cancelled, EngineUnavailable, QueueFull, ServiceError
from diarist.jobs.crew import COMMAND, Crew
from diarist.jobs.failure import to_exception
from diarist.jobs.media import MediaStore, new_job_id
from diarist.jobs.model import CrewReport, Job, JobState, JobStore
from diarist.jobs.store import open_store, utc_now
from diarist.jobs.waiters import Waiters
from diarist.settings import Settings
from diarist.types import TranscribeOptions, Transcript

logger = logging.getLogger(__name__)

MAX_FILENAME_CHARS = 255


def open_service(settings: Settings) -> JobService:
    """The jobs of this installation, not started yet. One service at a time may use a DATA_DIR.

    Raises:
        StoreUnavailable: the job store cannot be read or written; the message says what to do.
    """
    return JobService(settings, open_store(settings))


class JobService:
    """Safe to call from any thread, once it is started. ``command`` starts a worker process."""

    def __init__(self, settings: Settings, store: JobStore, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._store = store
        self._media = MediaStore(settings.media_dir, settings.min_free_mb * 2**20)
        self._waiters = Waiters(store)
        self._crew = Crew(settings, store, self._waiters.notify, command)
        self._admitting = threading.Lock()
        self._arriving = 0
        self._stopped = False

    def start(self) -> None:
        """Clear what an earlier run left, then start the workers."""
        clear_leftovers(self._settings, self._store, self._media)
        self._crew.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Let everyone who waits go (``EngineUnavailable``) and end the worker processes."""
        self._stopped = True
        self._waiters.close()
        self._crew.stop(timeout)

    def check_room(self, size_bytes: int = 0) -> None:
        """Refuse an upload of about ``size_bytes`` before it is read.

        Raises:
            QueueFull: as many recordings wait as may.
            StorageFull: the disk has too little space.
        """
        with self._admitting:
            self._check_queue()
        self._media.check_room(size_bytes)

    def submit(self, recording: BinaryIO | Path, filename: str, options: TranscribeOptions, request_id: str) -> Job:
        """Take a recording: a stream, copied from where it stands, or a file, moved away from where it is.

        Nothing is kept where it fails.

        Raises:
            QueueFull: as many recordings wait as may.
            StorageFull: the disk has too little space, or ran full.
            UploadTooLarge: it is larger than MAX_UPLOAD_MB.
            StoreUnavailable: the job store cannot be written.
        """
        with self._admitting:
            self._check_queue()
            self._arriving += 1
        job_id = new_job_id()
        try:
            self._media.check_room(recording.stat().st_size if isinstance(recording, Path) else 0)
            size_bytes = self._media.keep(job_id, recording, self._settings.upload_limit_bytes)
            job = Job(
                id=job_id, state=JobState.QUEUED, options=options, filename=_storable(filename),
                size_bytes=size_bytes, request_id=request_id, created_at=utc_now(),
            )  # fmt: skip
            with self._admitting:
                # In one step: between the two the job would be counted twice, and others refused for it.
                self._store.create(job)
                self._arriving -= 1
        except BaseException:
            with self._admitting:
                self._arriving -= 1
            self._remove_media(job_id)
            raise
        logger.info("Job queued: %d bytes", size_bytes, extra={"job_id": job_id})
        self._crew.wake()
        return job

    def get(self, job_id: str) -> Job:
        """The job as it is. Raises ``JobNotFound``."""
        return self._store.get(job_id)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it has ended, or as it is after ``timeout`` seconds.

        Raises:
            JobNotFound: it is not there, or was deleted meanwhile.
            EngineUnavailable: the service stops, or the engine cannot be loaded and the job has not been begun.
        """
        job = self._waiters.wait(job_id, timeout, self._check_engine)
        if self._stopped and not job.state.ended:
            raise EngineUnavailable("The service is stopping. Send the recording again in a moment.")
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
        return self._store.transcript(job_id)

    def cancel(self, job_id: str) -> Job:
        """Stop a job that has not ended; the worker hears of it within a second. Raises ``JobNotFound``."""
        job = self._store.cancel(job_id)
        self._waiters.notify()
        return job

    def discard(self, job_id: str) -> None:
        """Forget a job in any state, with its recording and its transcript. No error where it is not there."""
        try:
            self._store.delete(job_id)
        finally:
            self._remove_media(job_id)
            self._waiters.notify()

    def counts(self) -> tuple[int, int]:
        """How many jobs wait, and how many are being worked on."""
        states = [job.state for job in self._store.unfinished()]
        return states.count(JobState.QUEUED), states.count(JobState.RUNNING)

    def report(self) -> CrewReport:
        """What the workers last said of themselves; ``loading`` before any said anything. Never raises."""
        try:
            return CrewReport.of(self._store.reports())
        except ServiceError as error:
            return CrewReport("error", (), (str(error),))

    def _check_queue(self) -> None:
        if self._store.waiting() + self._arriving >= self._settings.max_waiting:
            raise QueueFull(
                f"{self._settings.max_waiting} recordings wait already, the most that this service holds. "
                "Send yours again in a minute."
            )

    def _check_engine(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            report = self.report()
            if report.state == "error":
                raise EngineUnavailable(" ".join(("The engine is not available.", *report.errors)))

    def _remove_media(self, job_id: str) -> None:
        try:
            self._media.remove(job_id)
        except OSError as error:
            logger.warning(
                "The folder of a job cannot be removed (%s); the next start of the service tries again",
                error.strerror, extra={"job_id": job_id},
            )  # fmt: skip


def clear_leftovers(settings: Settings, store: JobStore, media: MediaStore) -> None:
    """Forget the jobs of an earlier run, all of them: their callers are gone, and nobody else can ask for the result.

    Also what such a run left of uploads, and reports of its workers. The log says how much there was.
    """
    unfinished, ended = store.unfinished(), store.ended()
    for job in (*unfinished, *ended):
        store.delete(job.id)
    folders = media.job_ids()
    for job_id in folders:
        try:
            media.remove(job_id)
        except OSError as error:
            logger.warning("The folder %s cannot be removed: %s", media.recording(job_id).parent, error)
    for report in store.reports():
        store.release(report.worker, settings.job_attempts)
    if settings.temp_audio_dir is None:
        # The folder is ours alone by its default place; one that was chosen may hold other people's files.
        shutil.rmtree(settings.temp_dir, ignore_errors=True)
        settings.temp_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if unfinished or ended or folders:
        logger.warning(
            "Removed what an earlier run left: %d unfinished jobs, %d ended ones, %d folders",
            len(unfinished), len(ended), len(folders),
        )  # fmt: skip


def _storable(filename: str) -> str:
    """Without what a database refuses, and of bounded length; it is never part of a path."""
    return filename.encode("utf-8", "replace").decode("utf-8").replace("\0", "")[:MAX_FILENAME_CHARS]
