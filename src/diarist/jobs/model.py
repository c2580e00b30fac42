"""What a job is, and what every job store must do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from diarist.types import ModelInfo, TranscribeOptions, Transcript


class JobState(StrEnum):
    """Where a job is on its way."""

    QUEUED = "queued"
    """Waits for a worker: new, or given back after its worker died."""
    RUNNING = "running"
    """A worker holds it under a lease."""
    SUCCEEDED = "succeeded"
    """Done; the transcript is there."""
    FAILED = "failed"
    """Ended with an error that says why."""
    CANCELED = "canceled"
    """Stopped on request."""

    @property
    def ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: a code of ``diarist.errors`` and the words for the user."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """One recording on its way. Times are aware, in UTC."""

    id: str
    """Cannot be guessed: 128 random bits, URL-safe."""

    state: JobState
    options: TranscribeOptions
    filename: str
    """As the caller named it: for people, never for paths."""

    size_bytes: int
    request_id: str
    created_at: datetime
    stage: str = "queued"
    progress: float = 0.0
    """Of the whole job, 0..1; never falls while one worker holds it."""

    attempts: int = 0
    worker: str | None = None
    lease_until: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: JobError | None = None


STATES = ("ready", "loading", "error")
"""Of a worker, best first."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker last said of itself."""

    worker: str
    pid: int
    state: str
    """One of ``STATES``."""

    models: tuple[ModelInfo, ...]
    errors: tuple[str, ...]
    reported_at: datetime
    device: str = ""
    """What its engine runs on; empty until that is loaded."""


@dataclass(frozen=True, slots=True)
class CrewReport:
    """What all workers last said, taken together."""

    state: str
    """``ready`` where one worker is, else ``loading`` where one may get so, else ``error``."""

    models: tuple[ModelInfo, ...]
    """Those of a worker in that state: all workers have the same ones."""

    errors: tuple[str, ...]
    """Those of all workers, each once; a crew that is ready may have some."""

    workers: tuple[WorkerReport, ...] = ()
    """In order of their places."""

    @classmethod
    def of(cls, reports: Iterable[WorkerReport]) -> CrewReport:
        """Of the reports of all workers; ``loading`` where there is none yet."""
        workers = tuple(sorted(reports, key=lambda report: report.worker))
        state = min((report.state for report in workers), key=STATES.index, default="loading")
        models = (report.models for report in workers if report.state == state)
        errors = dict.fromkeys(error for report in workers for error in report.errors)
        return cls(state, next(filter(None, models), ()), tuple(errors), workers)

    @property
    def device(self) -> str | None:
        """What the engines that are loaded run on, each device once; None where none is."""
        return ", ".join(dict.fromkeys(report.device for report in self.workers if report.device)) or None


class JobStore(Protocol):
    """The truth about jobs. Every method is one transaction and may be called from any thread or process.

    Every method raises ``StoreUnavailable`` where the store cannot be read or written.
    """

    def create(self, job: Job) -> None:
        """Keep a new job, queued."""
        ...

    def get(self, job_id: str) -> Job:
        """Raises ``JobNotFound``."""
        ...

    def claim(self, worker: str, lease_s: float, attempts: int) -> Job | None:
        """Take the oldest job that is queued, or whose lease has run out with fewer than ``attempts`` made.

        Counts the attempt. None where there is no such job. Two callers never get the same one.
        """
        ...

    def renew(self, job_id: str, worker: str, lease_s: float, stage: str, progress: float) -> bool:
        """Lengthen the lease and note the progress.

        False: the job is no longer this worker's (canceled, deleted, taken).
        """
        ...

    def finish(self, job_id: str, worker: str, transcript: Transcript) -> bool:
        """Keep the transcript and mark the job succeeded, unless it is no longer this worker's (False)."""
        ...

    def fail(self, job_id: str, worker: str, error: JobError) -> bool:
        """Mark the job failed, unless it is no longer this worker's (False)."""
        ...

    def hand_back(self, job_id: str, worker: str) -> bool:
        """Queue the job again as if it had not been tried, unless it is no longer this worker's (False)."""
        ...

    def release(self, worker: str | None, attempts: int) -> tuple[str, ...]:
        """Give back what a dead worker held, at once, and forget its report; None: all whose lease has run out.

        A job is queued again, or failed where ``attempts`` are used up. The ids, oldest first.
        """
        ...

    def cancel(self, job_id: str) -> Job:
        """Mark it canceled unless it has ended. Raises ``JobNotFound``."""
        ...

    def delete(self, job_id: str) -> None:
        """Forget it and its transcript. No error where it is not there."""
        ...

    def transcript(self, job_id: str) -> Transcript:
        """Raises ``JobNotFound`` where there is none."""
        ...

    def waiting(self) -> int:
        """How many jobs are queued or running."""
        ...

    def unfinished(self) -> tuple[Job, ...]:
        """All jobs queued or running, oldest first."""
        ...

    def ended(self) -> tuple[Job, ...]:
        """All jobs that have ended, oldest first."""
        ...

    def report(self, report: WorkerReport) -> None:
        """Keep what a worker says of itself."""
        ...

    def reports(self) -> tuple[WorkerReport, ...]:
        """What workers last said, newest first."""
        ...
