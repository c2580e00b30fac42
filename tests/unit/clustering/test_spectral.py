"""Tests of spectral clustering and k-means on points whose clusters are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.clustering.embeddings import renumber
from diarist.clustering.spectral import k_means, smallest_eigenpairs
from support.strategies import patient


def blobs(clusters, each, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(clusters), each))
    centers = 10.0 * np.eye(clusters, 8)
    return (centers[truth] + rng.standard_normal((len(truth), 8))).astype(np.float32), truth


@pytest.mark.parametrize("clusters", [1, 2, 5, 8])
def test_k_means_finds_blobs_and_is_deterministic(clusters):
    points, truth = blobs(clusters, 30)
    labels = k_means(points, clusters)
    assert labels.dtype == np.int64
    assert np.array_equal(renumber(labels), renumber(truth))
    assert np.array_equal(labels, k_means(points, clusters))


@given(st.integers(1, 8), st.integers(0, 12), st.integers(0, 100))
@patient
def test_k_means_leaves_no_cluster_empty(clusters, more, seed):
    points = np.random.default_rng(seed).integers(0, 2, (clusters + more, 2)).astype(np.float32)  # many duplicates
    assert set(k_means(points, clusters).tolist()) == set(range(clusters))


def test_eigenpairs_are_the_smallest():
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    matrix = (basis @ np.diag(np.arange(12.0)) @ basis.T).astype(np.float32)
    values, vectors = smallest_eigenpairs(matrix, 3)
    assert values == pytest.approx([0, 1, 2], abs=1e-4)
    assert np.allclose(matrix @ vectors, vectors * values, atol=1e-4)
