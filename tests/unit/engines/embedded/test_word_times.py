"""The times of words: what they can take to say, and where there is sound."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.embedded.word_times import (
    MIN_WORD_S,
    Loudness,
    in_sequence,
    max_spoken_duration,
    place,
    trim_to_speech,
)
from diarist.types import SAMPLE_RATE, Audio, RecognizedWord, Span
from support.strategies import patient


def word(start, end, text=" word"):
    return RecognizedWord(text, Span(start, end), 0.8)


def sound(duration, *loud):
    """Return noise at -80 dB, and at -20 dB within the given spans."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(round(duration * SAMPLE_RATE)).astype(np.float32) * 1e-4
    for span in loud:
        samples[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)] *= 1e3
    return Audio(samples)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        (" so", 0.7, 0.7),
        (" unbelievable", 1.2, 1.2),
        (" 1,255", 2.0, 2.5),  # one thousand two hundred and fifty-five
        (" 555-0123", 3.5, 4.0),
        (" $20", 1.5, 1.5),
        (" 3%", 1.0, 1.0),
        (" Dr.", 1.0, 1.0),
        (" NASA", 2.0, 2.0),
        (" I", 0.7, 0.7),
        ("東京都", 1.0, 1.1),
        ("สวัสดี", 1.0, 2.0),
        ("", 0.7, 0.7),
    ],
)
def test_a_word_takes_what_its_sounds_take(text, least, most):
    assert least - 1e-9 <= max_spoken_duration(text) <= most + 1e-9


def test_a_word_of_plausible_length_stays():
    spoken = word(3.0, 3.6)
    assert place(spoken, sound(9.0)) is spoken


def test_a_word_that_is_long_for_a_pause_before_it_keeps_its_end():
    spoken = word(1.0, 6.7, " I")
    placed = place(spoken, sound(9.0, Span(6.1, 8.0)))
    assert (placed.span.start, placed.span.end) == (pytest.approx(6.0), 6.7)


def test_a_word_that_is_long_for_speech_before_it_keeps_its_end():
    spoken = word(1.0, 6.7, " I")
    placed = place(spoken, sound(9.0, Span(0.0, 9.0)))
    assert placed.span.end == 6.7


def test_a_word_that_is_long_for_a_pause_after_it_keeps_its_start():
    spoken = word(1.0, 6.7, " I")
    placed = place(spoken, sound(9.0, Span(0.0, 1.7)))
    assert (placed.span.start, placed.span.end) == (1.0, pytest.approx(1.7))


def test_the_last_words_stay_within_the_recording_and_have_a_duration():
    """The alignment may end later than the recording, since its times are corrected by a constant."""
    words = [word(8.2, 8.9, "that"), word(8.9, 9.04, "it's"), word(9.04, 9.04, "not")]
    ordered = in_sequence([place(each, sound(9.0)) for each in words])
    assert ordered[-1].span.end == 9.0
    assert min(each.span.duration for each in ordered) > MIN_WORD_S


def test_a_long_number_is_left_whole():
    spoken = word(1.0, 4.0, " 555-0123")
    assert place(spoken, sound(9.0)) is spoken


def test_the_end_of_the_recording_has_a_level():
    assert Loudness.measure(sound(1.0), Span(1.0, 2.0)).mean_db(Span(1.5, 2.0)) == pytest.approx(-100)


@given(st.lists(st.tuples(st.floats(0, 12), st.just(0.0) | st.floats(0, 3))))
@patient
def test_words_keep_their_order_and_do_not_overlap(spans):
    words = [word(start, start + length, f" {i}") for i, (start, length) in enumerate(spans)]
    ordered = in_sequence(words)
    assert all(w.span.duration > 0 for w in ordered)
    assert [w.text for w in ordered] == [w.text for w in words]
    assert all(a.span.start <= b.span.start + 1e-9 for a, b in pairwise(ordered))
    assert all(a.span.end <= b.span.start + 1e-9 for a, b in pairwise(ordered))


