"""Tests of the fusion of windows, speakers and frames on one grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diarist.engines.speaker_activity import (
    Grid,
    Window,
    centroids,
    median_filter,
    sliding_windows,
    speaker_posterior,
    spread_over_frames,
    top_speakers,
)
from diarist.types import Span
from support.strategies import patient

GRID = Grid(0.016875, 0.0225)


def test_the_posterior_is_silent_in_silence_and_shares_overlap():
    score = np.array([[3.0, 0.0, -1.0], [3.0, 3.0, -9.0], [1.0, 0.5, 0.0]], dtype=np.float32)
    shares = speaker_posterior(score, np.array([0, 2, 1]), sharpness=2.0)
    assert shares[0].tolist() == [0, 0, 0]
    assert shares[1] == pytest.approx([1, 1, 0], abs=1e-4)
    assert shares[2].sum() == pytest.approx(1.0)
    assert shares[2, 0] / shares[2, 1] == pytest.approx(np.e)


@st.composite
def spoken_runs(draw):
    at, runs = 0, []
    for _ in range(draw(st.integers(0, 8))):
        first = at + draw(st.integers(0, 50))
        at = first + draw(st.integers(1, 700))
        runs.append(Span(GRID.time(first), GRID.time(at)))
    return runs


@given(spoken_runs())
@patient
def test_windows_cover_every_run_that_is_long_enough(runs):
    length, shift, least = 1.5, 0.75, 0.8
    windows = sliding_windows(runs, length, shift, least)
    for run, span in enumerate(runs):
        own = [window.span for window in windows if window.run == run]
        if span.duration < least:
            assert own == []
            continue
        assert (own[0].start, own[-1].end) == (pytest.approx(span.start), pytest.approx(span.end))
        assert all(window.duration == pytest.approx(min(length, span.duration)) for window in own)
        gaps = np.diff([window.start for window in own])
        assert (gaps <= shift + 1e-9).all()
        assert (gaps > 0).all()
    assert [window.run for window in windows] == sorted(window.run for window in windows)
    assert len(sliding_windows(runs, length, shift, 0.0)) >= max(len(windows), len(runs))


def test_evidence_is_the_mean_over_covering_windows_and_zero_elsewhere():
    windows = (Window(Span(GRID.time(10), GRID.time(20)), 0), Window(Span(GRID.time(15), GRID.time(30)), 0))
    similarity = np.array([[0.8, 0.2], [0.4, 0.6]], dtype=np.float32)
    found = spread_over_frames(GRID, 40, windows, similarity)
    assert found[:10].tolist() == found[30:].tolist() == [[0.0, 0.0]] * 10
    assert found[12] == pytest.approx([0.8, 0.2])
    assert found[17] == pytest.approx([0.6, 0.4])
    assert found[25] == pytest.approx([0.4, 0.6])


def test_a_window_beyond_the_grid_does_no_harm():
    window = Window(Span(GRID.time(5), GRID.time(90)), 0)
    found = spread_over_frames(GRID, 8, (window,), np.array([[0.5]], dtype=np.float32))
    assert found[:, 0].tolist() == [0.0] * 5 + [0.5] * 3


def test_a_centroid_is_the_weighted_mean_of_its_windows():
    unit = np.eye(3, dtype=np.float32)
    found = centroids(unit, np.array([0, 1, 1]), np.array([1.0, 3.0, 4.0], dtype=np.float32))
    assert found == pytest.approx(np.array([[1, 0, 0], [0, 0.6, 0.8]]))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 50), st.integers(1, 3)), elements=st.floats(-2, 2, width=32)),
    st.sampled_from((1, 3, 7, 31)),
)
@patient
def test_the_running_median_is_the_naive_one(values, frames):
    smooth = median_filter(values, frames)
    assert smooth.shape == values.shape
    half = frames // 2
    for i in range(len(values)):
        around = np.clip(np.arange(i - half, i + half + 1), 0, len(values) - 1)
        assert smooth[i] == pytest.approx(np.median(values[around], axis=0))


def test_the_running_median_has_no_seams_between_blocks():
    values = np.random.default_rng(0).random((40_100, 1), dtype=np.float32)
    smooth = median_filter(values, 31)
    for first in (19_900, 39_900):
        segment = median_filter(values[first : first + 200], 31)
        assert np.array_equal(smooth[first + 15 : first + 185], segment[15:-15])


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=st.floats(-2, 2, width=32)),
    st.data(),
)
@patient
def test_the_top_speakers_match_the_count_and_exceed_all_others(score, data):
    speakers = score.shape[1]
    count = data.draw(hnp.arrays(np.int64, len(score), elements=st.integers(0, speakers)))
    active = top_speakers(score, count)
    assert active.sum(axis=1).tolist() == count.tolist()
    for row, on in zip(score, active, strict=True):
        if on.any() and not on.all():
            assert row[on].min() >= row[~on].max()


def test_times_of_runs_are_those_of_their_frames():
    (window,) = sliding_windows([Span(GRID.time(100), GRID.time(160))], 1.5, 0.75, 0.5)
    assert GRID.frame_at(window.span.start) == 100
    assert window.span.duration == pytest.approx(60 * GRID.step)


def test_what_is_done_in_blocks_has_no_seams():
    random = np.random.default_rng(0)
    score = random.random((45_000, 5), dtype=np.float32)
    count = random.integers(0, 4, 45_000)
    rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
    assert np.array_equal(top_speakers(score, count), rank < count[:, None])
    likely = np.exp(2.0 * (score - score.max(axis=1, keepdims=True)))
    shares = np.minimum(1.0, count[:, None] * likely / likely.sum(axis=1, keepdims=True)).astype(np.float32)
    assert np.array_equal(speaker_posterior(score, count, 2.0), shares)
