"""Tests of muting on constant samples."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.audio.muting import mute
from diarist.types import SAMPLE_RATE, Audio, Span

FADE = SAMPLE_RATE // 100


@pytest.fixture
def audio():
    return Audio(np.full(4 * SAMPLE_RATE, 0.5, dtype=np.float32))


def test_spans_are_silent_and_fade_at_their_edges(audio):
    samples = mute(audio, (Span(1.0, 2.0), Span(2.5, 2.505)), 0, 4 * SAMPLE_RATE).samples
    rate = SAMPLE_RATE
    assert (samples[:rate] == 0.5).all()
    assert (np.diff(samples[rate : rate + FADE]) < 0).all()
    assert (samples[rate + FADE : 2 * rate - FADE] == 0.0).all()
    assert (np.diff(samples[2 * rate - FADE : 2 * rate]) > 0).all()
    assert (samples[2 * rate : round(2.5 * rate)] == 0.5).all()
    assert samples[round(2.5 * rate) : round(2.505 * rate)].min() < 0.1
    assert (samples[round(2.505 * rate) :] == 0.5).all()
    assert (audio.samples == 0.5).all()


def test_only_the_given_samples_are_copied(audio):
    muted = mute(audio, (Span(1.5, 2.0), Span(3.5, 9.0)), SAMPLE_RATE, 3 * SAMPLE_RATE)
    assert muted.duration == audio.duration
    heard = np.flatnonzero(muted.samples)
    assert (heard.min(), heard.max()) == (SAMPLE_RATE, 3 * SAMPLE_RATE - 1)
    assert len(heard) == pytest.approx(1.5 * SAMPLE_RATE, abs=2 * FADE)


def test_samples_outside_of_the_audio_are_ignored(audio):
    muted = mute(audio, (Span(1.0, 2.0),), -SAMPLE_RATE, 9 * SAMPLE_RATE)
    assert np.count_nonzero(muted.samples) == pytest.approx(3 * SAMPLE_RATE, abs=2 * FADE)
