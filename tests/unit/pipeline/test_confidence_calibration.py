from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.pipeline.attribution import attribute
from diarist.pipeline.confidence_calibration import (
    CALIBRATED_DIARIZER,
    contested_frames,
    contested_share,
    count_probability,
    speaker_probability,
)
from diarist.types import Diarization, RecognizedWord, Span, SpeakerActivity, Turn
from support.strategies import patient

A, B = "SPEAKER_00", "SPEAKER_01"
TURNS = (Turn(Span(0.0, 2.0), A), Turn(Span(2.0, 4.0), B))
shares = st.floats(0, 1)


def diarized(scores: np.ndarray, diarizer: str = CALIBRATED_DIARIZER) -> Diarization:
    return Diarization(TURNS, activity=SpeakerActivity(scores.astype(np.float32), 0.1), diarizer=diarizer)


def clear(frames: int = 40, contested: int = 0) -> np.ndarray:
    """Return frames of two speakers, one after the other; the last ``contested`` frames could be either's."""
    scores = np.zeros((frames, 2))
    scores[: frames // 2, 0], scores[frames // 2 :, 1] = 1.0, 1.0
    scores[frames - contested :] = 0.5
    return scores


@patient
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=20))
def test_a_probability_whatever_the_evidence(pairs):
    posterior, contested = np.array(pairs).T
    probable = speaker_probability(posterior, contested)
    assert probable.shape == posterior.shape
    assert ((probable > 0) & (probable < 1)).all()


@patient
@given(shares, shares, shares)
def test_more_evidence_never_lowers_the_probability(one, other, contested):
    low, high = sorted((one, other))
    below, above = speaker_probability(np.array([low, high]), np.array([contested, contested]))
    assert below <= above
    sure, unsure = speaker_probability(np.array([contested, contested]), np.array([low, high]))
    assert sure >= unsure


def test_certainty_is_scaled_to_the_fitted_probability():
    certain, even = speaker_probability(np.array([1.0, 0.5]), np.array([0.0, 0.5]))
    assert 0.98 < certain < 0.999
    assert 0.3 < even < 0.6


def test_the_contested_share_is_the_other_speakers():
    activity = np.array([[0.8, 0.2, 0.1], [0.8, 0.2, 0.1], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    assert contested_share(activity, np.array([0, 1, 2, 0])) == pytest.approx([0.2, 0.8, 0.0, 0.5], abs=1e-4)
    assert contested_share(np.ones((3, 1)), np.zeros(3, dtype=np.int64)) == pytest.approx([0.0] * 3)


def test_words_in_shared_frames_are_less_certain_and_keep_their_speaker():
    words = [RecognizedWord(f" {i}", Span(0.4 * i, 0.4 * i + 0.3), 1.0) for i in range(5)]
    plain, shared = clear(), clear()
    shared[:20] = (0.6, 0.4)
    (sure,), (unsure,) = attribute(words, diarized(plain)), attribute(words, diarized(shared))
    assert sure.speaker == unsure.speaker == A
    assert all(a.speaker_confidence > b.speaker_confidence for a, b in zip(sure.words, unsure.words, strict=True))


def test_a_count_is_less_certain_the_more_frames_are_contested():
    sure = [count_probability(diarized(clear(contested=contested))) or 0.0 for contested in (0, 2, 8, 16)]
    assert all(a > b for a, b in itertools.pairwise(sure))
    assert sure[0] == pytest.approx(0.970, abs=0.005)
    assert 0.0 < sure[-1] < 0.5


def test_silence_says_nothing_about_the_count():
    silent = np.vstack([clear(contested=4), np.zeros((400, 2))])
    assert count_probability(diarized(silent)) == count_probability(diarized(clear(contested=4)))
    assert contested_frames(SpeakerActivity(np.zeros((0, 2), dtype=np.float32), 0.1)) == 0.0
    assert contested_frames(SpeakerActivity(np.zeros((9, 2), dtype=np.float32), 0.1)) == 0.0


@pytest.mark.parametrize(
    "unknown",
    [
        Diarization(diarizer=CALIBRATED_DIARIZER),
        diarized(clear(), "sortformer"),
        replace(diarized(clear()), activity=None),
    ],
    ids=["nobody", "another diarizer", "no activity"],
)
def test_an_uncalibrated_count_has_no_probability(unknown):
    assert count_probability(unknown) is None
