"""The audio tracks of a file: which ones to transcribe, which ones were transcribed, and how complete they were."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from diarist.errors import InvalidOption

TrackMode: TypeAlias = Literal["default", "best", "all"]
TrackChoice: TypeAlias = int | TrackMode | None
"""The number of an audio track from 1, or a rule. None is the default track, or another one if it is silent."""

PartialMode: TypeAlias = Literal["refuse", "accept"]
"""Whether a recording that was cut off is refused, or transcribed as far as it goes."""

MAX_TRACK_DIGITS = 9
"""The maximum number of digits of a track number. No file has as many tracks."""


def parse_track(value: int | str | None) -> TrackChoice:
    """Return the choice of a track, given as a number, as its digits, or as the name of a rule.

    Raises:
        InvalidOption: It is something else.
    """
    if value is None or value in get_args(TrackMode):
        return value  # type: ignore[return-value]
    if isinstance(value, str) and re.fullmatch(rf"[0-9]{{1,{MAX_TRACK_DIGITS}}}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 10**MAX_TRACK_DIGITS:
        return value
    shown = repr(value)
    raise InvalidOption(
        f"track must be the number of an audio track, from 1, or one of {', '.join(get_args(TrackMode))}, not "
        f"{shown if len(shown) <= 80 else f'{shown[:80]}...'}"
    )


@dataclass(frozen=True, slots=True)
class AudioTracks:
    """The audio tracks of a file."""

    used: tuple[int, ...]
    """The numbers of the tracks that were transcribed, in ascending order. The first track of a file is 1."""

    count: int
    """The number of audio tracks of the file."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a recording is left that was cut off."""

    available: float
    """The duration of what is there, in seconds."""

    stated: float
    """The duration that the header of the file states, in seconds."""
