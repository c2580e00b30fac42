"""Jobs, what a caller may ask for and filter by, and the reports of workers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from diarist.types import ModelInfo, Seconds, Timing, TranscribeOptions, Utterance

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{22}")


def new_job_id() -> str:
    """Return a new job ID: 128 random bits as 22 URL-safe characters."""
    return secrets.token_urlsafe(16)


def is_job_id(text: str) -> bool:
    """Return whether a text has the form of a job ID."""
    return _JOB_ID.fullmatch(text) is not None


def check_job_id(text: str) -> str:
    """Return the text if it has the form of a job ID, or raise ``ValueError``."""
    if not is_job_id(text):
        raise ValueError(f"{text!r} is not a job ID")
    return text


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    """The job waits for a worker: it is new, or was requeued."""
    RUNNING = "running"
    """A worker holds the job under a lease."""
    SUCCEEDED = "succeeded"
    """The job has ended, and its transcript is available."""
    FAILED = "failed"
    """The job has ended with an error that says why."""
    CANCELED = "canceled"
    """The job was stopped on request."""

    @property
    def ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


class JobKind(StrEnum):
    """Whether a caller waits for a job."""

    REQUEST = "request"
    """The caller keeps its connection open. The job precedes all of the other kind, is not retried, and is deleted when
    the caller is gone."""
    JOB = "job"
    """The caller comes back for the result. The job is kept until its retention time is over."""


PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""The names that callers use. Jobs with a higher priority are claimed first."""

ANY_QUEUE = "any"
"""The queue of jobs that any worker may claim."""

QUEUES = (ANY_QUEUE, "cpu", "gpu", "embedded", "nemo")
"""The queues: for any worker, for workers on a kind of device, and for workers with an engine."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: a code of ``diarist.errors`` and the message for the user."""

    code: str
    message: str


def option_fields(options: TranscribeOptions) -> dict[str, Any]:
    """Return the options as values of JSON.

    Options that the first release did not have are left out if they have their defaults. So jobs without them are the
    same for every release: a worker of the first release can run them, and the hash of a request stays the same.
    """
    added = {item.name: item.default for item in fields(options) if item.name in ("track", "partial")}
    return {name: value for name, value in asdict(options).items() if name not in added or value != added[name]}


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a caller asks for, except for the recording itself."""

    options: TranscribeOptions = field(default_factory=TranscribeOptions)
    filename: str = ""
    """The name that the caller gave the recording. It is for people, and never part of a path."""

    request_id: str = ""
    owner: str = ""
    """The ID of the API key of the request; empty if the service has no keys."""

    kind: JobKind = JobKind.REQUEST
    queue: str = ANY_QUEUE
    priority: int = 0
    """One of ``PRIORITIES``."""

    labels: tuple[tuple[str, str], ...] = ()
    """Pairs of a name and a value, chosen by the caller."""

    webhook_url: str | None = None
    """The URL that is notified of the end of the job, or None."""

    source_url: str | None = None
    """The URL to download the recording from; None if it was uploaded."""

    idempotency_key: str | None = None
    """If the same owner sends the same key again, it refers to the job that already exists."""

    fingerprint: str = ""
    """The hash of the whole request, if it has an idempotency key. It reveals a second request that differs."""

    traceparent: str | None = None
    """The trace that the request belongs to, in the format of W3C Trace Context."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recording and the state of its processing. All times are aware and in UTC."""

    id: str
    """The ID, which nobody can guess (``new_job_id``)."""

    state: JobState
    spec: JobSpec
    created_at: datetime
    size_bytes: int = 0
    """The size of the recording; 0 until it has been received."""

    ready: bool = True
    """Whether the recording has been received, so that a worker may claim the job."""

    recording: bool = True
    """Whether the recording is stored. It is removed earlier than the job."""

    stage: str = "queued"
    progress: float = 0.0
    """The progress of the whole job, from 0 to 1. It never decreases while the same worker holds the job."""

    attempts: int = 0
    """How often the job was started, not counting starts that a worker gave up on purpose."""

    worker_crashes: int = 0
    """How often a worker crashed while it was processing the job."""

    service_crashes: int = 0
    """How often the whole service crashed while the job was running. The job need not be the cause."""

    not_before: datetime | None = None
    """The earliest time of the next attempt, after an error of the service."""

    worker: str | None = None
    lease_until: datetime | None = None
    caller_lease_until: datetime | None = None
    """Until when the caller is known to be connected (``JobKind.REQUEST``)."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    finalized: int = 0
    """How many utterances are final so far."""

    duration: Seconds | None = None
    """The duration of the recording; None until the job has succeeded."""

    timings: tuple[Timing, ...] = ()
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A recorded event of a job: a new state, or a final utterance."""

    number: int
    """The number of the event within the job, from 1, in order."""

    kind: str
    """Either ``state`` or ``utterance``."""

    at: datetime
    state: JobState | None = None
    index: int | None = None
    """The index of the utterance, from 0."""

    utterance: Utterance | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Criteria for jobs. Fields that are None or empty match all jobs."""

    owner: str | None = None
    states: tuple[JobState, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    """The job must have all of these labels."""

    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs, newest first."""

    jobs: tuple[Job, ...]
    cursor: str | None = None
    """The cursor of the next page; None if this is the last page."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The maximum numbers of unfinished jobs (``JobKind.JOB``), in total and for one owner."""

    all: int
    owner: int
    stored_bytes: int | None = None
    """The maximum size of the stored recordings of an owner whose API key has no limit of its own; None means any."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The length of one queue."""

    queue: str
    depth: int
    """How many jobs wait in the queue."""

    oldest_at: datetime | None
    """When the job that has waited longest was created; None if the queue is empty."""


WORKER_STATES = ("ready", "loading", "error")
"""The states of a worker, best first."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The last report of a worker about itself."""

    worker: str
    pid: int
    state: str
    """One of ``WORKER_STATES``."""

    models: tuple[ModelInfo, ...]
    errors: tuple[str, ...]
    reported_at: datetime
    device: str = ""
    """The device that the engine runs on; empty until the engine is loaded."""

    queues: tuple[str, ...] = ()
    """The queues that the worker claims jobs from; empty if it claims any job."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The combined status of all workers."""

    state: str
    """The best state of any worker: ``ready``, ``loading`` or ``error``."""

    models: tuple[ModelInfo, ...]
    """The models of a worker in that state. All workers have the same models."""

    errors: tuple[str, ...]
    """The errors of all workers, each once. There may be some even if the state is ``ready``."""

    workers: tuple[WorkerReport, ...] = ()
    """The reports of all workers, sorted by name."""

    @classmethod
    def from_reports(cls, reports: Iterable[WorkerReport]) -> PoolStatus:
        """Combine the reports of all workers; without any report the state is ``loading``."""
        workers = tuple(sorted(reports, key=lambda report: report.worker))
        state = min((report.state for report in workers), key=WORKER_STATES.index, default="loading")
        models = (report.models for report in workers if report.state == state)
        errors = dict.fromkeys(error for report in workers for error in report.errors)
        return cls(state, next(filter(None, models), ()), tuple(errors), workers)

    @property
    def device(self) -> str | None:
        """The devices that the loaded engines run on, each once; None if no engine is loaded."""
        return ", ".join(dict.fromkeys(report.device for report in self.workers if report.device)) or None
