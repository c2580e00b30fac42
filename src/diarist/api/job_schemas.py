"""What goes in and out of ``/v1/jobs``, as pydantic models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias, cast

from apiflask.fields import UploadFile
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import from_json

from diarist.api.schemas import Form, RenderForm, WorkForm
from diarist.errors import InvalidOption
from diarist.jobs.db.outbox import Delivery
from diarist.jobs.model import PRIORITIES, Job, JobSpec, JobState
from diarist.outbound.urls import MAX_URL_CHARS

MAX_LABELS = 16
MAX_LABEL_CHARS = 255
PAGE_JOBS = 20
MAX_PAGE_JOBS = 100

StateName: TypeAlias = Literal["queued", "running", "succeeded", "failed", "canceled"]
"""The values of ``JobState``; a test keeps them in step."""

PriorityName: TypeAlias = Literal["low", "normal", "high"]
"""The keys of ``PRIORITIES``; a test keeps them in step."""

QueueName: TypeAlias = Literal["any", "cpu", "gpu", "embedded", "nemo"]
"""Those of ``QUEUES``; a test keeps them in step."""

_PRIORITY_NAMES = {number: cast("PriorityName", name) for name, number in PRIORITIES.items()}

LABEL_NAME = r"[A-Za-z0-9_.-]{1,64}"
LabelName: TypeAlias = Annotated[str, Field(pattern=f"^{LABEL_NAME}$")]
LabelValue: TypeAlias = Annotated[str, Field(max_length=MAX_LABEL_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")]


Url: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_URL_CHARS, json_schema_extra={"format": "uri", "pattern": "^https?://"})
]
"""What else it must be, ``check_url`` tells in words."""

Labels: TypeAlias = Annotated[dict[LabelName, LabelValue], Field(max_length=MAX_LABELS)]


class JobForm(WorkForm):
    """What may be asked of a job, whichever way its recording comes."""

    webhook_url: Url | SkipJsonSchema[None] = None
    """Where the end of the job is told, by a signed POST: an http or https URL with a public address."""

    labels: Labels = Field(default_factory=dict)
    """A JSON object of texts, to find the job again: at most 16, with names of up to 64 letters, digits, `_`, `.` and
    `-`, and values of up to 255 characters."""

    priority: PriorityName = "normal"
    """`low`, `normal` or `high`: of the jobs that wait, higher ones are taken first."""

    queue: QueueName = "any"
    """Which workers may take the job: `any`, those on a `cpu` or a `gpu`, or those with the engine `embedded` or
    `nemo`. In a queue that no worker serves it waits for one."""


class NewJob(JobForm):
    """A new job as a form: the recording in `audio` (or `file`), or its address in `url`."""

    audio: UploadFile | SkipJsonSchema[None] = None
    """The recording, in any common audio or video format."""

    file: UploadFile | SkipJsonSchema[None] = None
    """The same as `audio`, for clients that call it so."""

    url: Url | SkipJsonSchema[None] = None
    """Where the recording is fetched from, in place of a file: an http or https URL with a public address."""

    @field_validator("labels", mode="before")
    @classmethod
    def _read_labels(cls, value: Any) -> Any:
        """A form has only text for them."""
        return from_json(value) if isinstance(value, str) else value


class NewJobByUrl(JobForm):
    """A new job as JSON: the recording is fetched from `url`."""

    model_config = ConfigDict(strict=True)

    url: Url
    """Where the recording is fetched from: an http or https URL with a public address."""


def fingerprint(spec: JobSpec, recording: str) -> str:
    """Of all that a job spec asks for, but not of how the file was called: 64 hexadecimal digits.

    ``recording`` stands for the bytes that were sent: their SHA-256, or nothing where none were.
    """
    requested = [
        asdict(spec.options), spec.queue, spec.priority, sorted(spec.labels), spec.webhook_url, spec.source_url,
        recording,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(requested).encode()).hexdigest()


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


LabelPair: TypeAlias = Annotated[str, Field(pattern=rf"^{LABEL_NAME}:[^\x00-\x1f\x7f,]{{0,{MAX_LABEL_CHARS}}}$")]


States: TypeAlias = Annotated[list[StateName], Field(max_length=len(JobState)), BeforeValidator(_split)]


class JobsQuery(Form):
    """Which jobs are listed."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_JOBS)] = PAGE_JOBS
    """How many at the most: a whole number from 1 to 100."""

    cursor: Annotated[str, Field(max_length=512)] | SkipJsonSchema[None] = None
    """Where to go on: `next_cursor` of the page before."""

    state: States = Field(default_factory=list)
    """States with commas between them: queued, running, succeeded, failed, canceled."""

    label: Annotated[list[LabelPair], Field(max_length=MAX_LABELS), BeforeValidator(_split)] = Field(
        default_factory=list
    )
    """Labels that the job must have, all of them: at most 16 `name:value` pairs with commas between them."""

    created_after: AwareDatetime | SkipJsonSchema[None] = None
    """Only those created after this moment, as RFC 3339 writes it: 2026-01-31T12:00:00Z."""

    created_before: AwareDatetime | SkipJsonSchema[None] = None
    """Only those created before this moment, likewise."""

    def labels(self) -> tuple[tuple[str, str], ...]:
        pairs = (text.partition(":") for text in self.label)
        return tuple((name, value) for name, _, value in pairs)


