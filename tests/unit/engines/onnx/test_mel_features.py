"""Tests that mel features of a part equal those of the whole. The tests of the export compare them with NeMo's."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.engines.onnx import mel_features
from diarist.engines.onnx.mel_features import MelFeatures
from diarist.models.feature_settings import FeatureSettings

SETTINGS = FeatureSettings(16_000, 20, 512, 400, 160, 0.97, 2.0, "add", 2.0**-24, "per_feature")


def features(**changes) -> MelFeatures:
    settings = FeatureSettings(**{**{name: getattr(SETTINGS, name) for name in SETTINGS.__slots__}, **changes})
    rng = np.random.default_rng(1)
    window = np.hanning(400).astype(np.float32)
    return MelFeatures(settings, window, rng.random((20, 257), dtype=np.float32))


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def directly(mel, samples):
    """Compute the features by their definition, in double precision."""
    s = mel.settings
    x = samples.astype(np.float64)
    x = np.concatenate([x[:1], x[1:] - s.preemphasis * x[:-1]])
    x = np.pad(x, s.n_fft // 2)
    window = np.pad(np.hanning(400), 56)
    rows = []
    for frame in range(len(samples) // s.hop_samples):
        part = x[frame * s.hop_samples :][: s.n_fft] * window
        rows.append(np.log(np.abs(np.fft.rfft(part)) ** 2 @ mel._filters.astype(np.float64) + s.guard_value))
    return np.array(rows)


def test_features_match_the_definition():
    mel, samples = features(), noise(16_123)
    wanted = directly(mel, samples)
    assert np.abs(mel.raw(samples, 0, 100) - wanted).max() < 1e-4
    normal = (wanted - wanted.mean(axis=0)) / (wanted.std(axis=0, ddof=1) + 1e-5)
    assert np.abs(mel.normalized(samples) - normal).max() < 1e-3


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (0, 7), (1, 3), (37, 61), (90, 100), (5, 5)])
def test_a_part_is_that_of_the_whole(first, stop):
    mel, samples = features(), noise(16_123)
    assert np.abs(mel.raw(samples, first, stop) - mel.raw(samples, 0, 100)[first:stop]).max(initial=0) < 1e-5


def test_long_recordings_go_by_blocks_and_give_the_same(monkeypatch):
    mel, samples = features(), noise(16_123)
    whole, mean = mel.raw(samples, 0, 100), mel.statistics(samples)
    monkeypatch.setattr(mel_features, "BLOCK_FRAMES", 7)
    assert np.abs(mel.raw(samples, 0, 100) - whole).max() < 1e-5
    for one, other in zip(mel.statistics(samples), mean, strict=True):
        assert np.abs(one - other).max() < 1e-5


def test_without_normalization_nothing_is_changed():
    mel, samples = features(normalize="none"), noise(4_000)
    assert np.array_equal(mel.normalized(samples), mel.raw(samples, 0, 25))


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 320])
def test_short_and_silent_recordings_have_finite_features(samples):
    for audio in (np.zeros(samples, dtype=np.float32), noise(samples)):
        found = features().normalized(audio)
        assert found.shape == (samples // 160, 20)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()


def test_a_clamped_logarithm():
    found = features(guard="clamp", guard_value=1e-3, normalize="none").normalized(np.zeros(1_600, dtype=np.float32))
    assert np.allclose(found, np.log(1e-3))


def test_arrays_that_do_not_fit_the_settings_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        MelFeatures(SETTINGS, np.ones(300, np.float32), np.ones((20, 257), np.float32))
