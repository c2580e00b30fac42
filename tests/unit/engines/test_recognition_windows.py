"""Tests of the windows of a NeMo recognizer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.recognition_windows import WindowConfig, windows
from diarist.types import SAMPLE_RATE, Audio, Span


def noise(seconds, quiet=()):
    samples = np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32) / 10
    for span in quiet:
        samples[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)] /= 100
    return Audio(samples)


def test_no_speech_has_no_windows():
    assert windows(noise(1), ()) == ()
    assert windows(noise(0), (Span(0.0, 0.0),)) == ()


def test_windows_have_a_margin_around_speech():
    assert windows(noise(20), (Span(5.0, 6.0), Span(9.0, 10.0))) == (Span(4.7, 6.3), Span(8.7, 10.3))


def test_margins_stay_within_the_recording():
    assert windows(noise(10), (Span(0.1, 9.9),)) == (Span(0.0, 10.0),)
    assert windows(noise(10), (Span(8.0, 12.0),)) == (Span(7.7, 10.0),)


def test_short_pauses_do_not_end_a_window():
    assert windows(noise(20), (Span(5.0, 6.0), Span(7.5, 8.0))) == (Span(4.7, 8.3),)


def test_neighbors_share_the_pause_between_them():
    first, second = windows(noise(50), (Span(0.0, 25.0), Span(25.2, 49.0)))
    assert first.end == second.start == pytest.approx(25.1)


def test_speech_without_a_pause_is_cut_where_it_is_quietest():
    audio = noise(50, quiet=(Span(25.7, 25.85), Span(10.0, 11.0)))
    first, second = windows(audio, (Span(0.0, 50.0),))
    assert first.end == second.start
    assert 25.7 <= first.end <= 25.85


def test_silence_is_cut_in_its_middle():
    first, second = windows(Audio(np.zeros(40 * SAMPLE_RATE, dtype=np.float32)), (Span(0.0, 40.0),))
    assert first.end == second.start == pytest.approx(20.0, abs=0.02)


@given(
    st.lists(st.floats(0.01, 9.0), max_size=24),
    st.floats(0.2, 40.0),
)
def test_windows_are_disjoint_and_hold_all_speech(lengths, max_speech):
    edges = np.cumsum(lengths)
    speech = [Span(float(start), float(end)) for start, end in zip(edges[:-1:2], edges[1::2], strict=False)]
    audio = noise(float(edges[-1]) if lengths else 1.0)
    config = WindowConfig(max_speech=max_speech)
    found = windows(audio, speech, config)
    assert all(before.end <= after.start for before, after in pairwise(found))
    assert all(0.0 <= window.start < window.end <= audio.duration for window in found)
    assert all(window.duration <= max_speech + 2 * (config.margin + config.search) + 1e-6 for window in found)
    for span in speech:
        inside = span.clamp(0.0, audio.duration)
        assert sum(window.overlap(inside) for window in found) == pytest.approx(inside.duration)
