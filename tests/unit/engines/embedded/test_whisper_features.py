"""Tests that the features are equal to those of faster-whisper."""

from __future__ import annotations

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from diarist.engines.embedded.whisper_features import frames_per_product, log_mel


@pytest.mark.parametrize("samples", [1_600, 2_560, 16_000, 100_003, 326_400])
@pytest.mark.parametrize("bands", [80, 128])
def test_features_are_those_of_faster_whisper(samples, bands):
    extractor = FeatureExtractor(feature_size=bands)
    heard = np.random.default_rng(samples).uniform(-0.3, 0.3, samples).astype(np.float32)
    heard[samples // 2 :] = 0
    expected = extractor(heard, padding=0)
    found = log_mel(extractor, heard)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert found == pytest.approx(expected, abs=1e-4)


def test_silence_has_features():
    extractor = FeatureExtractor()
    silence = np.zeros(16_000, dtype=np.float32)
    assert log_mel(extractor, silence) == pytest.approx(extractor(silence, padding=0))


@pytest.mark.parametrize(("bands", "frames"), [(80, 16), (128, 10)])
def test_products_are_too_small_for_several_threads(bands, frames):
    filters = FeatureExtractor(feature_size=bands).mel_filters
    assert frames_per_product(filters) == frames
    assert filters.size * frames < 2**18 <= filters.size * (frames + 1)
