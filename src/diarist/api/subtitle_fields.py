"""The fields of requests that select the limits and labels of subtitles."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from diarist.formats import subtitle_options as limits
from diarist.formats.subtitle_options import DashStyle, LabelMode, PresetName, SubtitleOptions


def _within(allowed: limits.Range) -> object:
    return Field(ge=allowed.minimum, le=allowed.maximum)


MaxChars: TypeAlias = Annotated[int, _within(limits.MAX_CHARS)] | SkipJsonSchema[None]
MaxLines: TypeAlias = Annotated[int, _within(limits.MAX_LINES)] | SkipJsonSchema[None]
MinDuration: TypeAlias = Annotated[float, _within(limits.MIN_DURATION)] | SkipJsonSchema[None]
MaxDuration: TypeAlias = Annotated[float, _within(limits.MAX_DURATION)] | SkipJsonSchema[None]
ReadingSpeed: TypeAlias = Annotated[float, _within(limits.READING_SPEED)] | SkipJsonSchema[None]
Gap: TypeAlias = Annotated[float, _within(limits.GAP)] | SkipJsonSchema[None]


class SubtitleFields(BaseModel):
    """The options of subtitles. They are refused with other formats than srt and vtt."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    subtitle_preset: PresetName | SkipJsonSchema[None] = None
    """The values of a broadcaster for all options of subtitles, `netflix` or `bbc`, which the other fields replace."""

    subtitle_max_chars: MaxChars = None
    """The maximum characters of a line of subtitles: a whole number from 20 to 200; 42 without a preset."""

    subtitle_max_lines: MaxLines = None
    """The maximum lines of a subtitle: a whole number from 1 to 4; 2 without a preset."""

    subtitle_min_duration: MinDuration = None
    """The seconds for which a subtitle is shown at least, if the pause after it allows that: a number from 0.1 to 10;
    1 without a preset."""

    subtitle_max_duration: MaxDuration = None
    """The seconds for which a subtitle of several words is shown at most: a number from 1 to 60; 7 without a preset."""

    subtitle_reading_speed: ReadingSpeed = None
    """The characters a second that viewers can read: a number from 5 to 100; 20 without a preset."""

    subtitle_gap: Gap = None
    """The seconds between subtitles, if there is a pause: a number from 0 to 2; 0.08 without a preset."""

    subtitle_labels: LabelMode | SkipJsonSchema[None] = None
    """Which subtitles name the speaker: `always` all of them, `changes` those where the speaker changes, `never` none.
    `always` without a preset. In vtt the name is in the voice span of every subtitle unless it is `never`."""

    subtitle_dashes: DashStyle | SkipJsonSchema[None] = None
    """Whether two speakers share a subtitle in a quick exchange, with a `hyphen` or a `dash` before the line of each;
    `none` without a preset."""

    @property
    def subtitle_fields(self) -> tuple[str, ...]:
        """The names of the fields above that are given."""
        return tuple(name for name in SubtitleFields.model_fields if getattr(self, name) is not None)

    def subtitles(self) -> SubtitleOptions:
        """Return the options of subtitles. Raise ``InvalidOption`` if fields contradict each other."""
        values = {name.removeprefix("subtitle_"): getattr(self, name) for name in self.subtitle_fields}
        return limits.subtitle_options(values.pop("preset", None), values)
