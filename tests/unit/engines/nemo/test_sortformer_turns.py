"""Turns from probabilities, and how the number of speakers that the caller knows is met."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.engines.multiscale.binarization import Binarization
from diarist.engines.nemo.sortformer_turns import MIN_PROBABILITY, TurnFinder
from diarist.types import Diarization

STEP = 0.08
CALLHOME = Binarization(0.641, 0.561, 0.229, 0.079, 0.511, 0.296)
DIHARD = Binarization(0.56, 1.0, 0.063, 0.002, 0.007, 0.151)


def probabilities(frames: int, *segments: tuple[int, int, int, float], speakers: int = 4) -> np.ndarray:
    """Return probabilities that are low except in the given segments ``(speaker, first, stop, probability)``."""
    values = np.full((frames, speakers), 0.02, dtype=np.float32)
    for speaker, first, stop, value in segments:
        values[first:stop, speaker] = value
    return values


def find(
    values: np.ndarray, min_speakers: int = 1, max_speakers: int = 4, binarization: Binarization = CALLHOME
) -> Diarization:
    return TurnFinder(STEP, binarization, len(values) * STEP).find(values, min_speakers, max_speakers, "sortformer")


def spans(diarization: Diarization, speaker: str) -> list[tuple[float, float]]:
    return [
        (round(turn.span.start, 3), round(turn.span.end, 3)) for turn in diarization.turns if turn.speaker == speaker
    ]


TWO = probabilities(500, (2, 25, 100, 0.9), (0, 150, 250, 0.95), (2, 200, 300, 0.8))


def test_turns_are_padded_stretches_and_may_overlap():
    found = find(TWO)
    assert found.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert spans(found, "SPEAKER_00") == [(1.771, 8.079), (15.771, 24.079)]
    assert spans(found, "SPEAKER_01") == [(11.771, 20.079)]
    assert found.diarizer == "sortformer"
    assert found.embeddings.shape == (2, 0)


def test_the_probabilities_are_kept_in_the_order_of_the_speakers():
    activity = find(TWO).activity
    assert activity is not None
    assert np.array_equal(activity.scores, TWO[:, [2, 0]])
    assert (activity.step, activity.start) == (STEP, 0.0)


def test_nobody_has_no_turns_and_no_columns():
    found = find(probabilities(100))
    assert found.turns == ()
    assert found.activity is not None
    assert found.activity.scores.shape == (100, 0)
    assert find(probabilities(0)).turns == ()


def test_turns_end_with_the_recording():
    values = probabilities(100, (1, 50, 100, 0.9))
    found = TurnFinder(STEP, CALLHOME, 7.93).find(values, 1, 4, "")
    assert spans(found, "SPEAKER_00") == [(3.771, 7.93)]


def test_a_turn_cut_by_the_end_is_judged_with_its_padding():
    values = probabilities(100, (1, 97, 100, 0.9))
    assert spans(find(values), "SPEAKER_00") == [(7.531, 8.0)]  # 0.469 s, and 0.548 s with what lies behind the end


def test_an_offset_above_the_onset_is_decided_every_10_ms():
    found = find(probabilities(200, (0, 25, 100, 0.9)), binarization=DIHARD)
    # on and off by turns, so the last 10 ms are off
    assert spans(found, "SPEAKER_00") == [(1.937, 7.992)]


THREE = probabilities(
    700, (0, 0, 100, 0.9), (1, 100, 250, 0.9), (3, 250, 300, 0.9), (0, 240, 310, 0.3), (0, 400, 500, 0.95),
    (1, 495, 560, 0.2), (3, 500, 550, 0.9),
)  # fmt: skip


def test_too_many_speakers_leave_the_most_active_and_nothing_said_is_lost():
    found = find(THREE, max_speakers=2)
    assert len(find(THREE).speakers) == 3
    assert found.speakers == ("SPEAKER_00", "SPEAKER_01")
    # the first segment of the third goes to the first, who is more probable there, the other one to the second
    assert spans(found, "SPEAKER_00") == [(0.0, 8.079), (19.771, 24.079), (31.771, 40.079)]
    assert spans(found, "SPEAKER_01") == [(7.771, 20.079), (39.771, 44.079)]
    assert found.activity is not None
    assert found.activity.scores[260, 0] == pytest.approx(0.9)
    assert found.activity.scores[260, 1] == pytest.approx(0.02)


def test_one_speaker_says_everything():
    found = find(THREE, min_speakers=1, max_speakers=1)
    assert found.speakers == ("SPEAKER_00",)
    assert spans(found, "SPEAKER_00") == [(0.0, 24.079), (31.771, 44.079)]


def test_the_given_probabilities_are_left_as_they_were():
    before = THREE.copy()
    find(THREE, max_speakers=1)
    find(THREE, min_speakers=4)
    assert np.array_equal(THREE, before)


@pytest.mark.parametrize("binarization", [CALLHOME, DIHARD])
@pytest.mark.parametrize("value", [0.5, 0.3, MIN_PROBABILITY * 1.01])
def test_a_missing_speaker_is_found_where_the_probability_allows(binarization, value):
    values = TWO.copy()
    values[350:400, 1] = value
    assert len(find(values, binarization=binarization).speakers) == 2
    found = find(values, min_speakers=3, binarization=binarization)
    assert len(found.speakers) == 3
    ((start, end),) = spans(found, "SPEAKER_02")
    assert (start, end) == pytest.approx((28.0 - binarization.pad_onset, 32.0 + binarization.pad_offset), abs=0.011)
    for speaker in ("SPEAKER_00", "SPEAKER_01"):
        assert spans(found, speaker) == spans(find(values, binarization=binarization), speaker)


def test_a_short_word_that_is_sure_comes_before_a_long_one_that_is_not():
    values = probabilities(500, (0, 0, 100, 0.9), (1, 200, 202, 0.9), (2, 300, 400, 0.5))
    assert find(values).speakers == ("SPEAKER_00",)
    assert spans(find(values, min_speakers=2), "SPEAKER_01") == [(15.771, 16.239)]
    assert len(find(values, min_speakers=3).speakers) == 3


def test_a_single_faint_frame_is_enough_where_it_is_asked_for():
    values = probabilities(500, (0, 0, 100, 0.9), (1, 200, 201, 0.15))
    assert len(find(values, min_speakers=2).speakers) == 2


def test_a_speaker_of_whom_there_is_no_sign_is_not_made_up():
    found = find(TWO, min_speakers=4)
    assert len(found.speakers) == 2
    assert find(probabilities(100), min_speakers=2).turns == ()


def test_no_more_speakers_are_added_than_asked_for():
    values = probabilities(500, (0, 0, 100, 0.9), (1, 200, 250, 0.5), (2, 300, 400, 0.5), (3, 420, 430, 0.5))
    found = find(values, min_speakers=2)
    assert found.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert spans(found, "SPEAKER_01") == [(23.771, 32.079)]  # who speaks the longest