def test_words_without_duration_share_the_time_of_the_word_before():
    ordered = in_sequence([word(0.0, 0.9, "ab"), word(0.9, 0.9, "c"), word(0.9, 0.9, "d"), word(2.0, 2.5, "e")])
    edges = [pytest.approx(each) for each in (0.0, 0.435, 0.6675, 0.9)]
    assert [w.span.start for w in ordered[:3]] == edges[:3]
    assert [w.span.end for w in ordered[:3]] == edges[1:]
    assert ordered[3].span == Span(2.0, 2.5)


def test_a_word_of_one_frame_shares_the_time_of_the_word_before():
    ordered = in_sequence([word(0.0, 0.22, "be"), word(0.22, 0.24, "written"), word(0.24, 0.36, "I")])
    assert ordered[0].span.end == ordered[1].span.start < 0.15
    assert [ordered[1].span.end, ordered[2].span.start] == [0.24, 0.24]


def test_a_first_word_without_duration_shares_the_time_of_the_next_one():
    ordered = in_sequence([word(1.0, 1.0, "a"), word(1.0, 2.0, "b")])
    assert [w.span for w in ordered] == [Span(1.0, 1.5), Span(1.5, 2.0)]


def test_words_that_a_neighbor_has_too_little_time_for_share_that_of_further_ones():
    """The alignment gives no time to the words of somebody who speaks at the same time as the one before."""
    texts = ("He", "should", "make", "a")
    words = [word(85.03, 85.35, "test."), *(word(85.43, 85.43, text) for text in texts)]
    ordered = in_sequence([*words, word(85.43, 85.47, "primary"), word(85.47, 85.81, "test"), word(85.81, 86.0, "as")])
    assert ordered[0].span == Span(85.03, 85.35)
    assert (ordered[1].span.start, ordered[6].span.end) == (85.43, 85.81)
    assert all(a.span.end == b.span.start for a, b in pairwise(ordered[1:]))
    assert min(w.span.duration for w in ordered) > 0.03
    assert ordered[-1].span == Span(85.81, 86.0)


def test_a_lone_word_without_duration_gets_a_moment_of_the_pause():
    def spans(*words):
        return [(w.span.start, w.span.end) for w in in_sequence(words)]

    before = pytest.approx(1.0 - MIN_WORD_S)
    assert spans(word(0.0, 0.5), word(1.0, 1.0), word(2.0, 2.5)) == [(0.0, 0.5), (before, 1.0), (2.0, 2.5)]
    assert spans(word(0.0, 0.0), word(2.0, 2.5)) == [(0.0, pytest.approx(MIN_WORD_S)), (2.0, 2.5)]
    assert spans(word(0.0, 0.0)) == [(0.0, pytest.approx(MIN_WORD_S))]
    assert in_sequence([]) == []


def test_a_word_loses_the_silence_around_speech():
    speech = (Span(1.0, 2.0), Span(3.0, 4.0))
    words = [word(0.6, 1.3), word(1.3, 1.6), word(1.8, 2.4), word(2.7, 3.2), word(3.5, 5.0)]
    spans = [Span(1.0, 1.3), Span(1.3, 1.6), Span(1.8, 2.0), Span(3.0, 3.2), Span(3.5, 4.0)]
    assert [w.span for w in trim_to_speech(words, speech)] == spans


def test_a_word_across_a_pause_keeps_it_and_one_outside_of_speech_stays():
    speech = (Span(1.0, 2.0), Span(3.0, 4.0))
    words = [word(0.2, 0.5), word(1.5, 3.5), word(6.0, 6.5)]
    assert trim_to_speech(words, speech) == words
    assert trim_to_speech(words, ()) == words


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 3))), st.lists(st.tuples(st.floats(0.1, 2), st.floats(0.1, 3))))
@patient
def test_trimmed_words_keep_their_order(spans, parts):
    speech, at = [], 0.0
    for pause, length in parts:
        speech.append(Span(at + pause, at + pause + length))
        at = speech[-1].end
    words = in_sequence([word(start, start + length, f" {i}") for i, (start, length) in enumerate(sorted(spans))])
    trimmed = trim_to_speech(words, speech)
    assert all(a.span.start <= b.span.start for a, b in pairwise(trimmed))
    assert all(w.span.start <= t.span.start <= t.span.end <= w.span.end for w, t in zip(words, trimmed, strict=True))
