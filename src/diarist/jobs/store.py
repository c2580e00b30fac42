"""The interface of job stores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from diarist.jobs.model import (
    Job,
    JobError,
    JobEvent,
    JobFilter,
    JobKind,
    JobPage,
    JobState,
    Limits,
    WorkerReport,
)
from diarist.types import Seconds, Transcript, Utterance


class JobStore(Protocol):
    """The single source of truth about jobs.

    Every method is one transaction, and is safe to call from any thread or process. Every method raises
    ``StoreUnavailable`` if the store cannot be read or written.
    """

    def create(self, job: Job, limits: Limits | None = None, caller_lease_s: Seconds | None = None) -> Job:
        """Add a new queued job, or return the job that its owner created with the same idempotency key.

        Args:
            job: The new job.
            limits: The maximum numbers of unfinished jobs; None means no limits.
            caller_lease_s: For how long the caller of a request is known to be connected.

        Raises:
            QueueFull: The maximum number of unfinished jobs, in total or for this owner, has been reached.
            QuotaExceeded: The recordings of this owner would be too large.
            IdempotencyConflict: The job with the same idempotency key was created by a different request.
        """
        ...

    def check_limits(self, owner: str, limits: Limits, size_bytes: int = 0) -> None:
        """Raise ``QueueFull`` or ``QuotaExceeded`` as ``create``, for a recording of at least ``size_bytes``."""
        ...

    def get(self, job_id: str) -> Job:
        """Return the job with this ID, or raise ``JobNotFound``."""
        ...

    def list_jobs(self, job_filter: JobFilter, limit: int, cursor: str | None = None) -> JobPage:
        """Return a page of at most ``limit`` jobs (``JobKind.JOB``), newest first.

        Raises:
            InvalidOption: The cursor is not valid.
        """
        ...

    def find_by_idempotency_key(self, owner: str, idempotency_key: str) -> Job | None:
        """Return the job that an owner created with this idempotency key, or None."""
        ...

    def attach_recording(
        self, job_id: str, size_bytes: int, filename: str, stored_limit_bytes: int | None = None
    ) -> bool:
        """Record that the recording has been received. Return False if the job has ended or was deleted.

        ``stored_limit_bytes`` is ``Limits.stored_bytes``. Raise ``QuotaExceeded`` if the recordings of the owner would
        be too large.
        """
        ...

    def update_progress(self, job_id: str, stage: str, progress: float) -> None:
        """Update the progress of a queued job whose recording is still being received."""
        ...

    def reject(self, job_id: str, error: JobError) -> bool:
        """Fail a queued job whose recording cannot be received. Return False if the job does not wait for one."""
        ...

    def claim(
        self, worker: str, lease_s: Seconds, attempts: int, queues: Sequence[str] = (), *, requests_only: bool = False
    ) -> Job | None:
        """Claim the next queued job for a worker, and count the attempt. Two callers never get the same job.

        Requests come first; then jobs are sorted by priority, then by how long ago their owner had a job claimed, then
        by age. Before that, jobs whose lease has expired are released (``release``). With ``requests_only`` the worker
        is processing a job, so its own expired lease is not released.

        Args:
            worker: The name of the worker.
            lease_s: For how long the worker holds the job unless it renews the lease.
            attempts: How many worker crashes make a job fail.
            queues: The queues to claim from; empty means all.
            requests_only: Whether to claim only requests.

        Returns:
            The job, or None if there is none.
        """
        ...

    def renew(self, job_id: str, worker: str, lease_s: Seconds, stage: str, progress: float) -> bool:
        """Extend the lease and update the progress.

        Return False if the worker no longer holds the job: it was canceled, deleted, or claimed by another worker.
        """
        ...

    def finalize(self, job_id: str, worker: str, first: int, utterances: Sequence[Utterance]) -> bool:
        """Store final utterances, of which ``first`` is the index of the first one.

        Utterances that an earlier attempt has stored are skipped. Return False if the worker no longer holds the job.
        """
        ...

    def finish(self, job_id: str, worker: str, transcript: Transcript) -> bool:
        """Store the transcript and mark the job as succeeded. All utterances become final.

        Return False, without any change, if the worker no longer holds the job.
        """
        ...

    def fail(self, job_id: str, worker: str, error: JobError) -> bool:
        """Mark the job as failed. Return False, without any change, if the worker no longer holds the job."""
        ...

    def retry(self, job_id: str, worker: str, error: JobError, attempts: int, delay_s: Seconds) -> bool:
        """Requeue the job with a delay after an error of the service, or fail it after the last of ``attempts``.

        Attempts that ended with a crash of a worker or of the whole service do not count. Return False, without any
        change, if the worker no longer holds the job.
        """
        ...

    def requeue(self, job_id: str, worker: str) -> bool:
        """Requeue the job without counting the attempt. Return False if the worker no longer holds the job."""
        ...

    def release(self, worker: str | None, attempts: int, *, service_crash: bool = False) -> tuple[str, ...]:
        """Release the jobs of a crashed worker at once, and delete its report.

        Each job is requeued, or fails if it has crashed too many workers.

        Args:
            worker: The worker; None means all jobs whose lease has expired.
            attempts: How many worker crashes make a job fail.
            service_crash: Whether the whole service has crashed. A job fails only after many of these.

        Returns:
            The IDs of the released jobs, oldest first.
        """
        ...

    def extend_caller_lease(self, job_id: str, caller_lease_s: Seconds) -> None:
        """Record that the caller of a request is known to be connected for this time from now on."""
        ...

    def cancel(self, job_id: str) -> Job:
        """Cancel the job unless it has ended, and return it. Raise ``JobNotFound`` if it does not exist."""
        ...

    def delete(self, job_id: str) -> None:
        """Delete the job and everything that belongs to it. A job that does not exist is not an error."""
        ...

    def get_transcript(self, job_id: str) -> Transcript:
        """Return the transcript of a job, or raise ``JobNotFound`` if there is none."""
        ...

    def list_events(self, job_id: str, after: int = 0, limit: int = 1_000) -> tuple[JobEvent, ...]:
        """Return at most ``limit`` events of a job whose numbers are greater than ``after``, in order."""
        ...

    def count_unfinished(self, kind: JobKind) -> Mapping[str, int]:
        """Return how many jobs of a kind are queued or running, by their owners; owners without any are left out."""
        ...

    def list_waiting_queues(self) -> tuple[str, ...]:
        """Return the queues in which jobs (``JobKind.JOB``) with a recording wait."""
        ...

    def fail_waiting(self, queue: str, waited_s: Seconds, error: JobError) -> tuple[str, ...]:
        """Fail the jobs that wait in a queue and were created longer ago than ``waited_s``, and return their IDs."""
        ...

    def queue_positions(self) -> Mapping[str, int]:
        """Return the position of each queued job, 1 for the next, on the assumption that no other job is added."""
        ...

    def count_by_state(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state, of both kinds."""
        ...

    def write_lock_is_held(self) -> bool:
        """Return whether anyone holds the store's only lock for writing, for longer than a transaction takes.

        A store that writers do not lock as a whole returns False.
        """
        ...

    def list_unfinished(self) -> tuple[Job, ...]:
        """Return all jobs that are queued or running, oldest first."""
        ...

    def list_requests(self) -> tuple[str, ...]:
        """Return the IDs of all requests, oldest first."""
        ...

    def filter_existing(self, job_ids: Collection[str], *, ended: bool = False) -> frozenset[str]:
        """Return those of the IDs that belong to a job, or with ``ended``, to a job that has ended."""
        ...

    def list_abandoned_requests(self) -> tuple[str, ...]:
        """Return the IDs of all requests whose callers are no longer known to be connected."""
        ...

    def list_ended_before(self, moment: datetime, *, with_recording: bool = False) -> tuple[str, ...]:
        """Return the IDs of all jobs that ended before a moment; optionally only those that still have a recording."""
        ...

    def mark_recording_removed(self, job_id: str) -> None:
        """Record that the recording of a job was removed."""
        ...

    def save_worker_report(self, report: WorkerReport) -> None:
        """Replace the last report of a worker. The store sets the time of the report."""
        ...

    def list_worker_reports(self, fresh_s: Seconds | None = None) -> tuple[WorkerReport, ...]:
        """Return the last report of each worker, newest first; with ``fresh_s``, only those of the last seconds."""
        ...

    def increment_metric(self, metric: str, **labels: str) -> None:
        """Add 1 to a counter of ``diarist.jobs.db.metrics_storage``."""
        ...

    def observe_metric(self, metric: str, value: float, **labels: str) -> None:
        """Add a value to a histogram of ``diarist.jobs.db.metrics_storage``."""
        ...
