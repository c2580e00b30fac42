"""Running one job of a worker process, from its claim to its outcome in the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from diarist.errors import Cancelled, InputError, JobNotFound, ServiceError
from diarist.jobs.db.database import utc_now
from diarist.jobs.error_codes import to_job_error
from diarist.jobs.model import Job
from diarist.jobs.workers import ipc
from diarist.jobs.workers.context import STORE_RETRY_S, WorkerContext
from diarist.jobs.workers.engine import TranscribeFile
from diarist.jobs.workers.engine_startup import queues_of
from diarist.jobs.workers.partial_results import PartialTranscript
from diarist.jobs.workers.preemption import Preemption
from diarist.jobs.workers.scatter import StoreScatter
from diarist.observability import logs, tracing
from diarist.protocols import Engine, Scatter
from diarist.types import Transcript

logger = logging.getLogger(__name__)


class JobRunner:
    """Claims jobs and runs each one to its end.

    Args:
        context: the worker.
        engine: runs the jobs.
        transcribe: turns a recording into a transcript.
    """

    def __init__(self, context: WorkerContext, engine: Engine, transcribe: TranscribeFile) -> None:
        self._context = context
        self._engine = engine
        self._transcribe = transcribe
        self._queues = queues_of(engine, context.settings)
        self.preemption = Preemption(context, lambda: self.run_next(requests_only=True))
        """Allows requests to interrupt work, including that of other parts of this worker."""

    def run_next(self, *, requests_only: bool = False) -> bool:
        """Run the next job to its end. Returns False if no job is waiting.

        Raises:
            ServiceError: no job could be claimed.
        """
        context, settings = self._context, self._context.settings
        job = context.store.claim(
            context.worker, settings.job_lease_s, settings.job_attempts, self._queues, requests_only=requests_only
        )
        if job is None:
            return False
        with (
            logs.log_context(request=job.spec.request_id, job=job.id),
            tracing.span(
                "job", parent=job.spec.traceparent, kind="consumer",
                job_id=job.id, queue=job.spec.queue, attempt=job.attempts,
            ),
        ):  # fmt: skip
            tracing.record("wait", job.created_at.timestamp(), utc_now().timestamp())
            try:
                self._run(job)
            finally:
                context.channel.send(f"{ipc.JOB_ENDED} {job.id}")
                self._remove_parts(job)
        return True

    def _run(self, job: Job) -> None:
        logger.info(
            "Job claimed: %d bytes, attempt %d, after %.1f s of waiting",
            job.size_bytes, job.attempts, (utc_now() - job.created_at).total_seconds(),
        )  # fmt: skip
        started_at = time.monotonic()
        with self._context.heartbeat.hold_job(job):
            try:
                transcript = self._execute(job)
                stored = self._write_outcome(
                    lambda: self._context.store.finish(job.id, self._context.worker, transcript)
                )
            except Exception as error:  # noqa: BLE001 - any error ends this job, but not the worker
                self._fail(job, error)
                return
        if stored:
            _log_finished(transcript, time.monotonic() - started_at)
        else:
            logger.info("Job was canceled or taken over before it ended; its transcript is discarded")

    def _execute(self, job: Job) -> Transcript:
        context = self._context
        finalized = PartialTranscript(context.store, job.id, context.worker)
        progress = self.preemption.progress_of(job)
        with (
            context.heartbeat.executing(),
            context.media.local_recording(job.id, lambda: context.heartbeat.progress("download", 0.0)) as recording,
        ):
            return self._transcribe(
                recording, self._engine, job.spec.options, progress, context.settings, finalized, self._scatter(job)
            )

    def _scatter(self, job: Job) -> Scatter | None:
        """Return what distributes the job, or a request, over other workers; None if the service is not distributed."""
        context = self._context
        if not context.settings.distributed:
            return None
        return StoreScatter(job, self._engine, context.chunks, context.media, context.worker, context.settings)

    def _fail(self, job: Job, error: Exception) -> None:
        context = self._context
        interrupted = context.channel.shutdown.is_set() and not isinstance(error, InputError)
        if interrupted and self._write_outcome(lambda: context.store.requeue(job.id, context.worker)):
            logger.info("Job requeued: the worker is shutting down")
            tracing.current_span().set_attributes(given_back=True)
            return
        if isinstance(error, Cancelled) or not context.heartbeat.still_held():
            logger.info("Job stopped: it was canceled, deleted or taken over")
            tracing.current_span().set_attributes(canceled=True)
            return
        if isinstance(error, InputError):
            logger.info("Job refused: %s: %s", error.code, error)
        else:
            logger.error("Job failed at attempt %d", job.attempts, exc_info=error)
        job_error = to_job_error(error, job)
        tracing.current_span().fail(job_error.code)
        if isinstance(error, InputError):
            self._write_outcome(lambda: context.store.fail(job.id, context.worker, job_error))
            return
        errors_before = max(job.attempts - job.worker_crashes - job.service_crashes - 1, 0)
        attempts, delay_s = context.settings.job_attempts, context.settings.job_retry_s * 3.0**errors_before
        self._write_outcome(lambda: context.store.retry(job.id, context.worker, job_error, attempts, delay_s))

    def _write_outcome(self, write: Callable[[], bool]) -> bool:
        """Write the outcome of a job, retrying while the store is unavailable: an hour of work may depend on it.

        Returns:
            What ``write`` returned. False also if the worker must exit, or if the store has answered other calls for
            longer than a lease.
        """
        context = self._context
        until = time.monotonic() + context.settings.job_lease_s
        while True:
            context.heartbeat.touch()
            try:
                return write()
            except ServiceError as error:
                logger.error("The outcome of the job cannot be stored: %s", error)  # noqa: TRY400 - the message is complete
                if context.heartbeat.store_answered_at >= until or context.channel.shutdown.wait(STORE_RETRY_S):
                    return False

    def _remove_parts(self, job: Job) -> None:
        """Remove the parts of the recording that were stored for other workers, unless the job continues elsewhere."""
        context = self._context
        if not context.settings.distributed:
            return
        try:
            if context.store.get(job.id).state.ended:
                context.media.remove_parts(job.id)
        except JobNotFound:
            context.media.remove(job.id)
        except ServiceError as error:
            logger.warning("Parts of a recording cannot be removed (%s); the next sweep tries again", error)


def _log_finished(transcript: Transcript, duration_s: float) -> None:
    stages = ", ".join(f"{timing.stage} {timing.seconds:.2f} s" for timing in transcript.timings)
    logger.info(
        "Job finished: %.1f s of audio in %.2f s (real-time factor %.3f) by %s and %s on %s: %s",
        transcript.duration, duration_s, duration_s / max(transcript.duration, 0.001),
        transcript.diarization.diarizer or "no diarizer", transcript.recognizer or "no recognizer",
        transcript.device, stages or "no stages",
    )  # fmt: skip
