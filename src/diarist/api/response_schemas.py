"""Pydantic models of responses, from which the OpenAPI document is derived."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from diarist.channels import ChannelReason


class SpokenWord(BaseModel):
    """A word of a segment. The concatenated texts of the words are the text of the segment."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: str
    """The word, including the white space before it."""

    start_time: float
    """The time at which the word starts, in seconds from the start of the recording, to the millisecond."""

    end_time: float
    """The time at which the word ends, in seconds from the start of the recording, to the millisecond."""

    confidence: Annotated[float, Field(ge=0, le=1)] | None
    """The probability of the word according to the recognizer; null if it provides none."""

    speaker_confidence: Annotated[float, Field(ge=0, le=1)] | None
    """The probability that this speaker said the word; null if there is none."""


class Segment(BaseModel):
    """An utterance: what one speaker says without interruption."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    speaker: str
    """The speaker: a name of `speaker_names`, or else a label, which is SPEAKER_00, SPEAKER_01 and so on, in the order
    in which they first speak."""

    start_time: float
    """The time at which the segment starts, in seconds from the start of the recording, to the millisecond."""

    end_time: float
    """The time at which the segment ends, in seconds from the start of the recording, to the millisecond."""

    text: str
    words: list[SpokenWord] | SkipJsonSchema[None] = None
    """The words of the segment; only with `words=true`."""


class ChannelsUsed(BaseModel):
    """How the channels of the recording were used."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    requested: Literal["mix", "separate", "auto"]
    """The value of the field `channels` of the request."""

    used: Literal["mix", "separate", "single"]
    """`mix`: the mix of all channels. `separate`: each channel as one speaker. `single`: the one channel that contains
    all sound."""

    reason: ChannelReason
    """Why: on request, or by what `auto` found in the channels."""


class StageTime(BaseModel):
    """The duration of one stage of the processing."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    seconds: Annotated[float, Field(ge=0)]


class AudioTracksView(BaseModel):
    """The audio tracks of the file."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    used: list[Annotated[int, Field(ge=1)]]
    """The numbers of the tracks that were transcribed; the first one of the file is 1."""

    count: Annotated[int, Field(ge=1)]
    """The number of audio tracks of the file."""


class TruncationView(BaseModel):
    """How much is left of a recording that was cut off."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    available: Annotated[float, Field(ge=0)]
    """The duration of what is there, and was transcribed, in seconds."""

    stated: Annotated[float, Field(ge=0)]
    """The duration that the header of the file states, in seconds. It is approximate if the header states a size."""


class Conversation(BaseModel):
    """A transcript: segments in order of their start, empty if nobody speaks. The other fields need `details=true`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    conversation: list[Segment]
    duration: Annotated[float, Field(ge=0)] | SkipJsonSchema[None] = None
    """The duration of the recording in seconds, to the millisecond."""

    language: str | None = None
    """The spoken language as an ISO 639-1 code; null if nothing was said."""

    language_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """The probability of the language according to the recognizer; null if it provides none."""

    speakers: list[str] | SkipJsonSchema[None] = None
    """All speakers in the order of their first words, followed by speakers of whom no word was recognized."""

    speakers_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """The probability that the number of speakers is correct; null if the number was given or there is no estimate."""

    engine: str | SkipJsonSchema[None] = None
    diarizer: str | None = None
    """The diarizer that was used."""

    recognizer: str | None = None
    """The speech recognition model that was used."""

    device: str | SkipJsonSchema[None] = None
    """The device that the engine ran on: `cpu`, or a GPU."""

    channels: ChannelsUsed | None = None
    """How the channels of the recording were used; null for transcripts of releases that did not store it."""

    audio_tracks: AudioTracksView | None = None
    """The audio tracks of the file; null for transcripts of earlier releases."""

    truncation: TruncationView | None = None
    """How much is left of a recording that was cut off, with `partial=accept`; null if it was not cut off."""

    warnings: list[str] | SkipJsonSchema[None] = None
    """Sentences about choices that the service made for the recording, such as that of another audio track."""

    timings: list[StageTime] | SkipJsonSchema[None] = None
    """The duration of each stage, in order of the stages."""


class Problem(BaseModel):
    """The body of every error of paths that do not begin with `/v1/`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    error: str
    """A message for people: what is wrong and what to do about it."""

    code: str
    """The code of the error for programs, in lower case with underscores. It does not change."""

    request_id: str
    """The ID of the request, as in the header X-Request-ID and on each log line of this request."""


class Fault(BaseModel):
    """An error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    message: str
    """A message for people: what is wrong and what to do about it."""

    type: Literal[
        "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
    ]
    """The type of the error: whether the request or the service is at fault, and why."""

    param: str | None
    """The name of the invalid field or parameter; null if the error is not about one."""

    code: str
    """The code of the error for programs, in lower case with underscores. It does not change."""


class V1Problem(BaseModel):
    """The body of every error of paths that begin with `/v1/`. The ID of the request is in the header X-Request-ID."""

    model_config = ConfigDict(extra="forbid")

    error: Fault


class ModelState(BaseModel):
    """A model of the engine."""

    name: str
    role: str
    licence: str
    state: Literal["missing", "loading", "ready", "error"]


class WorkerState(BaseModel):
    """One of the worker processes."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    state: Literal["loading", "ready", "error"]
    device: str | None
    """The device that its engine runs on: `cpu`, or a GPU; null until the engine is loaded."""


class JobCounts(BaseModel):
    """The numbers of unfinished jobs."""

    waiting: int
    running: int


class Status(BaseModel):
    """The status of the service."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["loading", "ready", "error"]
    """`ready` if at least one worker is ready; `loading` while models are downloaded or loaded and recordings wait."""

    nemo_components_loaded: bool
    """True exactly when every component of the configured engine is loaded, whichever engine that is."""

    errors: list[str]
    """What is wrong with the job store or any worker, and what to do about it; other workers may be ready. A worker
    that is ready says here why it does not use a GPU that is there."""

    engine: str
    device: str | None
    """The devices that the engines run on, each once; null until an engine is loaded."""

    workers: list[WorkerState]
    models: list[ModelState]
    version: str
    jobs: JobCounts
    age_s: float | None
    """The age of this information in seconds. It is more than a moment if the job store does not answer and the last
    known status is returned; it is null if nothing is known yet."""


class Health(BaseModel):
    """The health of the service, for orchestrators."""

    status: Literal["alive", "ready"]


class NotReady(BaseModel):
    """Why the service is not ready."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["loading", "error", "stopping"]
    reason: str | SkipJsonSchema[None] = None
    """What is wrong; only with the status `error`."""


class About(BaseModel):
    """The name, the version and the paths of the service."""

    name: str
    version: str
    about: str
    links: dict[str, str]
