"""The speech between the words of the first pass."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.embedded.second_pass import Gap, uncovered_speech
from diarist.types import RecognizedWord, Span
from support.ratios import growth
from support.strategies import patient

MIN = 1.0


def word(start, end, text=" word"):
    return RecognizedWord(text, Span(start, end), 0.8)


@st.composite
def heard(draw):
    """Draw speech, and words most of which are in it."""
    start, speech, words = draw(st.floats(0, 2)), [], []
    for _ in range(draw(st.integers(0, 6))):
        end = start + draw(st.floats(0.2, 8))
        speech.append(Span(start, end))
        at = start - draw(st.sampled_from((0.0, 0.2)))
        while at < end and draw(st.booleans()):
            length = draw(st.sampled_from((0.0, 0.3, 0.7)))
            words.append(word(max(at, 0.0), max(at, 0.0) + length))
            at += length + draw(st.sampled_from((0.0, 0.05, 1.2, 3.0)))
        start = end + draw(st.floats(0.2, 4))
    return speech, words


def test_a_gap_in_speech_is_uncovered_and_a_pause_is_not():
    speech = (Span(0, 6), Span(10, 12))
    words = [word(0, 0.5), word(0.6, 1.0), word(4.5, 5.5), word(10, 12)]
    assert uncovered_speech((Span(0, 12),), speech, words, MIN) == (Gap(2, Span(1.0, 4.5)),)


def test_speech_before_the_first_word_and_after_the_last_is_uncovered():
    gaps = uncovered_speech((Span(0, 9),), (Span(0, 9),), [word(4, 5)], MIN)
    assert gaps == (Gap(0, Span(0, 4)), Gap(1, Span(5, 9)))


def test_a_short_gap_is_ignored():
    assert uncovered_speech((Span(0, 3),), (Span(0, 3),), [word(0.9, 2.1)], MIN) == ()


def test_a_chunk_without_words_is_not_uncovered():
    chunks = (Span(0, 5), Span(10, 15))
    assert uncovered_speech(chunks, chunks, [word(0, 1)], MIN) == (Gap(1, Span(1, 5)),)
    assert uncovered_speech(chunks, chunks, [], MIN) == ()


def test_a_word_without_duration_covers_its_surroundings():
    assert uncovered_speech((Span(0, 2),), (Span(0, 2),), [word(0.1, 0.4), word(1.0, 1.0), word(1.8, 2.0)], MIN) == ()


def test_a_word_without_length_at_the_very_start_counts():
    assert uncovered_speech((Span(0, 2),), (Span(0, 2),), [word(0.0, 0.0)], MIN) == (Gap(1, Span(0, 2)),)


def test_a_word_across_two_spans_of_speech_counts_in_both():
    speech = (Span(0, 2), Span(2.5, 4))
    assert uncovered_speech((Span(0, 4),), speech, [word(0.0, 1.5), word(1.6, 3.5)], MIN) == ()


@given(heard())
@patient
def test_uncovered_speech_has_no_words(case):
    speech, words = case
    chunks = (Span(0, 100),)
    found = uncovered_speech(chunks, speech, words, MIN)
    gaps = [gap.span for gap in found]
    assert all(
        all(w.span.start <= gap.span.start for w in words[: gap.index])
        and all(w.span.start >= gap.span.end for w in words[gap.index :])
        for gap in found
    )
    assert all(gap.duration >= MIN for gap in gaps)
    assert all(before.end <= after.start for before, after in pairwise(gaps))
    for gap in gaps:
        assert any(span.start <= gap.start and gap.end <= span.end for span in speech)
        assert all(gap.overlap(w.span) == 0 for w in words)
        assert not any(gap.start < w.span.start < gap.end for w in words)
    if words:  # nothing that long is forgotten: a probe in every span of speech
        for span in speech:
            inside = sorted(w.span for w in words if w.span.end >= span.start and w.span.start < span.end)
            edges = [span.start, *(edge for w in inside for edge in (w.start, w.end)), span.end]
            holes = [Span(a, b) for a, b in pairwise(edges) if b - a > MIN]
            free = [hole for hole in holes if not any(w.overlap(hole) for w in inside)]
            assert all(any(gap.overlap(hole) > 0 for gap in gaps) for hole in free)


@pytest.mark.timing
def test_the_time_for_uncovered_speech_is_linear():
    def hours(chunks: int):
        return (
            [Span(i * 25.0, i * 25.0 + 24.8) for i in range(chunks)],
            [Span(i * 2.5, i * 2.5 + 2.3) for i in range(chunks * 10)],
            [word(i * 0.35, i * 0.35 + 0.3) for i in range(chunks * 72)],
        )

    def look(case) -> None:
        assert uncovered_speech(*case, MIN) == ()

    assert growth(look, hours(140), hours(560)) < 8
