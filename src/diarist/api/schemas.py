"""What goes in and out over HTTP, as pydantic models: the source of both the checks and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from apiflask.fields import UploadFile
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from diarist.errors import InvalidOption
from diarist.types import MAX_SPEAKERS, SpeakerHints, TranscribeOptions

SpeakerCount: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SPEAKERS)] | SkipJsonSchema[None]
FormatName: TypeAlias = Literal["json", "txt", "srt", "vtt", "rttm"]
"""The keys of ``diarist.formats.FORMATS``; a test keeps them in step."""


MAX_SHOWN_CHARS = 80
"""How much of a value that is refused is shown to the one who sent it."""


class Form(BaseModel):
    """What a caller sends, as text. An empty field is one that was not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, form: Any) -> Any:
        if not isinstance(form, dict):
            return form
        return {name: value for name, value in form.items() if not (isinstance(value, str) and not value.strip())}


class WorkForm(Form):
    """What may be asked of the work on a recording."""

    num_speakers: SpeakerCount = None
    """How many people speak, where that is known: a whole number from 1 to 100."""

    min_speakers: SpeakerCount = None
    """How many people speak at the least: a whole number from 1 to 100."""

    max_speakers: SpeakerCount = None
    """How many people speak at the most: a whole number from 1 to 100."""

    language: Annotated[str, Field(pattern="^[A-Za-z]{2,3}$")] | SkipJsonSchema[None] = None
    """The language that is spoken, as an ISO 639 code such as `en`. Left out, it is found from the recording."""

    channels: Literal["mix", "separate"] = "mix"
    """`mix` hears all channels as one; `separate` takes each for one speaker, whose number is then left out."""

    def options(self) -> TranscribeOptions:
        """Raises ``InvalidOption`` where fields contradict each other."""
        return TranscribeOptions(
            hints=SpeakerHints(self.num_speakers, self.min_speakers, self.max_speakers),
            language=self.language.lower() if self.language else None,
            channels=self.channels,
        )


class RenderForm(Form):
    """How a result may be asked for."""

    words: bool = False
    """`true` adds the single words, with times and confidences, to each segment."""

    details: bool = False
    """`true` adds what is known of the recording and of the work: speakers, language, models, times. For json alone."""

    format: FormatName = "json"
    """How the answer is written: json, txt, srt, vtt or rttm."""

    def check_details(self) -> None:
        """Raises ``InvalidOption`` where they are asked for in a format without a place for them."""
        if self.details and self.format != "json":
            raise InvalidOption(f"details=true needs format=json: {self.format} has no place for them")


class DiarizeForm(RenderForm, WorkForm):
    """The form of ``POST /diarize``. An empty text field is one that was not given."""

    audio: Annotated[UploadFile, Field(json_schema_extra={"minLength": 1})]
    """The recording, in any common audio or video format."""


class InvalidField(InvalidOption):
    """A field or parameter that cannot be used, by name."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


def to_invalid_field(error: ValidationError) -> InvalidField:
    """What is wrong with a form that one of the models here refused, and what each field takes."""
    fields = _fields(error.title)
    messages: dict[str, str] = {}
    for details in error.errors():
        name = str(details["loc"][0]) if details["loc"] else "form"
        field = fields.get(name)
        if field is not None and details["type"] == "missing":
            messages[name] = f"{name} is missing. It says: {field.description}"
        elif field is not None:
            messages[name] = f"{name} cannot be {_shorten(details['input'])}. It says: {field.description}"
        elif details["type"] == "extra_forbidden":
            messages[name] = f"There is no field {_shorten(name)}; there are {', '.join(fields)}."
        else:
            messages[name] = (
                f"The body cannot be read: {details['msg']}. It must be one object with the fields by name."
            )
    return InvalidField(" ".join(messages.values()), next((name for name in messages if name in fields), None))


def _fields(title: str) -> Mapping[str, FieldInfo]:
    """The fields of the form that is called so."""
    forms = list[type[Form]]([Form])
    for form in forms:
        forms.extend(form.__subclasses__())
    return next((form.model_fields for form in forms if form.__name__ == title), {})


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


class SpokenWord(BaseModel):
    """A word of a segment; the texts joined give the segment's text."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    text: str
    """With the white space before it."""

    start_time: float
    """Seconds, to the millisecond."""

    end_time: float
    """Seconds, to the millisecond."""

    confidence: Annotated[float, Field(ge=0, le=1)] | None
    """The recognizer's probability; null where it gave none."""

    speaker_confidence: Annotated[float, Field(ge=0, le=1)] | None
    """The probability that the word is this speaker's; null where there is none."""


