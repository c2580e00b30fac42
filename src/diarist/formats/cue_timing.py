"""When cues begin and end, so that none overlaps the next one of its track and each can be read."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import TypeAlias

from diarist.formats.line_breaking import wide
from diarist.formats.subtitle_options import SubtitleOptions
from diarist.formats.timestamps import milliseconds

MIN_SHOWN_MS = 300
"""The minimum duration of a cue, for which the next one begins later if it has to."""

MAX_DELAY_MS = 2_000
"""The maximum time by which a cue begins after its words, as in the BBC's guidelines (section 5.4 of version 1.2.5),
unless more cues crowd together than that allows."""

_STEP_MS = 100
"""The step in which delays are tried."""

_Start: TypeAlias = tuple[float, int]
"""The least cost of all cues up to one that begins at a certain time, and the start of the cue before it."""


@dataclass(frozen=True, slots=True)
class SpokenLines:
    """Represents lines that one speaker says."""

    speaker: str
    lines: tuple[str, ...]
    """At least one line, and no blank one."""


@dataclass(frozen=True, slots=True)
class Cue:
    """Represents lines that are shown together."""

    start_ms: int
    end_ms: int
    """The end, which is later than the start."""

    parts: tuple[SpokenLines, ...]
    """The lines of one speaker, or of two."""

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(line for part in self.parts for line in part.lines)


def wanted_ms(cue: Cue, options: SubtitleOptions) -> int:
    """Return the time to read a cue, but at least the minimum duration and at most the maximum duration.

    Every code point and every line break counts, as in subtitle editors.
    """
    characters = sum(2 if wide(character) else 1 for character in "\n".join(cue.lines))
    reading_ms = math.ceil(characters * 1000 / options.reading_speed)
    return max(milliseconds(options.min_duration), min(reading_ms, milliseconds(options.max_duration)))


def delay_starts(track: Sequence[Cue], options: SubtitleOptions, last_ms: int) -> list[Cue]:
    """Return the cues of a track with starts that leave each of them time to be read.

    A cue is delayed only if it begins before the words of the cue before it end, or less than half the minimum duration
    after its start, or if that one is delayed itself and could not be read before. The delays are the best compromise
    between cues that are cut short and cues that are late, by dynamic programming. Starts are at least ``MIN_SHOWN_MS``
    apart, or less at the end of the recording, but never the same.

    Args:
        track: The cues in the order in which they are shown. Each begins with its first word and ends with its last.
        options: The limits of cues.
        last_ms: The end of the recording.
    """
    if not track:
        return []
    gap_ms, min_ms = milliseconds(options.gap), max(MIN_SHOWN_MS, milliseconds(options.min_duration / 2))
    history: list[dict[int, _Start]] = [{track[0].start_ms: (0.0, 0)}]
    for previous, cue in pairwise(track):
        shown_ms = (min_ms, wanted_ms(previous, options) + gap_ms)
        history.append(_next_starts(history[-1], previous, cue, shown_ms, last_ms))
    last_wanted_ms = wanted_ms(track[-1], options)
    start_ms = min(
        history[-1],
        key=lambda each: history[-1][each][0] + _cost_of_cut(each, last_ms, last_wanted_ms, track[-1].end_ms),
    )
    delayed: list[Cue] = []
    for cue, starts in zip(reversed(track), reversed(history), strict=True):
        delayed.append(replace(cue, start_ms=start_ms))
        start_ms = starts[start_ms][1]
    return delayed[::-1]


def _next_starts(
    starts: dict[int, _Start], previous: Cue, cue: Cue, shown_ms: tuple[int, int], last_ms: int
) -> dict[int, _Start]:
    """Return the possible starts of a cue.

    Args:
        starts: The possible starts of the previous cue.
        previous: The previous cue.
        cue: The cue.
        shown_ms: The time for which the previous cue is shown even if this one is delayed, and the time that it needs.
        last_ms: The end of the recording.
    """
    min_ms, previous_wanted_ms = shown_ms
    following: dict[int, _Start] = {}
    for previous_start_ms, (cost, _) in starts.items():
        earliest_ms = max(min(previous_start_ms + MIN_SHOWN_MS, last_ms - 1), previous_start_ms + 1, cue.start_ms)
        candidates = [earliest_ms]
        crowded = previous.end_ms > cue.start_ms or cue.start_ms - previous_start_ms < min_ms
        if crowded or previous_start_ms > previous.start_ms:
            # Later than that the previous cue does not need.
            done_ms = max(previous.end_ms, previous_start_ms + previous_wanted_ms)
            latest_ms = min(cue.start_ms + MAX_DELAY_MS, last_ms - MIN_SHOWN_MS, done_ms + _STEP_MS)
            grid = (*range(cue.start_ms, latest_ms + 1, _STEP_MS), previous.end_ms)
            candidates = [each for each in grid if earliest_ms <= each <= latest_ms] or candidates
        for start_ms in candidates:
            total = cost + _cost_of_cut(previous_start_ms, start_ms, previous_wanted_ms, previous.end_ms)
            total += ((start_ms - cue.start_ms) / MAX_DELAY_MS) ** 2
            if start_ms not in following or total < following[start_ms][0]:
                following[start_ms] = (total, previous_start_ms)
    return following


def _cost_of_cut(start_ms: int, next_start_ms: int, cue_wanted_ms: int, spoken_end_ms: int) -> float:
    """Return the cost of a cue that is replaced before it can be read, or while its words are still spoken.

    Like the cost of a delay, it is 1 at the extreme: a cue that is not shown at all, and 2 s of words after its end.
    """
    missing = max(0, cue_wanted_ms - (next_start_ms - start_ms)) / cue_wanted_ms
    return missing**2 + (max(0, spoken_end_ms - next_start_ms) / MAX_DELAY_MS) ** 2


def set_ends(track: Sequence[Cue], options: SubtitleOptions, starts: Sequence[int], last_ms: int) -> Iterator[Cue]:
    """Yield the cues of a track, none of which overlaps the next one.

    Args:
        track: The cues, in order of start.
        options: The limits of cues.
        starts: The starts of the cues of all tracks, in order. No cue is extended up to the next start.
        last_ms: The end of the recording, beyond which no cue is extended.
    """
    for cue, following in zip_longest(track, track[1:]):
        position = bisect_right(starts, cue.start_ms)
        next_start_ms = starts[position] if position < len(starts) else None
        end_ms = max(
            cue.end_ms,
            _extended_end_ms(cue, options, next_start_ms, last_ms),
            min(cue.start_ms + MIN_SHOWN_MS, last_ms),
            # A cue lasts at least one millisecond: WebVTT forbids empty cues, and words may have no duration.
            cue.start_ms + 1,
        )
        yield replace(cue, end_ms=min(end_ms, following.start_ms) if following else end_ms)


def _extended_end_ms(cue: Cue, options: SubtitleOptions, next_start_ms: int | None, last_ms: int) -> int:
    """Return the end of a cue that is shown into the pause after it: until it is read, or all of a short pause."""
    read_ms = cue.start_ms + wanted_ms(cue, options)
    if next_start_ms is None:
        return min(read_ms, last_ms)
    if next_start_ms - max(read_ms, cue.end_ms) < milliseconds(options.closed_pause):
        read_ms = cue.start_ms + milliseconds(options.max_duration)
    return min(read_ms, next_start_ms - milliseconds(options.gap), last_ms)
