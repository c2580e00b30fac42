"""The times of Whisper's words, corrected by what a word can take to say and by where there is sound.

Whisper's alignment gives each moment of a chunk to some word. A pause, and speech that was not recognized, therefore
makes a neighboring word long: usually the one after it, whose end is right and whose start is too early.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from diarist.engines.word_boundaries import is_unspaced
from diarist.types import Audio, RecognizedWord, Seconds, Span

MIN_LIMIT_S: Seconds = 0.7
"""A short word rarely lasts longer: the rest of its span is a pause, or speech without a word."""

LETTER_S: Seconds = 0.1
"""The maximum duration of a letter of a long word."""

SYLLABLE_S: Seconds = 0.35
"""The maximum duration of a character that is a syllable or more: of Chinese, Japanese, Korean and Burmese, of Khmer,
Thai and Lao."""

SPELLED_S: Seconds = 0.5
"""The maximum duration of a character that is spoken as a word: a digit, a symbol, or a letter of an abbreviation."""

SPOKEN_MARKS = "%‰#&@"
"""Punctuation that is spoken, as Unicode classifies it; other symbols, such as *$*, have a class of their own."""

ABBREVIATION_S: Seconds = 1.0
"""The maximum duration of a short word with a period, which may be an abbreviation such as *Dr.* or *approx.*"""

MIN_WORD_S: Seconds = 0.03
"""Shorter words share the time of their neighbors: none can be spoken in so little. A frame of the alignment is 0.02 s
long, so these are words of one frame or none."""

QUIETER_DB = 12.0
"""The end of a long span is only given up for its start if it is quieter by this much."""


def max_spoken_duration(text: str) -> Seconds:
    """Return the time that the word can take to say at most, by how it is spoken: *$20* is two words."""
    word = text.strip()
    total = sum(_max_duration(char, word) for char in word)
    letters = [char for char in word if char.isalpha()]
    if 0 < len(letters) <= 4 and word.endswith("."):
        total += ABBREVIATION_S - MIN_LIMIT_S
        return max(ABBREVIATION_S, total)
    return max(MIN_LIMIT_S, total)


def _max_duration(char: str, word: str) -> Seconds:
    category = unicodedata.category(char)
    if category[0] in "NS" or char in SPOKEN_MARKS:
        return SPELLED_S
    if category[0] == "L":
        if is_unspaced(char) or "\uac00" <= char <= "\ud7af":
            return SYLLABLE_S
        return SPELLED_S if len(word) > 1 and word.isupper() else LETTER_S
    return 0.0 if category[0] == "M" else LETTER_S / 2


@dataclass(frozen=True, slots=True)
class Loudness:
    """The level of a part of a recording in short frames."""

    start: Seconds
    """The start of the first frame."""

    levels_db: np.ndarray[tuple[int], np.dtype[np.float64]]
    """The level of each frame in dB of full scale, (frames,)."""

    FRAME_S = 0.02

    @classmethod
    def measure(cls, audio: Audio, span: Span) -> Loudness:
        """Measure the part of the recording within ``span``."""
        samples = audio.cut(span).samples
        width = round(cls.FRAME_S * audio.rate)
        frames = max(len(samples) // width, 1)
        padded = np.zeros(frames * width)
        padded[: min(len(samples), len(padded))] = samples[: len(padded)]
        power = np.square(padded).reshape(frames, width).mean(axis=1)
        return cls(span.start, 10 * np.log10(power + 1e-10))

    def mean_db(self, span: Span) -> float:
        """Return the mean level of the frames that ``span`` touches."""
        first = min(max(int((span.start - self.start) / self.FRAME_S), 0), len(self.levels_db) - 1)
        stop = min(max(int(np.ceil((span.end - self.start) / self.FRAME_S)), first + 1), len(self.levels_db))
        return float(self.levels_db[first:stop].mean())


def place(word: RecognizedWord, audio: Audio) -> RecognizedWord:
    """Return the word with a span within the recording that it can have been spoken in.

    A longer span is cut to its end, where the alignment is usually right, or to its start if the end is much quieter.
    """
    span = word.span.clamp(0.0, audio.duration)
    limit = max_spoken_duration(word.text)
    if span.duration <= limit:
        return word if span == word.span else replace(word, span=span)
    loudness = Loudness.measure(audio, span)
    at_start = Span(span.start, span.start + limit)
    at_end = Span(span.end - limit, span.end)
    is_early = loudness.mean_db(at_start) > loudness.mean_db(at_end) + QUIETER_DB
    return replace(word, span=at_start if is_early else at_end)


def trim_to_speech(words: Sequence[RecognizedWord], speech: Sequence[Span]) -> list[RecognizedWord]:
    """Return the words without the silence before and after the speech that they overlap.

    The first and the last word of a window take the silence at its edges. A word outside of all speech stays.

    Args:
        words: Words with starts that never fall.
        speech: Ordered, disjoint spans.
    """
    starts = [span.start for span in speech]
    trimmed: list[RecognizedWord] = []
    for word in words:
        first = max(bisect_right(starts, word.span.start) - 1, 0)
        stop = bisect_left(starts, word.span.end)
        overlapping = [each for each in speech[first:stop] if each.overlap(word.span) > MIN_WORD_S]
        span = word.span.clamp(overlapping[0].start, overlapping[-1].end) if overlapping else word.span
        trimmed.append(replace(word, span=span))
    return trimmed


def in_sequence(words: Sequence[RecognizedWord]) -> list[RecognizedWord]:
    """Return the words in the same order with starts that never fall, no overlaps, and no words without duration.

    Words shorter than ``MIN_WORD_S`` and their neighbors share their time by the length of their texts.
    """
    ordered: list[RecognizedWord] = []
    latest = 0.0
    for word in words:
        start = max(word.span.start, latest)
        ordered.append(replace(word, span=Span(start, max(word.span.end, start))))
        latest = start
    for i, (word, following) in enumerate(pairwise(ordered)):
        if word.span.end > following.span.start:
            ordered[i] = replace(word, span=Span(word.span.start, following.span.start))
    return _share_times(ordered)


def _share_times(words: list[RecognizedWord]) -> list[RecognizedWord]:
    """Give words without duration a part of the time of their neighbors: the one before if it touches, or the next.

    Where this is not enough for all of them, further neighbors that touch have a part in it, and then the pause.
    """
    first = 0
    while first < len(words):
        stop = first
        while stop < len(words) and _is_short(words[stop].span):
            stop += 1
        if stop == first:
            first += 1
            continue
        low, high = _sharing(words, first, stop)
        words[low:high] = _divide(words[low:high], _with_pause(words, low, high))
        first = max(stop, high)
    return words


def _is_short(span: Span) -> bool:
    return span.duration < MIN_WORD_S - 1e-9  # what was divided exactly may be shorter by a rounding error


def _sharing(words: Sequence[RecognizedWord], first: int, stop: int) -> tuple[int, int]:
    """Return the first of the words that share their time with the short words ``first`` to ``stop``, and their end."""
    low, high = first, stop
    while high - low == stop - first or _is_too_little(words, low, high):
        if low > 0 and _touch(words[low - 1], words[low]) and (low == first or not _can_follow(words, high)):
            low -= 1
        elif _can_follow(words, high):
            high += 1
        else:
            break
    return low, high


def _can_follow(words: Sequence[RecognizedWord], high: int) -> bool:
    return high < len(words) and _touch(words[high - 1], words[high])


def _touch(word: RecognizedWord, following: RecognizedWord) -> bool:
    return following.span.start - word.span.end < MIN_WORD_S


def _is_too_little(words: Sequence[RecognizedWord], low: int, high: int) -> bool:
    return words[high - 1].span.end - words[low].span.start < (high - low) * MIN_WORD_S


def _with_pause(words: Sequence[RecognizedWord], low: int, high: int) -> Span:
    """Return the time of the words, with as much of the pauses before and after them as they need."""
    start, end = words[low].span.start, words[high - 1].span.end
    missing = (high - low) * MIN_WORD_S - (end - start)
    if missing <= 0:
        return Span(start, end)
    start -= min(missing, start - (words[low - 1].span.end if low > 0 else 0.0))
    missing = (high - low) * MIN_WORD_S - (end - start)
    after = words[high].span.start - end if high < len(words) else missing
    return Span(start, end + max(0.0, min(missing, after)))


def _divide(words: Sequence[RecognizedWord], time: Span) -> list[RecognizedWord]:
    """Divide the time among the words: ``MIN_WORD_S`` for each, and the rest by the length of their texts."""
    least = min(MIN_WORD_S, time.duration / len(words))
    lengths = np.array([max(len(word.text.strip()), 1) for word in words], dtype=np.float64)
    parts = least + (time.duration - least * len(words)) * lengths / lengths.sum()
    edges = np.minimum(time.start + np.concatenate([[0.0], np.cumsum(parts)]), time.end)
    edges[-1] = time.end
    return [
        replace(word, span=Span(float(low), float(high)))
        for word, (low, high) in zip(words, pairwise(edges), strict=True)
    ]
