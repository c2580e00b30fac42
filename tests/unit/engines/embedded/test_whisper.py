"""Tests of the code around Whisper: the order and duration of words, batches, and the second pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.embedded.whisper import (
    DecodingOptions,
    WhisperRecognizer,
    _is_repetitive,
    batch_by_length,
    clamp_word_duration,
    sort_words,
    uncovered_speech,
)
from diarist.protocols import LANGUAGE_DETECTION_COST_S
from diarist.types import SAMPLE_RATE, Audio, RecognizedWord, Span
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
    assert uncovered_speech((Span(0, 12),), speech, words, MIN) == (Span(1.0, 4.5),)


def test_speech_before_the_first_word_and_after_the_last_is_uncovered():
    assert uncovered_speech((Span(0, 9),), (Span(0, 9),), [word(4, 5)], MIN) == (Span(0, 4), Span(5, 9))


def test_a_short_gap_is_ignored():
    assert uncovered_speech((Span(0, 3),), (Span(0, 3),), [word(0.9, 2.1)], MIN) == ()


def test_a_chunk_without_words_is_not_uncovered():
    chunks = (Span(0, 5), Span(10, 15))
    assert uncovered_speech(chunks, chunks, [word(0, 1)], MIN) == (Span(1, 5),)
    assert uncovered_speech(chunks, chunks, [], MIN) == ()


def test_a_word_without_duration_covers_its_surroundings():
    assert uncovered_speech((Span(0, 2),), (Span(0, 2),), [word(0.1, 0.4), word(1.0, 1.0), word(1.8, 2.0)], MIN) == ()


def test_a_word_without_length_at_the_very_start_counts():
    assert uncovered_speech((Span(0, 2),), (Span(0, 2),), [word(0.0, 0.0)], MIN) == (Span(0, 2),)


def test_a_word_across_two_spans_of_speech_counts_in_both():
    speech = (Span(0, 2), Span(2.5, 4))
    assert uncovered_speech((Span(0, 4),), speech, [word(0.0, 1.5), word(1.6, 3.5)], MIN) == ()


@given(heard())
@patient
def test_uncovered_speech_has_no_words(case):
    speech, words = case
    chunks = (Span(0, 100),)
    gaps = uncovered_speech(chunks, speech, words, MIN)
    assert all(gap.duration >= MIN for gap in gaps)
    assert all(before.end <= after.start for before, after in pairwise(gaps))
    for gap in gaps:
        assert any(span.start <= gap.start and gap.end <= span.end for span in speech)
        assert all(gap.overlap(w.span) == 0 for w in words)
        assert not any(gap.start < w.span.start < gap.end for w in words)
    if words:  # nothing that long is forgotten: a probe in every stretch of speech
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


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [(" so", 0.3, 0.3), (" so", 5.0, 0.7), (" unbelievable", 5.0, 1.2), (" so", 0.0, 0.0), (" 12345678", 0.75, 0.75)],
)
def test_a_word_lasts_no_longer_than_it_takes_to_say(text, length, expected):
    short = clamp_word_duration(word(3.0, 3.0 + length, text), 0.7)
    assert (short.text, short.confidence, short.span.start) == (text, 0.8, 3.0)
    assert short.span.duration == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(-1, 12), st.floats(0, 3))), st.floats(0, 10))
@patient
def test_words_come_by_start_and_lie_in_the_recording(spans, duration):
    words = [word(start, start + length, f" {i}") for i, (start, length) in enumerate(spans)]
    ordered = sort_words(words, duration)
    assert sorted(w.text for w in ordered) == sorted(w.text for w in words)
    assert all(0 <= w.span.start <= w.span.end <= duration for w in ordered)
    assert all(a.span.start <= b.span.start for a, b in pairwise(ordered))


def test_a_loop_is_distinguished_from_speech():
    assert _is_repetitive(" thank you very much" * 20, 2.4)
    assert not _is_repetitive("It was a bright cold day in April, and the clocks were striking thirteen.", 2.4)
    assert not _is_repetitive("", 2.4)


def test_a_sentence_said_twice_is_a_loop_and_a_phrase_said_twice_is_not():
    sentence = "it was a bright cold day in April"
    assert _is_repetitive(f"And then {sentence}. {sentence.capitalize()}, and", 2.4)
    assert not _is_repetitive(f"{sentence} and {sentence}", 2.4)
    assert not _is_repetitive("it was a bright it was a bright cold day", 2.4)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 16))), st.integers(1, 9))
@patient
def test_batches_contain_every_span_once_the_longer_ones_first(spans, most):
    pieces = [Span(start, start + length) for start, length in spans]
    batches = batch_by_length(pieces, most)
    ordered = [piece for batch in batches for piece in batch]
    assert sorted(ordered) == sorted(pieces)
    assert all(a.duration >= b.duration for a, b in pairwise(ordered))
    assert all(1 <= len(batch) <= most for batch in batches)
    assert max(map(len, batches), default=0) - min(map(len, batches), default=0) <= 1
    assert len(batches) == len(pieces) or len(batches) % 2 == 0


class Wordless(WhisperRecognizer):
    """A recognizer without a model, which supports two languages and recognizes no words."""

    languages = ("de", "en")

    def __init__(self) -> None:
        self._options = DecodingOptions()
        self._workers = 1

    def _tokenizer(self, language):
        return None

    def detect(self, audio, speech):
        return "de", 0.9

    def _transcribe(self, audio, chunks, tokenizer, report):
        return []


@pytest.mark.parametrize("spoken", [LANGUAGE_DETECTION_COST_S, 3 * LANGUAGE_DETECTION_COST_S])
def test_language_detection_has_the_cost_that_the_pipeline_assumes(spoken):
    told: list[float] = []
    audio = Audio(np.zeros(round(100 * SAMPLE_RATE), dtype=np.float32))
    Wordless().recognize(audio, (Span(1.0, 1.0 + spoken),), None, lambda _, done: told.append(done))
    assert told[1] / 0.95 == pytest.approx(LANGUAGE_DETECTION_COST_S / (LANGUAGE_DETECTION_COST_S + spoken))
