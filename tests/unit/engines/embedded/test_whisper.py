"""Tests of the code around Whisper: words from its alignment, loops, and batches."""

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
    clamp_to,
    whole_words,
)
from diarist.protocols import LANGUAGE_DETECTION_COST_S
from diarist.types import SAMPLE_RATE, Audio, RecognizedWord, Span
from support.strategies import patient


def part(text, start, end, probability=0.9):
    return {"word": text, "start": start, "end": end, "probability": probability}


def texts(*parts):
    return [word.text for word in whole_words(parts, 0.0)]


def test_punctuation_takes_no_time():
    words = whole_words([part(" Yes", 1.0, 1.4), part(".", 1.4, 6.0), part(" No", 6.0, 6.2)], 10.0)
    assert [(word.text, word.span) for word in words] == [(" Yes.", Span(11.0, 11.4)), (" No", Span(16.0, 16.2))]


def test_an_opening_mark_belongs_to_the_word_after_it():
    assert texts(part(" (", 0, 0.1), part("so", 0.1, 0.3), part(")", 0.3, 0.4), part(" it", 0.4, 0.5)) == [
        " (so)",
        " it",
    ]


def test_the_parts_of_a_syllable_are_one_word():
    parts = [part("ก", 0.0, 0.2, 0.9), part("ำ", 0.2, 0.4, 0.5), part("เ", 0.4, 0.5), part("ด", 0.5, 0.7)]
    words = whole_words(parts, 0.0)
    assert [word.text for word in words] == ["กำ", "เด"]
    assert (words[0].span, words[0].confidence) == (Span(0.0, 0.4), 0.5)


def test_a_latin_word_among_chinese_ones_is_whole():
    assert texts(part("用", 0, 1), part("Wi", 1, 2), part("Fi", 2, 3), part("上", 3, 4)) == ["用", "WiFi", "上"]


def test_a_space_of_its_own_belongs_to_the_word_after_it():
    assert texts(part("ดี", 0, 1), part(" ", 1, 1), part("น้ำ", 1, 2)) == ["ดี", " น้ำ"]
    assert texts(part("好", 0, 1), part(" ", 1, 1), part("。", 1, 1)) == ["好。"]


def test_an_alignment_without_text_has_no_words():
    assert whole_words([part(" ", 0, 1)], 0.0) == []


@given(st.lists(st.tuples(st.floats(-1, 12), st.floats(0, 3))), st.floats(0, 10))
@patient
def test_words_lie_in_the_recording(spans, duration):
    words = [RecognizedWord(f" {i}", Span(start, start + length), 0.8) for i, (start, length) in enumerate(spans)]
    clamped = clamp_to(words, duration)
    assert [word.text for word in clamped] == [word.text for word in words]
    assert all(0 <= word.span.start <= word.span.end <= duration for word in clamped)


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

    def _transcribe(self, audio, windows, tokenizer, report):
        return [[] for _ in windows]


@pytest.mark.parametrize("spoken", [LANGUAGE_DETECTION_COST_S, 3 * LANGUAGE_DETECTION_COST_S])
def test_language_detection_has_the_cost_that_the_pipeline_assumes(spoken):
    told: list[float] = []
    audio = Audio(np.zeros(round(100 * SAMPLE_RATE), dtype=np.float32))
    Wordless().recognize(audio, (Span(1.0, 1.0 + spoken),), None, lambda _, done: told.append(done))
    assert told[1] / 0.95 == pytest.approx(LANGUAGE_DETECTION_COST_S / (LANGUAGE_DETECTION_COST_S + spoken))
