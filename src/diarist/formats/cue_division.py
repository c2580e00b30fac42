"""Division of the words of an utterance into parts that each fit into a cue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diarist.formats.cue_layout import break_costs
from diarist.formats.cue_words import CueWord
from diarist.formats.subtitle_options import SubtitleOptions
from diarist.formats.timestamps import milliseconds

PAUSE_MS = 1_500
"""Words with a pause of this length between them are never in one cue, which would show the second too early."""

# The costs of each cue, in the units of the costs of a break. They were tuned on real transcripts.
_CUE, _SHORT_CUE = 2.0, 3.0
_INTERRUPTION = 4.0
"""The cost of an interruption one second before the end of a cue, which rises with the square of that time: the next
cue is due there, and must wait while this one is read. Up to 0.8 s is better than a break between any two words."""

_SWAPPED_MS = 1_000
"""The part of a cue after an interruption that counts even if the interruption is at its start, where the next cue may
be shown first."""


def divide(
    words: Sequence[CueWord],
    options: SubtitleOptions,
    label_columns: Sequence[int] = (0, 0),
    interruptions: Sequence[int] = (),
) -> list[Sequence[CueWord]]:
    """Return the cheapest division into cues, by dynamic programming from the end.

    Args:
        words: The words of an utterance, at least one.
        options: The limits of cues.
        label_columns: The widths of the label of the first cue and of the others; 0 if there is none.
        interruptions: The times in milliseconds at which other speakers begin, where a cue should end if it can.
    """
    min_ms = milliseconds(options.min_duration)
    costs = break_costs(words)
    cost = [0.0] * (len(words) + 1)
    chosen = [0] * len(words)
    for first in reversed(range(len(words))):
        cost[first] = float("inf")
        for end, end_ms in _possible_ends(words, first, options, label_columns[first > 0]):
            short = words[end - 1].end_ms - words[first].start_ms < min_ms
            total = _CUE + (_SHORT_CUE if short else 0.0) + costs[end] + cost[end]
            total += sum(_interruption_cost(words[first].start_ms, each, end_ms) for each in interruptions)
            if total <= cost[first]:
                cost[first], chosen[first] = total, end
    cues: list[Sequence[CueWord]] = []
    first = 0
    while first < len(words):
        cues.append(words[first : chosen[first]])
        first = chosen[first]
    return cues


def _interruption_cost(start_ms: int, interruption_ms: int, end_ms: int) -> float:
    if not start_ms < interruption_ms < end_ms:
        return 0.0
    waiting_ms = min(end_ms - interruption_ms, interruption_ms - start_ms + _SWAPPED_MS)
    return _INTERRUPTION * (waiting_ms / 1000) ** 2


def _possible_ends(
    words: Sequence[CueWord], first: int, options: SubtitleOptions, label_columns: int
) -> Iterator[tuple[int, int]]:
    """Yield the possible ends of a cue that begins with word ``first``: the word (exclusive) and the time.

    The first word is always included.
    """
    line, used = 1, words[first].columns
    if label_columns:
        fits = label_columns + 1 + used <= options.max_chars
        line, used = (1, label_columns + 1 + used) if fits else (2, used)
    end_ms = words[first].end_ms
    max_end_ms = words[first].start_ms + milliseconds(options.max_duration)
    yield first + 1, end_ms
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
        yield position + 1, end_ms
