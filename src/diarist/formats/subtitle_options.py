"""Options of subtitles, and presets with the values of broadcasters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from diarist.errors import InvalidOption
from diarist.types import Seconds

CHARS_RANGE = range(20, 201)
LINES_RANGE = range(1, 5)


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """Limits of subtitle cues.

    Raises:
        InvalidOption: A value is out of its range.
    """

    max_chars: int = 42
    """The maximum line length in columns, 20 to 200. A wide (East Asian) character takes two columns."""

    max_lines: int = 2
    """The maximum number of lines of a cue, 1 to 4."""

    min_duration: Seconds = 1.0
    """The minimum duration of a cue, if the pause after it allows that: a cue of 0.2 s could not be read."""

    max_duration: Seconds = 7.0
    """The maximum duration of a cue, if it has more than one word."""

    reading_speed: float = 20.0
    """The characters a second that viewers can read. A cue is shown for as long, if the pause after it allows that.
    Wide characters count twice."""

    gap: Seconds = 0.08
    """The time that a cue which is shown beyond its last word leaves before the next cue: two frames at 25 a second."""

    def __post_init__(self) -> None:
        for name, allowed in (("max_chars", CHARS_RANGE), ("max_lines", LINES_RANGE)):
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidOption(
                    f"subtitle_{name} must be a whole number from {allowed[0]} to {allowed[-1]}, not {value!r}"
                )
        if not 0 < self.min_duration <= self.max_duration:
            raise InvalidOption("the minimum duration of subtitles must be above 0 and at most the maximum duration")
        if not self.reading_speed > 0:
            raise InvalidOption(f"the reading speed of subtitles must be above 0, not {self.reading_speed!r}")
        if not self.gap >= 0:
            raise InvalidOption(f"the gap between subtitles must be 0 or more, not {self.gap!r}")


DEFAULT = SubtitleOptions()

PRESETS: Mapping[str, SubtitleOptions] = MappingProxyType(
    {
        # Netflix, "Timed Text Style Guide", general requirements and English: 5/6 s to 7 s, two frames at 24 a second.
        "netflix": SubtitleOptions(max_chars=42, min_duration=5 / 6, max_duration=7.0, reading_speed=20.0, gap=2 / 24),
        # BBC, "Subtitle Guidelines": 37 characters, and 160 to 180 words a minute, here of five letters and a space.
        "bbc": SubtitleOptions(max_chars=37, min_duration=1.0, max_duration=7.0, reading_speed=17.0, gap=0.08),
    }
)
"""Presets by name."""


def subtitle_options(
    preset: str | None = None, max_chars: int | None = None, max_lines: int | None = None
) -> SubtitleOptions:
    """Return the options of a preset, or else the default ones, with the values that are given instead of theirs.

    Raises:
        InvalidOption: There is no such preset, or a value is out of its range.
    """
    if preset is not None and preset not in PRESETS:
        raise InvalidOption(f"subtitle_preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    given = {"max_chars": max_chars, "max_lines": max_lines}
    base = DEFAULT if preset is None else PRESETS[preset]
    return replace(base, **{name: value for name, value in given.items() if value is not None})
