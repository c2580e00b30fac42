"""Pydantic models of requests, from which both validation and the OpenAPI document are derived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from apiflask.fields import UploadFile
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

from diarist.api.subtitle_fields import SubtitleFields
from diarist.errors import InvalidOption
from diarist.formats.speaker_names import parse_speaker_names
from diarist.formats.subtitle_options import SUBTITLE_FORMATS
from diarist.languages import DETECT, LANGUAGES, TAG, parse_language
from diarist.tracks import MAX_TRACK_DIGITS, PartialMode, TrackMode
from diarist.types import MAX_SPEAKERS, SpeakerHints, TranscribeOptions

SpeakerCount: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SPEAKERS)] | SkipJsonSchema[None]
TrackNumber: TypeAlias = Annotated[int, Field(ge=1, lt=10**MAX_TRACK_DIGITS)]
FormatName: TypeAlias = Literal["json", "txt", "srt", "vtt", "rttm"]
"""The keys of ``diarist.formats.FORMATS``; a test checks that they are the same."""


def _accepted_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return the check that a parser accepts a text, which is kept as it was given."""

    def check(text: str) -> str:
        try:
            parse(text)
        except InvalidOption as error:
            raise ValueError(str(error)) from error
        return text

    return AfterValidator(check)


Language: TypeAlias = Annotated[
    str,
    _accepted_by(parse_language),
    Field(
        json_schema_extra={
            "anyOf": [{"type": "string", "pattern": f"^{TAG}$"}, {"type": "string", "enum": [DETECT, *LANGUAGES]}]
        }
    ),
]


SpeakerNames: TypeAlias = Annotated[str, _accepted_by(parse_speaker_names)]

MAX_SHOWN_CHARS = 80
"""The maximum length of an invalid value in an error message."""


class Form(BaseModel):
    """A form or query string with text fields. An empty field counts as not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, form: Any) -> Any:
        if not isinstance(form, dict):
            return form
        return {name: value for name, value in form.items() if not (isinstance(value, str) and not value.strip())}


class WorkForm(Form):
    """The options of a transcription."""

    num_speakers: SpeakerCount = None
    """The number of speakers, if it is known: a whole number from 1 to 100."""

    min_speakers: SpeakerCount = None
    """The minimum number of speakers: a whole number from 1 to 100."""

    max_speakers: SpeakerCount = None
    """The maximum number of speakers: a whole number from 1 to 100."""

    language: Language | SkipJsonSchema[None] = None
    """The spoken language: a code or tag such as `en`, `en-US` or `zh-Hant`, or an English name such as `German`, in
    upper or lower case. If it is `auto` or not given, the language is detected."""

    channels: Literal["mix", "separate", "auto"] = "mix"
    """`mix` downmixes all channels to one. `separate` treats each channel as one speaker; the numbers of speakers must
    then not be given. `auto` chooses by the sound of the recording."""

    track: TrackNumber | TrackMode | SkipJsonSchema[None] = None
    """The audio track to transcribe: its number, from 1; `default`, the default track of the file; `best`, the track
    with most speech; or `all`, which treats each track as one speaker, so that neither the numbers of speakers nor
    `channels=separate` must be given. If it is not given, the default track is used, or another one if it is silent."""

    partial: PartialMode = "refuse"
    """What to do with a recording that was cut off: `refuse` it, or `accept` and transcribe what there is of it."""

    def options(self) -> TranscribeOptions:
        """Return the options. Raise ``InvalidOption`` if fields contradict each other."""
        return TranscribeOptions(
            hints=SpeakerHints(self.num_speakers, self.min_speakers, self.max_speakers),
            language=self.language,
            channels=self.channels,
            track=self.track,
            partial=self.partial,
        )


class RenderForm(SubtitleFields, Form):
    """The format and the details of a result."""

    words: bool = False
    """`true` adds the individual words to each segment, with their times and confidences."""

    details: bool = False
    """`true` adds details of the recording and its processing: speakers, language, models and times. Only for json."""

    format: FormatName = "json"
    """The format of the response: json, txt, srt, vtt or rttm."""

    speaker_names: SpeakerNames | SkipJsonSchema[None] = None
    """The names of the speakers in the order in which they first speak, separated by commas, such as `Anna,Ben`; a name
    that contains a comma is quoted. No name may be empty or given twice. Other speakers keep their labels."""

    def names(self) -> tuple[str, ...]:
        """Return the names of the speakers."""
        return parse_speaker_names(self.speaker_names) if self.speaker_names else ()

    def check_format(self) -> None:
        """Raise ``InvalidOption`` if the format cannot contain what is requested, or fields contradict each other."""
        if self.details and self.format != "json":
            raise InvalidOption(f"details=true needs format=json: {self.format} cannot contain details.")
        if self.subtitle_fields and self.format not in SUBTITLE_FORMATS:
            raise InvalidField(
                f"{self.subtitle_fields[0]} needs format={' or format='.join(SUBTITLE_FORMATS)}: {self.format} has no "
                "subtitles.",
                self.subtitle_fields[0],
            )
        self.subtitles()


class DiarizeQuery(RenderForm, WorkForm):
    """The query of ``POST /diarize``, which may contain every field of the form except the recording."""


Recording: TypeAlias = Annotated[UploadFile | SkipJsonSchema[None], Field(json_schema_extra={"minLength": 1})]


class DiarizeForm(DiarizeQuery):
    """The form of ``POST /diarize``. An empty text field counts as not given."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["audio"]}, {"required": ["file"]}]})

    audio: Recording = None
    """The recording, in any common audio or video format."""

    file: Recording = None
    """An alias of `audio`, for clients that use this name."""

    def recording(self) -> UploadFile:
        """Return the recording of a form that ``check_form`` accepted."""
        recording = self.audio or self.file
        assert recording is not None
        return recording