class ResultQuery(RenderForm):
    """How the result of a job is wanted."""

    partial: bool = False
    """`true` gives what is final so far where the job has not ended yet; the answer then has the header
    `Diarist-Partial: true`."""

    def check(self, *, whole: bool) -> None:
        """Raises ``InvalidOption`` where the fields contradict each other, or the result is not ``whole``."""
        self.check_details()
        if self.details and not whole:
            raise InvalidOption("details=true needs the whole result: ask for it when the job has succeeded.")


class EventsQuery(Form):
    """Where the events of a job begin."""

    after: Annotated[int, Field(ge=0, lt=2**31)] | SkipJsonSchema[None] = None
    """The id of the last event that is known already; the header `Last-Event-ID` says the same and comes first."""

    words: bool = False
    """`true` adds the single words, with times and confidences, to each utterance."""


class JobFault(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class JobAsked(BaseModel):
    """What was asked of the work."""

    num_speakers: int | None
    min_speakers: int | None
    max_speakers: int | None
    language: str | None
    channels: Literal["mix", "separate"]


class JobLinks(BaseModel):
    """Addresses of this job."""

    self: str
    result: str
    events: str
    cancel: str


class JobView(BaseModel):
    """A job: a recording on its way to a transcript."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    id: str
    object: Literal["job"] = "job"
    state: StateName
    stage: str
    """What is done now: `queued` until it is begun, then the names in `timings`, `done` at the end."""

    progress: Annotated[float, Field(ge=0, le=1)]
    """Of the whole job."""

    eta_s: Annotated[float, Field(ge=0)] | None
    """Seconds until it has probably ended; null where nobody can say."""

    queue_position: Annotated[int, Field(ge=1)] | None
    """1 for the next; null where it does not wait."""

    attempts: Annotated[int, Field(ge=0)]
    """How often it was begun."""

    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    duration: Annotated[float, Field(ge=0)] | None
    """Seconds of the recording, once they are known."""

    timings: dict[str, float]
    """Seconds that each stage took, once the job has succeeded."""

    error: JobFault | None
    """Why it failed."""

    utterances: Annotated[int, Field(ge=0)]
    """How many are final already."""

    labels: dict[str, str]
    priority: PriorityName
    queue: QueueName
    filename: str
    """As its sender called it."""

    size_bytes: Annotated[int, Field(ge=0)]
    """Of the recording; 0 until it was fetched."""

    source_url: str | None
    webhook_url: str | None
    options: JobAsked
    links: JobLinks

    @classmethod
    def of(cls, job: Job, position: int | None = None, eta_s: float | None = None) -> JobView:
        spec, hints = job.spec, job.spec.options.hints
        url = f"/v1/jobs/{job.id}"
        return cls(
            id=job.id,
            state=job.state.value,
            stage=job.stage,
            progress=min(max(round(job.progress, 4), 0.0), 1.0),
            eta_s=None if eta_s is None else max(round(eta_s, 1), 0.0),
            queue_position=position if job.state is JobState.QUEUED else None,
            attempts=job.attempts,
            created_at=job.created_at,
            started_at=job.started_at,
            ended_at=job.ended_at,
            duration=None if job.duration is None else round(job.duration, 3),
            timings=_seconds_by_stage((timing.stage, timing.seconds) for timing in job.timings),
            error=None if job.error is None else JobFault(code=job.error.code, message=job.error.message),
            utterances=job.finalized,
            labels=dict(spec.labels),
            priority=_PRIORITY_NAMES[spec.priority],
            queue=spec.queue,  # type: ignore[arg-type]
            filename=spec.filename,
            size_bytes=job.size_bytes,
            source_url=spec.source_url,
            webhook_url=spec.webhook_url,
            options=JobAsked(
                num_speakers=hints.num_speakers,
                min_speakers=hints.min_speakers,
                max_speakers=hints.max_speakers,
                language=spec.options.language,
                channels=spec.options.channels,
            ),
            links=JobLinks(self=url, result=f"{url}/result", events=f"{url}/events", cancel=f"{url}/cancel"),
        )


def _seconds_by_stage(timings: Iterable[tuple[str, float]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for stage, seconds in timings:
        totals[stage] = round(totals.get(stage, 0.0) + seconds, 3)
    return totals


class JobList(BaseModel):
    """A page of jobs, newest first."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    object: Literal["list"] = "list"
    data: list[JobView]
    next_cursor: str | None
    """What to ask the next page with; null where this is the last. The header `Link` has its address."""


class DeliveryView(BaseModel):
    """One attempt to tell the webhook of a job of its end."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    attempt: int
    """From 1."""

    at: datetime
    status: int | None
    """What the receiver answered; null where no answer came."""

    error: str | None
    """Why it counts as failed; null where it does not."""

    took_s: float
    next_at: datetime | None
    """When it is tried again; null where it is not."""

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryView:
        return cls(
            attempt=delivery.attempt, at=delivery.at, status=delivery.status, error=delivery.error,
            took_s=round(delivery.took_s, 3), next_at=delivery.next_at,
        )  # fmt: skip


class DeliveryList(BaseModel):
    """The deliveries of a job's webhook, oldest first."""

    object: Literal["list"] = "list"
    data: list[DeliveryView]
