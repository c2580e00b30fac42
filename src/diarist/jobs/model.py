"""What a job is, and what is told of it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

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


class JobKind(StrEnum):
    """Who waits for a job."""

    REQUEST = "request"
    """A caller who holds the line: it goes before all jobs, is not tried again, and is gone when the caller is."""
    JOB = "job"
    """Nobody: it stays until its time is over, and its caller comes back for it."""


PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""What a caller may call them; higher ones are taken first."""

ANY_QUEUE = "any"
"""The queue of jobs that any worker may take."""

QUEUES = (ANY_QUEUE, "cpu", "gpu", "embedded", "nemo")
"""Where a job may wait: for any worker, for one on a kind of device, or for one with an engine."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: a code of ``diarist.errors`` and the words for the user."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a caller asks for, beside the recording."""

    options: TranscribeOptions = field(default_factory=TranscribeOptions)
    filename: str = ""
    """As the caller named it: for people, never for paths."""

    request_id: str = ""
    owner: str = ""
    """The id of the API key that it came with; empty where there are no keys."""

    kind: JobKind = JobKind.REQUEST
    queue: str = ANY_QUEUE
    priority: int = 0
    """One of ``PRIORITIES``."""

    labels: tuple[tuple[str, str], ...] = ()
    """The caller's own, by name."""

    webhook_url: str | None = None
    """Who is told of the end."""

    source_url: str | None = None
    """Where the recording is fetched from; None where it was sent."""

    idempotency_key: str | None = None
    """A second order of the same owner with the same key is the first one."""

    fingerprint: str = ""
    """Of the whole order, where it has an idempotency key: a second one that differs is a mistake."""

    traceparent: str | None = None
    """The trace that the order belongs to, as W3C Trace Context writes it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recording on its way. Times are aware, in UTC."""

    id: str
    """Cannot be guessed: 128 random bits, URL-safe."""

    state: JobState
    spec: JobSpec
    created_at: datetime
    size_bytes: int = 0
    """Of the recording; 0 until it is there."""

    ready: bool = True
    """The recording is there: it may be worked on."""

    recording: bool = True
    """The recording has not been removed yet."""

    stage: str = "queued"
    progress: float = 0.0
    """Of the whole job, 0..1; never falls while one worker holds it."""

    attempts: int = 0
    """How often it was begun, without those that were given back."""

    worker_crashes: int = 0
    """How many workers died while they worked on it."""

    service_crashes: int = 0
    """How often the whole service died while it was worked on, which may be no fault of the job's."""

    not_before: datetime | None = None
    """Until then it waits, after a fault of the service."""

    worker: str | None = None
    lease_until: datetime | None = None
    caller_lease_until: datetime | None = None
    """Until when its caller certainly holds the line (``JobKind.REQUEST``)."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    finalized: int = 0
    """How many utterances are final already."""

    duration: Seconds | None = None
    """Of the recording, once it is done."""

    timings: tuple[Timing, ...] = ()
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job and is kept: a new state, or an utterance that is final."""

    number: int
    """From 1, in order, within the job."""

    kind: str
    """``state`` or ``utterance``."""

    at: datetime
    state: JobState | None = None
    index: int | None = None
    """Of the utterance, from 0."""

    utterance: Utterance | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are wanted; what is None or empty asks for all."""

    owner: str | None = None
    states: tuple[JobState, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    """All of them must be the job's."""

    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first, and where the next page begins."""

    jobs: tuple[Job, ...]
    cursor: str | None = None
    """What to ask the next page with; None where this is the last."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many unfinished jobs (``JobKind.JOB``) there may be."""

    all: int
    owner: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How one queue is."""

    queue: str
    depth: int
    """Jobs that wait in it."""

    oldest_at: datetime | None
    """When the one that has waited longest was created."""


WORKER_STATES = ("ready", "loading", "error")
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

    queues: tuple[str, ...] = ()
    """Those that it serves; empty where it takes any job."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
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
    def from_reports(cls, reports: Iterable[WorkerReport]) -> PoolStatus:
        """Of the reports of all workers; ``loading`` where there is none yet."""
        workers = tuple(sorted(reports, key=lambda report: report.worker))
        state = min((report.state for report in workers), key=WORKER_STATES.index, default="loading")
        models = (report.models for report in workers if report.state == state)
        errors = dict.fromkeys(error for report in workers for error in report.errors)
        return cls(state, next(filter(None, models), ()), tuple(errors), workers)

    @property
    def device(self) -> str | None:
        """What the engines that are loaded run on, each device once; None where none is."""
        return ", ".join(dict.fromkeys(report.device for report in self.workers if report.device)) or None
