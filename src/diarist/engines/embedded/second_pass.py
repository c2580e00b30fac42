"""The speech between the words of the first pass, which a second pass recognizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diarist.types import RecognizedWord, Seconds, Span


@dataclass(frozen=True, slots=True)
class Gap:
    """Speech without words."""

    index: int
    """The index of the word before which words of the gap are inserted."""

    span: Span


def uncovered_speech(
    chunks: Sequence[Span], speech: Sequence[Span], words: Sequence[RecognizedWord], min_duration: Seconds
) -> tuple[Gap, ...]:
    """Return the speech of at least ``min_duration`` in which no word was found, in order.

    Speech in chunks without any word is left out: there the model decided that nobody speaks.

    Args:
        chunks: The chunks of the first pass: ordered, disjoint spans.
        speech: Ordered, disjoint spans.
        words: The words of the first pass in order, with starts that never fall.
        min_duration: The minimum duration of a gap.
    """
    chunks_with_words = _chunks_with_words(chunks, words)
    gaps: list[Gap] = []
    following, covered_until = 0, 0.0
    candidate = 0

    def add_gap(start: Seconds, end: Seconds) -> None:
        nonlocal candidate
        if end - start < min_duration:
            return
        while candidate < len(chunks_with_words) and chunks_with_words[candidate].end <= start:
            candidate += 1
        if candidate < len(chunks_with_words) and chunks_with_words[candidate].start < end:
            gaps.append(Gap(following, Span(start, end)))

    for span in speech:
        at = max(covered_until, span.start)
        while following < len(words) and words[following].span.start < span.end:
            add_gap(at, words[following].span.start)
            covered_until = max(covered_until, words[following].span.end)
            at = max(at, covered_until)
            following += 1
        add_gap(at, span.end)
    return tuple(gaps)


def _chunks_with_words(chunks: Sequence[Span], words: Sequence[RecognizedWord]) -> list[Span]:
    found: list[Span] = []
    at, latest = 0, -1.0
    for chunk in chunks:
        while at < len(words) and words[at].span.start < chunk.start:
            latest = max(latest, words[at].span.end)
            at += 1
        if latest > chunk.start or (at < len(words) and words[at].span.start < chunk.end):
            found.append(chunk)
    return found
