"""Tests of binarization, by example and against an implementation frame by frame."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diarist.engines.multiscale.binarization import Binarization, speech_spans
from diarist.engines.speaker_activity import Grid
from support.strategies import patient

GRID = Grid(0.1)


def spans(probability, **rule):
    values = np.array(probability, dtype=np.float32)
    found = speech_spans(values, GRID, Binarization(**rule), len(values) * GRID.step)
    return [(round(span.start, 3), round(span.end, 3)) for span in found]


def test_speech_starts_above_onset_and_ends_below_offset():
    probability = [0.1, 0.6, 0.8, 0.6, 0.4, 0.2, 0.6, 0.1]
    assert spans(probability, onset=0.7, offset=0.3) == [(0.2, 0.5)]
    assert spans(probability, onset=0.5, offset=0.5) == [(0.1, 0.4), (0.6, 0.7)]


def test_a_value_at_a_threshold_changes_nothing():
    assert spans([0.5, 0.5, 0.6, 0.5, 0.5], onset=0.5, offset=0.5) == [(0.2, 0.5)]


def test_speech_continues_to_the_end_of_the_recording():
    assert spans([0, 1, 1]) == [(0.1, 0.3)]


def test_padding_stays_within_the_recording_and_merges_segments_that_touch():
    assert spans([1, 0, 0, 1], pad_onset=0.1, pad_offset=0.1) == [(0.0, 0.4)]
    assert spans([1, 0, 0, 0, 1], pad_offset=0.1, pad_onset=0.1) == [(0.0, 0.2), (0.3, 0.5)]


def test_negative_padding_can_remove_segments():
    assert spans([0, 1, 1, 1, 0, 1, 0], pad_onset=-0.1) == [(0.2, 0.4)]


def test_short_segments_are_dropped_before_or_after_pauses_are_closed():
    probability = [1, 0, 1, 0, 0, 0, 0, 1, 1, 1]
    rule = {"min_duration_on": 0.15, "min_duration_off": 0.15}
    assert spans(probability, **rule, filter_speech_first=True) == [(0.7, 1.0)]
    assert spans(probability, **rule, filter_speech_first=False) == [(0.0, 0.3), (0.7, 1.0)]


thresholds = st.sampled_from((0.0, 0.1, 0.3, 0.5, 0.9, 1.0))
lengths = st.sampled_from((0.0, 0.05, 0.15, 0.35))


@given(
    hnp.arrays(np.float32, st.integers(0, 60), elements=st.sampled_from((0.0, 0.1, 0.2, 0.4, 0.5, 0.8, 1.0))),
    thresholds,
    thresholds,
)
@patient
def test_hysteresis_is_a_walk_from_frame_to_frame(probability, onset, offset):
    on, state = [], False
    for value in probability:
        state = not value < np.float32(offset) if state else bool(value > np.float32(onset))
        on.append(state)
    expected = np.zeros(len(probability), dtype=bool)
    for start, end in spans(probability, onset=onset, offset=offset):
        expected[round(start / 0.1) : round(end / 0.1)] = True
    assert on == expected.tolist()


@given(
    hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(0, 1, width=32)),
    thresholds,
    thresholds,
    lengths,
    lengths,
    st.sampled_from((-0.15, 0.0, 0.12)),
    st.booleans(),
)
@patient
def test_speech_is_ordered_disjoint_and_within_the_recording(values, onset, offset, on, off, pad, first):
    duration = len(values) * GRID.step
    rule = Binarization(onset, offset, pad, pad, on, off, first)
    found = speech_spans(values, GRID, rule, duration)
    assert all(0 <= span.start < span.end <= duration for span in found)
    gaps = [later.start - earlier.end for earlier, later in pairwise(found)]
    assert all(gap > 0 for gap in gaps)
    if first:  # pauses are closed last, so that none that is too short is left
        assert all(gap >= off - 1e-6 for gap in gaps)
    else:
        assert all(span.duration >= on - 1e-6 for span in found)


@pytest.mark.nemo
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("onset", "offset"), [(0.9, 0.5), (0.1, 0.1), (0.5, 0.3), (0.3, 0.6)])
def test_it_is_what_nemo_gives(nemo_models, onset, offset, first):
    import torch
    from nemo.collections.asr.parts.utils.vad_utils import generate_vad_segment_table_per_tensor

    rng = np.random.default_rng(0)
    walk = np.convolve(rng.standard_normal(2_000), np.ones(25) / 5, mode="same")
    probability = (1 / (1 + np.exp(-3 * walk))).astype(np.float32)
    probability[-3:] = 0.0  # NeMo drops the last frame of speech that goes on to the end
    # durations are multiples of 0.02 s: none lies at a threshold, where float32 would decide
    rule = Binarization(onset, offset, 0.03, 0.05, 0.11, 0.19, first)
    settings = {
        "onset": onset, "offset": offset, "pad_onset": 0.03, "pad_offset": 0.05, "min_duration_on": 0.11,
        "min_duration_off": 0.19, "filter_speech_first": float(first), "frame_length_in_sec": 0.02,
    }  # fmt: skip
    theirs = generate_vad_segment_table_per_tensor(torch.from_numpy(probability), settings)
    ours = speech_spans(probability, Grid(0.02), rule, 40.0)
    assert len(ours) > 5
    assert np.array([(span.start, span.end) for span in ours]) == pytest.approx(theirs[:, :2].numpy(), abs=1e-3)
