"""VBx on features that are drawn from a PLDA whose parameters are known."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from diarist.clustering.vbx import VbxParameters, vbx

UNSCALED = VbxParameters(statistics_scale=1.0, speaker_regularization=1.0, max_iterations=200)
"""The parameters with which the model is a mixture of Gaussians and the bound is one of its likelihood."""


def draw(seed, speakers, count, between):
    """Return features and their speakers."""
    random = np.random.default_rng(seed)
    means = random.standard_normal((speakers, len(between))) * np.sqrt(between)
    labels = np.concatenate([np.arange(speakers), random.integers(0, speakers, count - speakers)])
    return means[labels] + random.standard_normal((count, len(between))), labels


def same_partition(first, second):
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist()))


def log_likelihood(features, between):
    """Return the log-density of features of one speaker by their joint Gaussian: windows share the speaker's mean."""
    count = len(features)
    total = 0.0
    for values, variance in zip(features.T, between, strict=True):
        covariance = np.eye(count) + variance
        _, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
        total += -0.5 * (log_determinant + values @ np.linalg.solve(covariance, values))
    return total


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_bound_of_one_speaker_is_the_likelihood_of_the_joint_gaussian(count):
    between = np.array([9.0, 4.0, 1.0, 0.25, 0.0])
    features, _ = draw(count, 1, count, between)
    result = vbx(features, between, np.zeros(count, dtype=np.int64), UNSCALED)
    assert result.bounds[-1] == pytest.approx(log_likelihood(features, between), rel=1e-12)


def test_the_difference_of_bounds_is_the_plda_score():
    between = np.array([30.0, 20.0, 10.0])
    features, _ = draw(3, 2, 2, between)
    together = log_likelihood(features, between)
    apart = sum(log_likelihood(row[None], between) for row in features)
    sharp = VbxParameters(statistics_scale=1.0, speaker_regularization=1.0, initial_smoothing=50.0, max_iterations=1)
    one = vbx(features, between, np.zeros(2, dtype=np.int64), sharp).bounds[-1]
    two = vbx(features, between, np.arange(2), sharp).bounds[-1]
    # Two speakers of equal weight also pay log 2 for the choice of each window.
    assert one - (two + 2 * np.log(2)) == pytest.approx(together - apart, rel=1e-6)


@pytest.mark.parametrize("speakers", range(2, 9))
@pytest.mark.parametrize("count", [40, 300])
@pytest.mark.parametrize("surplus", [1, 3])
def test_the_speakers_are_recovered_from_too_many_clusters(speakers, count, surplus):
    between = np.linspace(8.0, 0.1, 128)
    features, labels = draw(speakers, speakers, count, between)
    initial = labels * surplus + np.random.default_rng(0).integers(0, surplus, count)
    _, initial = np.unique(initial, return_inverse=True)
    result = vbx(features, between, initial)
    assert result.probability.shape == (count, speakers)
    assert same_partition(result.probability.argmax(axis=1), labels)


@pytest.mark.parametrize("split_off", [1, 10, 60, 80])
def test_one_speaker_is_found_in_two_clusters(split_off):
    between = np.linspace(8.0, 0.1, 128)
    features, _ = draw(0, 1, 200, between)
    initial = (np.arange(200) < split_off).astype(np.int64)
    assert vbx(features, between, initial).probability.shape[1] == 1


def test_probabilities_are_probabilities():
    between = np.linspace(3.0, 0.1, 20)
    features, labels = draw(5, 4, 80, between)
    probability = vbx(features, between, labels).probability
    assert (probability >= 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6 * probability.shape[1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("parameters", [VbxParameters(max_iterations=60, tolerance=-np.inf), UNSCALED])
def test_the_bound_never_falls(seed, parameters):
    between = np.linspace(2.0, 0.05, 30)
    features, _ = draw(seed, 4, 120, between)
    initial = np.random.default_rng(seed).integers(0, 12, 120)  # far from any speaker
    _, initial = np.unique(initial, return_inverse=True)
    bounds = np.array(vbx(features, between, initial, parameters).bounds)
    assert len(bounds) > 3
    assert (np.diff(bounds) > -1e-9 * np.abs(bounds[1:])).all()


def test_one_window_is_one_speaker():
    result = vbx(np.ones((1, 4)), np.ones(4), np.zeros(1, dtype=np.int64))
    np.testing.assert_array_equal(result.probability, [[1.0]])


def test_identical_windows_are_one_speaker():
    result = vbx(np.ones((50, 4)), np.ones(4), np.arange(50))
    assert np.isfinite(result.probability).all()
    assert len({int(row.argmax()) for row in result.probability}) == 1


def test_blocks_give_the_same_as_one_block(monkeypatch):
    between = np.linspace(3.0, 0.1, 20)
    features, labels = draw(1, 5, 400, between)
    whole = vbx(features, between, labels)
    monkeypatch.setattr("diarist.clustering.vbx._BLOCK_WINDOWS", 37)
    parts = vbx(features, between, labels)
    np.testing.assert_allclose(parts.probability, whole.probability, atol=1e-9)


def test_thousands_of_windows_and_clusters_need_no_matrix_of_both():
    between = np.linspace(8.0, 0.1, 16)
    features, _ = draw(0, 6, 12_000, between)
    initial = np.arange(12_000) % 1_500
    tracemalloc.start()
    try:
        vbx(features, between, initial, VbxParameters(max_iterations=2, min_weight=0.01))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 12_000 * 1_500 / 2  # bytes: half a matrix in float64