class InvalidField(InvalidOption):
    """A field or parameter is invalid. ``param`` is its name."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


AnyForm = TypeVar("AnyForm", bound=WorkForm)


def with_query(form: AnyForm, query: WorkForm) -> AnyForm:
    """Return ``form`` with the fields that the query gives. Raise ``InvalidField`` if both give the same field."""
    repeated = sorted(form.model_fields_set & query.model_fields_set)
    if repeated:
        raise InvalidField(
            f"Each field may be given once; given in both the query and the body: {', '.join(map(repr, repeated))}.",
            repeated[0],
        )
    return form.model_copy(update={name: getattr(query, name) for name in query.model_fields_set})


def to_invalid_field(error: ValidationError) -> InvalidField:
    """Return the error for a form that failed validation. Its message describes the fields that are wrong."""
    fields = _fields(error.title)
    messages: dict[str, str] = {}
    for details in error.errors():
        name = str(details["loc"][0]) if details["loc"] else "form"
        field = fields.get(name)
        if field is not None and details["type"] == "missing":
            messages[name] = f"{name} is missing. Description of the field: {field.description}"
        elif field is not None:
            messages[name] = (
                f"{name} cannot be {_shorten(details['input'])}. Description of the field: {field.description}"
            )
        elif details["type"] == "extra_forbidden":
            messages[name] = f"There is no field {_shorten(name)}. The fields are {', '.join(fields)}."
        else:
            messages[name] = f"The body cannot be parsed: {details['msg']}. It must be a JSON object of fields."
    return InvalidField(" ".join(messages.values()), next((name for name in messages if name in fields), None))


def _fields(title: str) -> Mapping[str, FieldInfo]:
    """Return the fields of the form with this class name."""
    forms = list[type[Form]]([Form])
    for form in forms:
        forms.extend(form.__subclasses__())
    return next((form.model_fields for form in forms if form.__name__ == title), {})


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
