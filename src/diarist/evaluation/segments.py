"""Segments of speech with their text, the unit in which transcripts are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diarist.types import Span


@dataclass(frozen=True, slots=True)
class Segment:
    """Represents a segment of one speaker's speech with its text, or one word of it."""

    span: Span
    speaker: str
    text: str


def distribute(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Return the words of all segments in order of start, each with an estimated span.

    The time of a segment is divided among its words in proportion to their number of characters.
    """
    words: list[Segment] = []
    for segment in segments:
        texts = segment.text.split()
        total_chars, chars = sum(map(len, texts)), 0
        for text in texts:
            fractions = (chars / total_chars, (chars + len(text)) / total_chars)
            start, end = (segment.span.start + fraction * segment.span.duration for fraction in fractions)
            words.append(Segment(Span(start, max(start, end)), segment.speaker, text))
            chars += len(text)
    return tuple(sorted(words, key=lambda word: word.span))
