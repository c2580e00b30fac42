"""Tests of the speech that is recognized, and of the turns of words in possible speech."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diarist.pipeline.speech import ConfirmedSpeech, merged_speech, spans_of_speech
from diarist.types import Diarization, Span, SpeakerActivity, Turn, Utterance, Word
from support import strategies
from support.strategies import patient

A, B = "SPEAKER_00", "SPEAKER_01"
DIARIZATION = Diarization(
    (Turn(Span(1.0, 2.0), B), Turn(Span(4.0, 5.0), A)),
    np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32),
    SpeakerActivity(np.array([[0.1, 0.9]], dtype=np.float32), 1.0),
    possible_speech=(Span(0.0, 1.0), Span(2.0, 3.5)),
)


def said(speaker, *spans, confidence=0.5):
    return Utterance(tuple(Word(" word", span, speaker, confidence, 0.9) for span in spans))


def extended(*utterances, diarization=DIARIZATION):
    confirmed = ConfirmedSpeech(diarization)
    for utterance in utterances:
        confirmed.add([utterance])
    return confirmed.extended()


@given(strategies.turns(), st.floats(0, 2))
@patient
def test_speech_is_ordered_disjoint_and_covers_all_turns(turns, min_gap):
    spans = merged_speech([turn.span for turn in turns], min_gap)
    for before, after in itertools.pairwise(spans):
        assert after.start - before.end >= min_gap
    for spoken in turns:
        assert any(span.start <= spoken.span.start and spoken.span.end <= span.end for span in spans)
    edges = {edge for spoken in turns for edge in (spoken.span.start, spoken.span.end)}
    assert {edge for span in spans for edge in (span.start, span.end)} <= edges


def test_speech_bridges_short_gaps_only():
    assert merged_speech([Span(0, 1), Span(0.5, 3), Span(1.5, 2), Span(3.1, 4), Span(5, 6)]) == (Span(0, 4), Span(5, 6))
    assert merged_speech(()) == ()


def test_turns_and_possible_speech_are_recognized():
    assert spans_of_speech(DIARIZATION) == (Span(0.0, 1.0), Span(1.0, 2.0), Span(2.0, 3.5), Span(4.0, 5.0))


def test_without_words_in_possible_speech_the_turns_stay():
    assert extended(said(B, Span(1.2, 1.5)), said(A, Span(4.2, 4.4))) is DIARIZATION
    assert extended(said(A, Span(3.6, 3.9))) is DIARIZATION, "this is neither a turn nor possible speech"
    assert extended(said(B, Span(2.1, 2.4), confidence=0.49)) is DIARIZATION


def test_a_turn_is_extended_over_the_words_of_its_speaker():
    turns = extended(said(B, Span(0.5, 0.9), Span(1.1, 1.4), Span(2.1, 2.4))).turns
    assert turns == (Turn(Span(0.5, 2.4), B), Turn(Span(4.0, 5.0), A))


def test_a_word_far_from_the_turns_of_its_speaker_is_a_turn():
    result = extended(said(A, Span(0.2, 0.4), Span(0.5, 0.9)))
    assert result.turns == (Turn(Span(0.2, 0.9), A), Turn(Span(1.0, 2.0), B), Turn(Span(4.0, 5.0), A))
    assert result.speakers == (A, B)
    assert result.embeddings.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert result.activity.scores.tolist() == [[np.float32(0.9), np.float32(0.1)]]


def test_a_turn_does_not_extend_beyond_possible_speech():
    turns = extended(said(B, Span(3.2, 3.7))).turns
    assert turns == (Turn(Span(1.0, 2.0), B), Turn(Span(3.2, 3.5), B), Turn(Span(4.0, 5.0), A))


def test_pauses_between_turns_stay():
    turns = (Turn(Span(0.0, 1.0), A), Turn(Span(1.2, 2.0), A), Turn(Span(3.0, 4.0), A))
    diarization = Diarization(turns, np.ones((1, 2), dtype=np.float32), possible_speech=(Span(2.0, 3.0),))
    found = extended(said(A, Span(2.1, 2.3)), diarization=diarization).turns
    assert [turn.span for turn in found] == [Span(0.0, 1.0), Span(1.2, 2.3), Span(3.0, 4.0)]
