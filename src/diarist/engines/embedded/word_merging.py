"""Words of several readings in the order in which they were spoken, each of them once."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from diarist.engines.embedded.decoding_windows import DecodingWindow
from diarist.engines.embedded.second_pass import Gap
from diarist.types import RecognizedWord, Seconds, Span

TOUCHING_S: Seconds = 0.5
"""Words that sound alike on both sides of the edge of a reading, and are this near to each other, are one word."""

SAME_RATIO = 0.75
"""Two readings of one sound are at least this similar (``difflib``)."""

MAX_REPEATED = 4
"""The maximum number of words that both readings of an edge share."""

COVERED_SHARE = 0.3
"""A word of which the other reading covers more has been read there, if as another word."""


def join(windows: Sequence[DecodingWindow], readings: Sequence[Sequence[RecognizedWord]]) -> list[RecognizedWord]:
    """Return the words of all windows, in order of the windows.

    Where two windows share sound, a word belongs to the one whose core contains its middle. If that one has no word
    there, the word is kept as well, so that no word is lost because its times differ between the windows.
    """
    joined: list[RecognizedWord] = []
    for i, (window, reading) in enumerate(zip(windows, readings, strict=True)):
        words = list(reading)
        if i + 1 < len(windows) and windows[i + 1].span.start < window.span.end:
            words = _without_later(words, window.core.end, readings[i + 1])
        if i > 0 and windows[i - 1].span.end > window.span.start:
            words = _without_earlier(words, window.core.start, readings[i - 1])
            words = words[_repeated_before(joined, words) :]
        joined += words
    return joined


def _without_later(
    words: list[RecognizedWord], edge: Seconds, following: Sequence[RecognizedWord]
) -> list[RecognizedWord]:
    other = [word.span for word in following if word.span.middle >= edge]
    return [word for word in words if word.span.middle < edge or not _is_covered(word.span, other)]


def _without_earlier(
    words: list[RecognizedWord], edge: Seconds, before: Sequence[RecognizedWord]
) -> list[RecognizedWord]:
    other = [word.span for word in before if word.span.middle < edge]
    return [word for word in words if word.span.middle >= edge or not _is_covered(word.span, other)]


def _is_covered(span: Span, other: Sequence[Span]) -> bool:
    return sum(span.overlap(each) for each in other) >= COVERED_SHARE * span.duration


def insert(words: Sequence[RecognizedWord], blocks: Mapping[Gap, Sequence[RecognizedWord]]) -> list[RecognizedWord]:
    """Return the words of both passes in the order in which they were spoken.

    The words of a gap stay together, between the words before and after it. Those whose middle is outside the gap, and
    those that repeat a neighbor, are dropped: the second pass hears some sound on either side of the gap.
    """
    by_index: dict[int, list[tuple[Gap, Sequence[RecognizedWord]]]] = {}
    for gap, block in blocks.items():
        by_index.setdefault(gap.index, []).append((gap, block))
    merged: list[RecognizedWord] = []
    for i in range(len(words) + 1):
        for gap, block in sorted(by_index.get(i, ()), key=lambda item: item[0].span):
            inside = [word for word in block if gap.span.start <= word.span.middle <= gap.span.end]
            inside = inside[_repeated_before(merged, inside) :]
            inside = inside[: len(inside) - _repeated_after(inside, words[i:])]
            merged += [replace(word, span=word.span.clamp(gap.span.start, gap.span.end)) for word in inside]
        if i < len(words):
            merged.append(words[i])
    return merged


def _repeated_before(before: Sequence[RecognizedWord], block: Sequence[RecognizedWord]) -> int:
    """Return how many words at the start of the block are another reading of the words before it."""
    if not before or not block or block[0].span.gap(before[-1].span) > TOUCHING_S:
        return 0
    for count in range(min(MAX_REPEATED, len(block), len(before)), 0, -1):
        if is_same_reading(before[-count:], block[:count]):
            return count
    return 0


def _repeated_after(block: Sequence[RecognizedWord], after: Sequence[RecognizedWord]) -> int:
    """Return how many words at the end of the block are another reading of the words after it."""
    if not after or not block or after[0].span.gap(block[-1].span) > TOUCHING_S:
        return 0
    for count in range(min(MAX_REPEATED, len(block), len(after)), 0, -1):
        if is_same_reading(block[-count:], after[:count]):
            return count
    return 0


def is_same_reading(one: Sequence[RecognizedWord], other: Sequence[RecognizedWord]) -> bool:
    """Return whether two sequences of words are readings of one sound: nearly the same letters and digits."""
    first, second = _letters(one), _letters(other)
    if not first or not second:
        return False
    return first == second or SequenceMatcher(None, first, second, autojunk=False).ratio() >= SAME_RATIO


def _letters(words: Sequence[RecognizedWord]) -> str:
    text = unicodedata.normalize("NFKC", "".join(word.text for word in words)).casefold()
    return "".join(char for char in text if char.isalnum())
