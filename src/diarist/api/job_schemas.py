"""Pydantic models of the requests and responses of ``/v1/jobs``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias, cast

from apiflask.fields import UploadFile
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import from_json

from diarist.api.request_schemas import Form, RenderForm, WorkForm
from diarist.errors import InvalidOption
from diarist.jobs.db.outbox import Delivery
from diarist.jobs.model import PRIORITIES, Job, JobSpec, JobState, option_fields
from diarist.outbound.urls import MAX_URL_CHARS
from diarist.tracks import PartialMode, TrackMode

MAX_LABELS = 16
MAX_LABEL_CHARS = 255
PAGE_JOBS = 20
MAX_PAGE_JOBS = 100

StateName: TypeAlias = Literal["queued", "running", "succeeded", "failed", "canceled"]
"""The values of ``JobState``; a test checks that they are the same."""

PriorityName: TypeAlias = Literal["low", "normal", "high"]
"""The keys of ``PRIORITIES``; a test checks that they are the same."""

QueueName: TypeAlias = Literal["any", "cpu", "gpu", "embedded", "nemo"]
"""The items of ``QUEUES``; a test checks that they are the same."""

_PRIORITY_NAMES = {number: cast("PriorityName", name) for name, number in PRIORITIES.items()}

LABEL_NAME = r"[A-Za-z0-9_.-]{1,64}"
LabelName: TypeAlias = Annotated[str, Field(pattern=f"^{LABEL_NAME}$")]
LabelValue: TypeAlias = Annotated[str, Field(max_length=MAX_LABEL_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")]


Url: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_URL_CHARS, json_schema_extra={"format": "uri", "pattern": "^https?://"})
]
"""A URL. ``check_url`` checks the rest, and its errors explain what is wrong."""

Labels: TypeAlias = Annotated[dict[LabelName, LabelValue], Field(max_length=MAX_LABELS)]


class JobForm(WorkForm):
    """The fields of a new job, except those of the recording."""

    webhook_url: Url | SkipJsonSchema[None] = None
    """The URL that receives a signed POST when the job ends: an http or https URL with a public address."""

    labels: Labels = Field(default_factory=dict)
    """Labels by which the job can be found, as a JSON object of strings: at most 16, with names of up to 64 letters,
    digits, `_`, `.` and `-`, and values of up to 255 characters."""

    priority: PriorityName = "normal"
    """`low`, `normal` or `high`: queued jobs with a higher priority start first."""

    queue: QueueName = "any"
    """Which workers may process the job: `any`, those on a `cpu` or a `gpu`, or those with the engine `embedded` or
    `nemo`. If no worker serves the queue, the job waits until one does."""


class NewJobQuery(JobForm):
    """The query of a new job, which may contain every field of the form except the recording."""

    url: Url | SkipJsonSchema[None] = None
    """The URL from which the recording is downloaded, instead of a file: an http or https URL with a public address."""

    @field_validator("labels", mode="before")
    @classmethod
    def _read_labels(cls, value: Any) -> Any:
        """Parse the labels of a form, which are JSON in a text field."""
        return from_json(value) if isinstance(value, str) else value


class NewJob(NewJobQuery):
    """A new job as a form: the recording in `audio` (or `file`), or its URL in `url`."""

    audio: UploadFile | SkipJsonSchema[None] = None
    """The recording, in any common audio or video format."""

    file: UploadFile | SkipJsonSchema[None] = None
    """An alias of `audio`, for clients that use this name."""


class NewJobByUrl(JobForm):
    """A new job as JSON: the recording is downloaded from `url`."""

    model_config = ConfigDict(strict=True)

    url: Url
    """The URL from which the recording is downloaded: an http or https URL with a public address."""


def fingerprint(spec: JobSpec, recording: str) -> str:
    """Return a hash of everything that a job spec requests, except the file name: 64 hexadecimal digits.

    ``recording`` is the SHA-256 of the uploaded recording in hexadecimal, or an empty string if there is no upload.
    """
    requested = [
        option_fields(spec.options), spec.queue, spec.priority, sorted(spec.labels), spec.webhook_url, spec.source_url,
        recording,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(requested).encode()).hexdigest()


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


LabelPair: TypeAlias = Annotated[str, Field(pattern=rf"^{LABEL_NAME}:[^\x00-\x1f\x7f,]{{0,{MAX_LABEL_CHARS}}}$")]


States: TypeAlias = Annotated[list[StateName], Field(max_length=len(JobState)), BeforeValidator(_split)]


def _refuse_number(value: str) -> str:
    try:
        float(value)
    except ValueError:
        return value
    raise ValueError("a number is not a time")


Time: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_refuse_number)]
"""A time in RFC 3339 format. Pydantic would also accept a number of seconds or milliseconds."""


class JobsQuery(Form):
    """The filters and the page of a list of jobs."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_JOBS)] = PAGE_JOBS
    """The maximum number of jobs on a page: a whole number from 1 to 100."""

    cursor: Annotated[str, Field(max_length=512)] | SkipJsonSchema[None] = None
    """The start of the page: `next_cursor` of the previous page."""

    state: States = Field(default_factory=list)
    """Only jobs in one of these states, separated by commas: queued, running, succeeded, failed, canceled."""

    label: Annotated[list[LabelPair], Field(max_length=MAX_LABELS), BeforeValidator(_split)] = Field(
        default_factory=list
    )
    """Only jobs with all of these labels: at most 16 `name:value` pairs, separated by commas."""

    created_after: Time | SkipJsonSchema[None] = None
    """Only jobs created after this time, in RFC 3339 format, for example 2026-01-31T12:00:00Z."""

    created_before: Time | SkipJsonSchema[None] = None
    """Only jobs created before this time, in RFC 3339 format, for example 2026-01-31T12:00:00Z."""

    def labels(self) -> tuple[tuple[str, str], ...]:
        pairs = (text.partition(":") for text in self.label)
        return tuple((name, value) for name, _, value in pairs)


