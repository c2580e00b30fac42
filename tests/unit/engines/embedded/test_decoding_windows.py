"""The windows that Whisper decodes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.embedded.decoding_windows import decoding_windows
from diarist.types import SAMPLE_RATE, Audio, Span
from support.strategies import patient

PARAMETERS = {"margin": 0.4, "overlap": 0.5, "search": 1.0}


def noise(duration, *quiet):
    samples = np.random.default_rng(0).standard_normal(round(duration * SAMPLE_RATE)).astype(np.float32) * 0.1
    for span in quiet:
        samples[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)] = 0.0
    return Audio(samples)


def test_no_chunks_have_no_windows():
    assert decoding_windows(noise(1.0), (), **PARAMETERS) == ()


def test_a_pause_ends_a_window_in_its_middle_and_is_heard_in_part():
    first, second = decoding_windows(noise(20.0), (Span(1, 8), Span(10, 19)), **PARAMETERS)
    assert (first.core, second.core) == (Span(0, 9), Span(9, 20))
    assert (first.span.start, first.span.end) == (pytest.approx(0.6), pytest.approx(8.4))
    assert (second.span.start, second.span.end) == (pytest.approx(9.6), pytest.approx(19.4))


def test_speech_without_a_pause_is_cut_where_it_is_quietest_and_heard_from_both_sides():
    first, second = decoding_windows(noise(20.0, Span(10.6, 10.8)), (Span(0, 10), Span(10, 20)), **PARAMETERS)
    cut = first.core.end
    assert cut == second.core.start
    assert 10.6 <= cut <= 10.8
    assert (first.span.end, second.span.start) == (pytest.approx(cut + 0.5), pytest.approx(cut - 0.5))


@given(st.lists(st.tuples(st.sampled_from((0.0, 0.0, 0.3, 2.0)), st.floats(0.5, 5)), max_size=5))
@patient
def test_cores_cover_the_recording_and_windows_lie_in_it(parts):
    chunks, at = [], 0.0
    for pause, length in parts:
        chunks.append(Span(at + pause, at + pause + length))
        at = chunks[-1].end
    audio = noise(at + 1.0)
    windows = decoding_windows(audio, chunks, **PARAMETERS)
    assert all(a.core.end == b.core.start for a, b in pairwise(windows))
    assert all(0.0 <= w.span.start <= w.span.end <= audio.duration for w in windows)
    if windows:
        assert (windows[0].core.start, windows[-1].core.end) == (0.0, audio.duration)
