"""Division of utterances into readable subtitle cues."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, zip_longest

from diarist.formats.cue_words import CueWord, cue_words, join
from diarist.formats.line_breaking import Break, columns, line_break, wide
from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions
from diarist.formats.timestamps import milliseconds
from diarist.types import Transcript, Utterance

MIN_SHOWN_MS = 300
"""The minimum duration of a cue that may not overlap the next one, which begins later if it has to."""

PAUSE_MS = 1_500
"""Words with a pause of this length between them are never in one cue, which would show the second too early."""

_SENTENCE_ENDS = frozenset(".?!…。？！۔।")
_CLAUSE_ENDS = frozenset(",;:、，；：،–—")
_CLOSING_MARKS = "\"'”’»)]}」』）】》"

# The costs of a break by its position, and of each cue. They were tuned on real transcripts.
_AFTER_SENTENCE, _AFTER_CLAUSE, _BETWEEN_WORDS, _WITHIN_WORD = 0.0, 1.0, 3.0, 20.0
_CUE, _SHORT_CUE = 2.0, 3.0


@dataclass(frozen=True, slots=True)
class Cue:
    """Represents lines that are shown together."""

    start_ms: int
    end_ms: int
    """The end, which is later than the start."""

    speaker: str
    lines: tuple[str, ...]
    """At least one line. The first one begins with the prefix, and no line is blank."""


def subtitles(
    transcript: Transcript,
    options: SubtitleOptions = DEFAULT,
    *,
    prefix: Callable[[str], str] = lambda _: "",
    overlap: bool = True,
) -> tuple[Cue, ...]:
    """Return the cues of a transcript in order of start.

    Breaks are between words, preferably at the ends of sentences and clauses. A cue begins with its first word. It ends
    with its last word, or later in the pause that follows: it is shown for the minimum duration and for as long as it
    takes to read, up to the maximum duration, but only until the gap before the next cue.

    Cues of one speaker never overlap: the earlier one ends when the next one begins. The next one begins
    ``MIN_SHOWN_MS`` after the earlier one if its words begin sooner.

    Args:
        transcript: The transcript, which may be empty.
        options: The limits of cues.
        prefix: Returns the text before a speaker's words in each cue, which counts as part of the first line.
        overlap: Whether cues of different speakers may overlap.
    """
    cues = sorted(
        (cue for utterance in transcript.utterances for cue in _cues(utterance, options, prefix(utterance.speaker))),
        key=_start,
    )
    last_ms = milliseconds(transcript.duration)
    tracks: dict[str, list[Cue]] = {}
    for cue in cues:
        tracks.setdefault(cue.speaker if overlap else "", []).append(cue)
    tracks = {name: _delay_starts(track, last_ms) for name, track in tracks.items()}
    starts = sorted(cue.start_ms for track in tracks.values() for cue in track)
    ended = (cue for track in tracks.values() for cue in _set_ends(track, options, starts, last_ms))
    return tuple(sorted(ended, key=_start))


def _start(cue: Cue) -> int:
    return cue.start_ms


def _delay_starts(track: Sequence[Cue], last_ms: int) -> list[Cue]:
    """Return cues whose starts are ``MIN_SHOWN_MS`` apart, or less at the end of the recording, but never the same."""
    delayed: list[Cue] = []
    for cue in track:
        start_ms = cue.start_ms
        if delayed:
            previous_ms = delayed[-1].start_ms
            start_ms = max(start_ms, min(previous_ms + MIN_SHOWN_MS, last_ms - 1), previous_ms + 1)
        delayed.append(replace(cue, start_ms=start_ms))
    return delayed


def _set_ends(track: Sequence[Cue], options: SubtitleOptions, starts: Sequence[int], last_ms: int) -> Iterator[Cue]:
    """Yield the cues of a track, none of which overlaps the next one.

    Args:
        track: The cues, in order of start.
        options: The limits of cues.
        starts: The starts of the cues of all tracks, in order. No cue is extended up to the next start.
        last_ms: The end of the recording, beyond which no cue is extended.
    """
    gap_ms, min_ms, max_ms = (milliseconds(time) for time in (options.gap, options.min_duration, options.max_duration))
    for cue, following in zip_longest(track, track[1:]):
        position = bisect_right(starts, cue.start_ms)
        pause_end_ms = min([last_ms, *(start_ms - gap_ms for start_ms in starts[position : position + 1])])
        end_ms = max(
            cue.end_ms,
            min(cue.start_ms + max(min_ms, min(_reading_ms(cue, options), max_ms)), pause_end_ms),
            min(cue.start_ms + MIN_SHOWN_MS, last_ms),
            # A cue lasts at least one millisecond: WebVTT forbids empty cues, and words may have no duration.
            cue.start_ms + 1,
        )
        yield replace(cue, end_ms=min(end_ms, following.start_ms) if following else end_ms)


def _reading_ms(cue: Cue, options: SubtitleOptions) -> int:
    """Return the time to read a cue, in which every code point and every line break counts, as in subtitle editors."""
    characters = sum(2 if wide(character) else 1 for character in "\n".join(cue.lines))
    return math.ceil(characters * 1000 / options.reading_speed)


def _cues(utterance: Utterance, options: SubtitleOptions, prefix: str) -> Iterator[Cue]:
    words = cue_words(utterance, options.max_chars)
    for first, end in _split(words, options, columns(prefix)):
        shown = words[first:end]
        lines = _layout_lines(shown, options, columns(prefix))
        yield Cue(
            start_ms=shown[0].start_ms,
            end_ms=max(word.end_ms for word in shown),
            speaker=utterance.speaker,
            lines=(prefix + lines[0], *lines[1:]),
        )


def _split(words: Sequence[CueWord], options: SubtitleOptions, prefix_columns: int) -> list[tuple[int, int]]:
    """Return the cheapest division into cues as (first, end) indices, by dynamic programming from the end."""
    min_ms = milliseconds(options.min_duration)
    break_costs = [_break_cost(words, position) for position in range(len(words) + 1)]
    cost = [0.0] * (len(words) + 1)
    chosen = [0] * len(words)
    for first in reversed(range(len(words))):
        cost[first] = float("inf")
        for end in _possible_ends(words, first, options, prefix_columns):
            short = words[end - 1].end_ms - words[first].start_ms < min_ms
            total = _CUE + (_SHORT_CUE if short else 0.0) + break_costs[end] + cost[end]
            if total <= cost[first]:
                cost[first], chosen[first] = total, end
    cues = []
    first = 0
    while first < len(words):
        cues.append((first, chosen[first]))
        first = chosen[first]
    return cues


def _possible_ends(
    words: Sequence[CueWord], first: int, options: SubtitleOptions, prefix_columns: int
) -> Iterator[int]:
    """Yield the possible ends (exclusive) of a cue that begins with word ``first``, which always includes that word."""
    line, used = 1, prefix_columns + words[first].columns
    end_ms = words[first].end_ms
    max_end_ms = words[first].start_ms + milliseconds(options.max_duration)
    yield first + 1
    for position in range(first + 1, len(words)):
        word = words[position]
        if word.start_ms - end_ms >= PAUSE_MS:
            return
        end_ms = max(end_ms, word.end_ms)
        if end_ms > max_end_ms:
            return
        if used + word.spaced + word.columns <= options.max_chars:
            used += word.spaced + word.columns
        elif line < options.max_lines and word.columns <= options.max_chars:
            line, used = line + 1, word.columns
        else:
            return
        yield position + 1


def _break_cost(words: Sequence[CueWord], position: int) -> float:
    """Return the cost of a break before the word at ``position``."""
    if position in {0, len(words)}:
        return 0.0
    before, after = words[position - 1], words[position]
    if line_break(before.text, after.text, spaced=after.spaced) is not Break.ALLOWED:
        return _WITHIN_WORD
    last = before.text.rstrip(_CLOSING_MARKS)[-1:]
    if last in _SENTENCE_ENDS:
        return _AFTER_SENTENCE
    if last in _CLAUSE_ENDS:
        return _AFTER_CLAUSE
    return _BETWEEN_WORDS


def _layout_lines(words: Sequence[CueWord], options: SubtitleOptions, prefix_columns: int) -> tuple[str, ...]:
    """Return as few lines as possible, of similar length and with breaks at good positions."""
    lines = _count_lines(words, options, prefix_columns)
    # In columns from the start of the cue, if all words were on one line.
    widths = (words[0].columns, *(word.spaced + word.columns for word in words[1:]))
    ends = list(accumulate(widths, initial=prefix_columns))
    mean = ends[-1] / lines

    def line_cost(first: int, end: int) -> float:
        width = ends[end] - ends[first] - words[first].spaced if first else ends[end]
        return 100 * max(0, width - options.max_chars) + abs(width - mean) + 4 * _break_cost(words, end)

    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for rest in reversed(range(lines)):
        longer: dict[int, tuple[float, tuple[int, ...]]] = {}
        for first, (cost, breaks) in best.items():
            for end in range(first + 1, len(words) - rest + 1) if rest else (len(words),):
                total = cost + line_cost(first, end)
                if end not in longer or total < longer[end][0]:
                    longer[end] = (total, (*breaks, first))
        best = longer
    edges = (*best[len(words)][1], len(words))
    return tuple(join(words[first:end]) for first, end in pairwise(edges))


def _count_lines(words: Sequence[CueWord], options: SubtitleOptions, prefix_columns: int) -> int:
    """Return the minimum number of lines that the words of a cue need."""
    lines, used = 1, prefix_columns + words[0].columns
    for word in words[1:]:
        used += word.spaced + word.columns
        if used > options.max_chars:
            lines, used = lines + 1, word.columns
    return lines
