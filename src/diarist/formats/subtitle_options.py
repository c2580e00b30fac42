"""Options of subtitles with their ranges, and presets with the values of broadcasters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from diarist.errors import InvalidOption
from diarist.types import Seconds

SUBTITLE_FORMATS = ("srt", "vtt")
"""The formats that have these options."""

LabelMode: TypeAlias = Literal["always", "changes", "never"]
DashStyle: TypeAlias = Literal["none", "hyphen", "dash"]
PresetName: TypeAlias = Literal["netflix", "bbc"]
"""The keys of ``PRESETS``."""


@dataclass(frozen=True, slots=True)
class Range:
    """The values that an option accepts, both ends included."""

    minimum: int | float
    maximum: int | float
    kind: str
    """What the values are: "whole number" or "number", of which only the first one excludes fractions."""

    def __contains__(self, value: object) -> bool:
        numeric = int if self.kind == "whole number" else (int, float)
        return isinstance(value, numeric) and self.minimum <= value <= self.maximum

    def __str__(self) -> str:
        return f"a {self.kind} from {self.minimum} to {self.maximum}"


MAX_CHARS = Range(20, 200, "whole number")
MAX_LINES = Range(1, 4, "whole number")
MIN_DURATION = Range(0.1, 10, "number")
MAX_DURATION = Range(1, 60, "number")
READING_SPEED = Range(5, 100, "number")
GAP = Range(0, 2, "number")

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "max_chars": MAX_CHARS,
        "max_lines": MAX_LINES,
        "min_duration": MIN_DURATION,
        "max_duration": MAX_DURATION,
        "reading_speed": READING_SPEED,
        "gap": GAP,
    }
)
"""The ranges of the fields of ``SubtitleOptions`` that are numbers."""


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """The limits of subtitle cues, and how they show who speaks.

    Raises:
        InvalidOption: A value is out of its range, or the minimum duration is above the maximum duration.
    """

    max_chars: int = 42
    """The maximum line length in columns. A wide (East Asian) character takes two columns."""

    max_lines: int = 2
    """The maximum number of lines of a cue."""

    min_duration: Seconds = 1.0
    """The minimum duration of a cue, if the pause after it allows that: a cue of 0.2 s could not be read."""

    max_duration: Seconds = 7.0
    """The maximum duration of a cue, if it has more than one word."""

    reading_speed: float = 20.0
    """The characters a second that viewers can read. A cue is shown for as long, if the pause after it allows that.
    Wide characters count twice."""

    gap: Seconds = 0.08
    """The time that a cue which is shown beyond its last word leaves before the next cue: two frames at 25 a second."""

    closed_pause: Seconds = 0.5
    """The duration below which a pause between cues is closed up to the gap, since a short one makes them flicker."""

    labels: LabelMode = "always"
    """Which cues name their speaker: all of them, those with another speaker than the cue before, or none."""

    dashes: DashStyle = "none"
    """Whether the short lines of two speakers in a quick exchange share a cue, and what is before each line: a hyphen
    without a space, or a dash with one. Such cues need two lines. No cues overlap then."""

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidOption(f"subtitle_{name} must be {allowed}, not {value!r}")
        for name, choices in (("labels", get_args(LabelMode)), ("dashes", get_args(DashStyle))):
            if getattr(self, name) not in choices:
                raise InvalidOption(f"subtitle_{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.min_duration > self.max_duration:
            raise InvalidOption(
                f"subtitle_min_duration ({self.min_duration:g}) is above subtitle_max_duration ({self.max_duration:g})"
            )


DEFAULT = SubtitleOptions()

PRESETS: Mapping[str, SubtitleOptions] = MappingProxyType(
    {
        # Netflix, "Timed Text Style Guide". General requirements: 5/6 s to 7 s, two lines, gaps of two frames, here at
        # 24 a second, and no pauses of less than half a second. English: 42 characters, 20 characters a second, and a
        # hyphen without a space before each of two speakers. It names only speakers who cannot be seen; a recording
        # does not show who can be seen, so a name is given where the speaker changes.
        "netflix": SubtitleOptions(
            max_chars=42, min_duration=5 / 6, reading_speed=20.0, gap=2 / 24, labels="changes", dashes="hyphen"
        ),
        # BBC, "Subtitle Guidelines", version 1.2.5 of March 2026: 37 characters, two lines, 160 to 180 words a minute,
        # which with five letters and a space each is 17 characters a second, no pauses of less than a second, and,
        # where there are no colors to tell speakers apart, a dash before each of two speakers, and labels only if it is
        # unclear who speaks. The guidelines give neither durations nor a gap in frames; these are the default ones.
        "bbc": SubtitleOptions(max_chars=37, reading_speed=17.0, closed_pause=1.0, labels="changes", dashes="dash"),
    }
)
"""Presets by name, from the published guides. They set limits and labels; they do not follow the guides otherwise."""


def subtitle_options(
    preset: str | None = None, changes: Mapping[str, int | float | str | None] = MappingProxyType({})
) -> SubtitleOptions:
    """Return the options of a preset, or else the default ones, with the given values instead of theirs.

    Args:
        preset: A key of ``PRESETS``, or None.
        changes: Values by the name of their field in ``SubtitleOptions``; None leaves the field as it is.

    Raises:
        InvalidOption: There is no such preset, or a value is out of its range.
    """
    if preset is not None and preset not in PRESETS:
        raise InvalidOption(f"subtitle_preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    base = DEFAULT if preset is None else PRESETS[preset]
    given: dict[str, object] = {name: value for name, value in changes.items() if value is not None}
    return replace(base, **given)  # type: ignore[arg-type]
