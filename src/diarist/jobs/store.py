"""What every job store must do."""

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
    """The truth about jobs. Every method is one transaction and may be called from any thread or process.

    Every method raises ``StoreUnavailable`` where the store cannot be read or written.
    """

    def create(self, job: Job, limits: Limits | None = None, caller_lease_s: Seconds | None = None) -> Job:
        """Keep a new job, queued; or give the one back that its owner made with the same idempotency key.

        ``caller_lease_s``: for how long its caller certainly holds the line.

        Raises:
            QueueFull: there are as many unfinished ones as may be, of all owners or of this one.
            IdempotencyConflict: the earlier one with that key was another order.
        """
        ...

    def check_limits(self, owner: str, limits: Limits) -> None:
        """Raises ``QueueFull`` where there are as many unfinished jobs as may be, of all owners or of this one."""
        ...

    def get(self, job_id: str) -> Job:
        """Raises ``JobNotFound``."""
        ...

    def list_jobs(self, wanted: JobFilter, limit: int, cursor: str | None = None) -> JobPage:
        """Jobs (``JobKind.JOB``), newest first. Raises ``InvalidOption`` for a cursor that is none."""
        ...

    def find_by_idempotency_key(self, owner: str, idempotency_key: str) -> Job | None:
        """The job that the owner made with this idempotency key."""
        ...

    def attach_recording(self, job_id: str, size_bytes: int, filename: str) -> bool:
        """The recording is there now. False: nobody waits for it any more (canceled, deleted)."""
        ...

    def update_progress(self, job_id: str, stage: str, progress: float) -> None:
        """How far what is done for a queued job is, before it can be claimed."""
        ...

    def reject(self, job_id: str, error: JobError) -> bool:
        """The recording cannot be had: mark the queued job failed. False: nobody waits for it (any more)."""
        ...

    def claim(
        self, worker: str, lease_s: Seconds, attempts: int, queues: Sequence[str] = (), *, requests_only: bool = False
    ) -> Job | None:
        """Take the next job that is queued in one of ``queues`` (empty: in any at all).

        First those whose caller holds the line, then by priority, then of the owner who was served least recently, then
        the oldest. What dead workers held is given back before (``release`` of those whose lease has run out; where
        requests alone are wanted, a worker is at work, and no lease of its own is taken for lapsed). Counts the
        attempt. None where there is no such job. Two callers never get the same one.
        """
        ...

    def renew(self, job_id: str, worker: str, lease_s: Seconds, stage: str, progress: float) -> bool:
        """Lengthen the lease and note the progress.

        False: the job is no longer this worker's (canceled, deleted, taken).
        """
        ...

    def finalize(self, job_id: str, worker: str, first: int, utterances: Sequence[Utterance]) -> bool:
        """Keep utterances that are final, of which ``first`` is the index of the first.

        Those that an earlier attempt has kept already are passed over. False: the job is no longer this worker's.
        """
        ...

    def finish(self, job_id: str, worker: str, transcript: Transcript) -> bool:
        """Keep the transcript and mark the job succeeded, unless it is no longer this worker's (False).

        Utterances that were not settled before are so now.
        """
        ...

    def fail(self, job_id: str, worker: str, error: JobError) -> bool:
        """Mark the job failed, unless it is no longer this worker's (False)."""
        ...

    def retry(self, job_id: str, worker: str, error: JobError, attempts: int, delay_s: Seconds) -> bool:
        """After a fault of ours: queue the job again for later; fail it where it is the last of ``attempts``.

        Attempts that ended with the death of a worker, or of the whole service, do not count.
        """
        ...

    def requeue(self, job_id: str, worker: str) -> bool:
        """Queue the job again as if it had not been tried, unless it is no longer this worker's (False)."""
        ...

    def release(self, worker: str | None, attempts: int, *, service_crash: bool = False) -> tuple[str, ...]:
        """Give back what a dead worker held, at once, and forget its report; None: all whose lease has run out.

        A job is queued again, or failed where that was the death of ``attempts`` workers. ``service_crash``: the whole
        service died, for which a job is failed only after many times. The ids, oldest first.
        """
        ...

    def extend_caller_lease(self, job_id: str, caller_lease_s: Seconds) -> None:
        """The caller still holds the line."""
        ...

    def cancel(self, job_id: str) -> Job:
        """Mark it canceled unless it has ended. Raises ``JobNotFound``."""
        ...

    def delete(self, job_id: str) -> None:
        """Forget it and all that belongs to it. No error where it is not there."""
        ...

    def get_transcript(self, job_id: str) -> Transcript:
        """Raises ``JobNotFound`` where there is none."""
        ...

    def list_events(self, job_id: str, after: int = 0, limit: int = 1_000) -> tuple[JobEvent, ...]:
        """What happened after the event with the number ``after``, in order."""
        ...

    def count_unfinished(self, kind: JobKind) -> int:
        """How many jobs of this kind are queued or running."""
        ...

    def queue_positions(self) -> Mapping[str, int]:
        """The place of each queued job in the line, 1 for the next; in the order in which ``claim`` takes them."""
        ...

    def count_by_state(self) -> Mapping[JobState, int]:
        """How many jobs are in each state, of either kind."""
        ...

    def list_unfinished(self) -> tuple[Job, ...]:
        """All jobs queued or running, oldest first."""
        ...

    def list_requests(self) -> tuple[str, ...]:
        """The ids of all requests, oldest first."""
        ...

    def filter_existing(self, job_ids: Collection[str], *, ended: bool = False) -> frozenset[str]:
        """Those of them that there are jobs of; with ``ended``, jobs that have ended."""
        ...

    def list_abandoned_requests(self) -> tuple[str, ...]:
        """The ids of requests whose caller has gone with the process that spoke to it."""
        ...

    def list_ended_before(self, moment: datetime, *, with_recording: bool = False) -> tuple[str, ...]:
        """The ids of jobs that ended before; of those alone that still have their recording, where that is asked."""
        ...

    def mark_recording_removed(self, job_id: str) -> None:
        """Note that the recording was removed."""
        ...

    def save_worker_report(self, report: WorkerReport) -> None:
        """Keep what a worker says of itself; the store says when that was."""
        ...

    def list_worker_reports(self, fresh_s: Seconds | None = None) -> tuple[WorkerReport, ...]:
        """What workers last said, newest first; what is older than ``fresh_s`` is left out."""
        ...

    def increment_metric(self, metric: str, **labels: str) -> None:
        """Something that is counted (``diarist.jobs.db.metrics_storage``) happened once more."""
        ...

    def observe_metric(self, metric: str, value: float, **labels: str) -> None:
        """One more value of something that is measured (``diarist.jobs.db.metrics_storage``)."""
        ...
