"""Centroid linkage against its definition, computed with the whole distance matrix after every merge."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from diarist.clustering.centroid_linkage import centroid_linkage
from diarist.clustering.embeddings import l2_normalize, renumber


def by_definition(points, threshold):
    members = [[index] for index in range(len(points))]
    while len(members) > 1:
        centers = np.stack([points[own].mean(axis=0) for own in members]).astype(np.float64)
        distance = np.linalg.norm(centers[:, None] - centers, axis=2)
        np.fill_diagonal(distance, np.inf)
        first, second = sorted(divmod(int(distance.argmin()), len(members)))
        if distance[first, second] > threshold:
            break
        members[first] += members.pop(second)
    labels = np.zeros(len(points), dtype=np.int64)
    for label, own in enumerate(members):
        labels[own] = label
    return renumber(labels)


def scattered(seed, count, values, speakers, spread):
    random = np.random.default_rng(seed)
    centers = random.standard_normal((speakers, values))
    noise = spread * random.standard_normal((count, values))
    return l2_normalize((centers[random.integers(0, speakers, count)] + noise).astype(np.float32))


@pytest.mark.parametrize("seed", range(20))
def test_the_clusters_are_those_of_the_definition(seed):
    random = np.random.default_rng(seed)
    count, values, speakers = int(random.integers(2, 90)), int(random.integers(2, 20)), int(random.integers(1, 6))
    points = scattered(seed, count, values, speakers, random.uniform(0.1, 1))
    for threshold in (0.2, 0.6, 1.1):
        assert np.array_equal(centroid_linkage(points, threshold), by_definition(points, threshold))


@pytest.mark.parametrize("count", [1, 2, 50])
def test_identical_points_are_one_cluster(count):
    points = np.tile(l2_normalize(np.ones((1, 8), dtype=np.float32)), (count, 1))
    assert not centroid_linkage(points, 0.6).any()


def test_no_point_is_merged_below_the_smallest_distance():
    points = np.eye(7, dtype=np.float32)
    assert np.array_equal(centroid_linkage(points, 1.4), np.arange(7))
    assert not centroid_linkage(points, 1.42).any()


def test_the_points_are_left_as_they_were():
    points = scattered(0, 60, 16, 3, 0.3)
    before = points.copy()
    centroid_linkage(points, 0.6)
    assert np.array_equal(points, before)


def test_thousands_of_points_need_no_matrix_of_all_distances():
    points = scattered(0, 4_000, 32, 5, 0.2)
    tracemalloc.start()
    try:
        assert centroid_linkage(points, 0.6).max() == 4
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 4_000 * 4_000 / 2  # bytes: half a matrix in float32
