"""What goes in and out over HTTP, as pydantic models: the source of both the checks and the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from apiflask.fields import UploadFile
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from diarist.errors import InvalidOption
from diarist.types import MAX_SPEAKERS, SpeakerHints, TranscribeOptions

SpeakerCount: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SPEAKERS)] | SkipJsonSchema[None]
FormatName: TypeAlias = Literal["json", "txt", "srt", "vtt", "rttm"]
"""The keys of ``diarist.formats.FORMATS``; a test keeps them in step."""


SHOWN_CHARS = 80
"""How much of a value that is refused is shown to the one who sent it."""


class DiarizeForm(BaseModel):
    """The form of ``POST /diarize``. An empty text field is one that was not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    audio: Annotated[UploadFile, Field(json_schema_extra={"minLength": 1})]
    """The recording, in any common audio or video format."""

    num_speakers: SpeakerCount = None
    """How many people speak, where that is known: a whole number from 1 to 100."""

    min_speakers: SpeakerCount = None
    """How many people speak at the least: a whole number from 1 to 100."""

    max_speakers: SpeakerCount = None
    """How many people speak at the most: a whole number from 1 to 100."""

    language: Annotated[str, Field(pattern="^[A-Za-z]{2,3}$")] | SkipJsonSchema[None] = None
    """The language that is spoken, as an ISO 639 code such as `en`. Left out, it is found from the recording."""

    words: bool = False
    """`true` adds the single words, with times and confidences, to each segment."""

    details: bool = False
    """`true` adds what is known of the recording and of the work: speakers, language, models, times. For json alone."""

    format: FormatName = "json"
    """How the answer is written: json, txt, srt, vtt or rttm."""

    channels: Literal["mix", "separate"] = "mix"
    """`mix` hears all channels as one; `separate` takes each for one speaker, whose number is then left out."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, form: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in form.items() if not (isinstance(value, str) and not value.strip())}

    def options(self) -> TranscribeOptions:
        """Raises ``InvalidOption`` where fields contradict each other."""
        if self.details and self.format != "json":
            raise InvalidOption(f"details=true needs format=json: {self.format} has no place for them")
        return TranscribeOptions(
            hints=SpeakerHints(self.num_speakers, self.min_speakers, self.max_speakers),
            language=self.language.lower() if self.language else None,
            channels=self.channels,
        )


def explain(error: ValidationError) -> str:
    """What is wrong with a form that ``DiarizeForm`` refused, and what each field takes."""
    faults: dict[str, str] = {}
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else "form"
        field = DiarizeForm.model_fields.get(name)
        if field is None:
            faults[name] = f"There is no field {_shorten(name)}; there are {', '.join(DiarizeForm.model_fields)}."
        else:
            faults[name] = f"{name} cannot be {_shorten(fault['input'])}. It says: {field.description}"
    return " ".join(faults.values())


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


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
    """The recogniser's probability; null where it gave none."""

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
    """How sure the recogniser is of it; null where it does not say."""

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
    """Every error of this API."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    error: str
    """What is wrong and what to do about it, for a person."""

    code: str
    """The same for a machine: one lower-case word with underscores, which does not change."""

    request_id: str
    """As in the header X-Request-ID; the service's log has it on each line of this request."""


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
    """What is wrong with any worker, in words that say what to do; the others may be ready."""

    engine: str
    device: str | None
    """What the engines run on, each device once; null until one is loaded."""

    workers: list[WorkerState]
    models: list[ModelState]
    version: str
    jobs: JobCounts


class Health(BaseModel):
    """For orchestrators."""

    status: Literal["alive", "ready", "loading", "error", "stopping"]


class About(BaseModel):
    """What answers here."""

    name: str
    version: str
    about: str
    links: dict[str, str]