class Segment(BaseModel):
    """What one speaker says in one go."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    speaker: str
    """SPEAKER_00, SPEAKER_01 ... in the order in which they first speak."""

    start_time: float
    """Seconds from the start of the recording, to the millisecond."""

    end_time: float
    """Seconds from the start of the recording, to the millisecond."""

    text: str
    words: list[SpokenWord] | SkipJsonSchema[None] = None
    """Only where the request asks for it with `words=true`."""


class StageTime(BaseModel):
    """How long one stage of the work took."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    seconds: Annotated[float, Field(ge=0)]


class Conversation(BaseModel):
    """Who said what, when: segments in order of start, empty where nobody speaks. All else only with `details=true`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    conversation: list[Segment]
    duration: Annotated[float, Field(ge=0)] | SkipJsonSchema[None] = None
    """Seconds of the recording, to the millisecond."""

    language: str | None = None
    """What is spoken, as an ISO 639-1 code; null where nothing was said."""

    language_probability: Annotated[float, Field(ge=0, le=1)] | None = None
    """How sure the recognizer is of it; null where it does not say."""

    speakers: list[str] | SkipJsonSchema[None] = None
    """All who speak, in the order of their words; those of whom no word was understood come last."""

    speakers_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """The probability that exactly this many people speak; null where the number was given, or nobody can say."""

    engine: str | SkipJsonSchema[None] = None
    diarizer: str | None = None
    """What told the speakers apart."""

    recognizer: str | None = None
    """The model that found the words."""

    device: str | SkipJsonSchema[None] = None
    """`cpu`, or the GPU."""

    timings: list[StageTime] | SkipJsonSchema[None] = None
    """How long each stage took, in order."""


class Problem(BaseModel):
    """Every error of addresses that do not begin with `/v1/`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    error: str
    """What is wrong and what to do about it, for a person."""

    code: str
    """The same for a machine: one lower-case word with underscores, which does not change."""

    request_id: str
    """As in the header X-Request-ID; the service's log has it on each line of this request."""


class Fault(BaseModel):
    """What is wrong."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    message: str
    """What is wrong and what to do about it, for a person."""

    type: Literal[
        "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
    ]
    """Whose fault it is, and of which kind."""

    param: str | None
    """The field or parameter that is wrong, where it is one."""

    code: str
    """The same for a machine: one lower-case word with underscores, which does not change."""


class V1Problem(BaseModel):
    """Every error of addresses that begin with `/v1/`; the id of the request is in the header X-Request-ID."""

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
    """What its engine runs on: `cpu`, or a GPU; null until that is loaded."""


class JobCounts(BaseModel):
    """How busy the service is."""

    waiting: int
    running: int


class Status(BaseModel):
    """How the service is."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["loading", "ready", "error"]
    """`ready` as soon as one worker is; `loading` while models are fetched or loaded, and recordings wait for them."""

    nemo_components_loaded: bool
    """True exactly when every component of the configured engine is loaded, whichever engine that is."""

    errors: list[str]
    """What is wrong with the job store or any worker, in words that say what to do; the others may be ready."""

    engine: str
    device: str | None
    """What the engines run on, each device once; null until one is loaded."""

    workers: list[WorkerState]
    models: list[ModelState]
    version: str
    jobs: JobCounts
    age_s: float | None
    """How many seconds ago this was so: more than a moment where the job store does not answer, and what was last known
    is told; null where nothing is known yet."""


class Health(BaseModel):
    """For orchestrators."""

    status: Literal["alive", "ready", "loading", "error", "stopping"]


class About(BaseModel):
    """What answers here."""

    name: str
    version: str
    about: str
    links: dict[str, str]