class ResultQuery(RenderForm):
    """The format and the details of the result of a job."""

    partial: bool = False
    """`true` returns the utterances that are already final if the job has not ended yet; the response then has the
    header `Diarist-Partial: true`."""

    def check(self, *, complete: bool) -> None:
        """Raise ``InvalidOption`` if the fields contradict each other, or need a result that is ``complete``."""
        self.check_format()
        if self.details and not complete:
            raise InvalidOption("details=true needs the complete result: request it after the job has succeeded.")


class EventsQuery(Form):
    """The start and the content of a stream of events."""

    after: Annotated[int, Field(ge=0, lt=2**31)] | SkipJsonSchema[None] = None
    """The ID of the last event that the client has received. The header `Last-Event-ID` takes precedence."""

    words: bool = False
    """`true` adds the individual words to each utterance, with their times and confidences."""


class JobFault(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class JobAsked(BaseModel):
    """The options of the transcription."""

    num_speakers: int | None
    min_speakers: int | None
    max_speakers: int | None
    language: str | None
    channels: Literal["mix", "separate", "auto"]
    track: int | TrackMode | None
    partial: PartialMode


class JobLinks(BaseModel):
    """The paths of the URLs of the job."""

    self: str
    result: str
    events: str
    cancel: str


class JobView(BaseModel):
    """A job, which transcribes one recording."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    id: str
    object: Literal["job"] = "job"
    state: StateName
    stage: str
    """The current stage: `queued` until the job starts, then the names in `timings`, and `done` at the end."""

    progress: Annotated[float, Field(ge=0, le=1)]
    """The completed fraction of the whole job."""

    eta_s: Annotated[float, Field(ge=0)] | None
    """The estimated time in seconds until the job ends; null if there is no estimate."""

    queue_position: Annotated[int, Field(ge=1)] | None
    """The position in the queue, 1 for the job that starts next; null if the job is not queued."""

    attempts: Annotated[int, Field(ge=0)]
    """How many times the job was started."""

    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    duration: Annotated[float, Field(ge=0)] | None
    """The duration of the recording in seconds, after the job has succeeded."""

    timings: dict[str, float]
    """The duration of each stage in seconds, after the job has succeeded."""

    error: JobFault | None
    """Why the job failed; null if it did not."""

    utterances: Annotated[int, Field(ge=0)]
    """The number of utterances that are already final."""

    labels: dict[str, str]
    priority: PriorityName
    queue: QueueName
    filename: str
    """The file name of the recording: that of the upload, or that of the download once it is complete."""

    size_bytes: Annotated[int, Field(ge=0)]
    """The size of the recording in bytes; 0 until it has been downloaded."""

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
                track=spec.options.track,
                partial=spec.options.partial,
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
    """The `cursor` of the next page; null if this is the last one. The header `Link` has the URL of the next page."""


class DeliveryView(BaseModel):
    """One attempt to deliver the webhook of a job."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    attempt: int
    """The number of the attempt, from 1."""

    at: datetime
    status: int | None
    """The HTTP status of the response of the receiver; null if there was no response."""

    error: str | None
    """Why the attempt failed; null if it succeeded."""

    took_s: float
    next_at: datetime | None
    """The time of the next attempt; null if there is none."""

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryView:
        return cls(
            attempt=delivery.attempt, at=delivery.at, status=delivery.status, error=delivery.error,
            took_s=round(delivery.took_s, 3), next_at=delivery.next_at,
        )  # fmt: skip


class DeliveryList(BaseModel):
    """The attempts to deliver the webhook of a job, oldest first."""

    object: Literal["list"] = "list"
    data: list[DeliveryView]
