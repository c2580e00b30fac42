"""Spectral clustering with the eigengap, and the k-means that it ends with."""

from __future__ import annotations

import numpy as np

from diarist.clustering.embeddings import Floats, Labels, SpeakerBounds


def spectral_clustering(unit: Floats, bounds: SpeakerBounds, max_detected: int = 20) -> Labels:
    """Cluster the pruned cosine affinity; the widest gap between eigenvalues gives the number of speakers.

    von Luxburg, "A tutorial on spectral clustering" (2007). Each row is pruned to its nearest neighbors as in Park et
    al., "Auto-tuning spectral clustering" (2019), but with a fixed share instead of its search, which fails on short
    recordings.

    Args:
        unit: Embeddings of unit length, (windows, values).
        bounds: The number of speakers to look for.
        max_detected: The largest number of speakers that is detected where the bounds do not require more.
    """
    count = len(unit)
    affinity = unit @ unit.T
    np.fill_diagonal(affinity, 0.0)
    neighbors = max(6, min(count - 1, round(0.022 * count)))
    weakest = np.partition(affinity, count - neighbors, axis=1)[:, count - neighbors]
    affinity[affinity < weakest[:, None]] = 0.0
    np.maximum(affinity, 0.0, out=affinity)
    affinity = (affinity + affinity.T) / 2
    laplacian: Floats = np.subtract(np.diag(affinity.sum(axis=1)), affinity, dtype=np.float32)
    eigenpairs = min(count, max(max_detected, bounds.min_speakers, bounds.max_speakers or 0) + 1)
    values, vectors = smallest_eigenpairs(laplacian, eigenpairs)
    gaps = np.diff(values[: max_detected + 1])
    speakers = bounds.clip(int(np.argmax(gaps)) + 1, count)
    low, high = bounds.clip(1, count), bounds.clip(max_detected, count)
    if speakers == low and len(gaps) >= low:  # the widest gap is below the lower bound: take the widest above it
        speakers = low + int(np.argmax(gaps[low - 1 : high]))
    return k_means(vectors[:, :speakers], speakers)


def smallest_eigenpairs(matrix: Floats, count: int) -> tuple[Floats, Floats]:
    """Return the ``count`` smallest eigenvalues of a symmetric matrix, ascending, and their vectors as columns."""
    values, vectors = np.linalg.eigh(matrix)
    return values[:count], vectors[:, :count]


def k_means(points: Floats, clusters: int, iterations: int = 100) -> Labels:
    """Run Lloyd's algorithm from a deterministic farthest-point start (k-means++ without randomness)."""
    centers = points[[int(np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1)))]]
    nearest = ((points - centers[0]) ** 2).sum(axis=1)
    while len(centers) < clusters:
        centers = np.vstack([centers, points[int(np.argmax(nearest))]])
        nearest = np.minimum(nearest, ((points - centers[-1]) ** 2).sum(axis=1))
    labels = np.full(len(points), -1)
    for _ in range(iterations):
        distance = ((points[:, None, :] - centers[None]) ** 2).sum(axis=2)  # (points, clusters)
        new = np.argmin(distance, axis=1)
        for empty in np.setdiff1d(np.arange(clusters), new):
            shared = np.bincount(new, minlength=clusters)[new] > 1  # moving a single point would empty its cluster
            new[int(np.argmax(np.where(shared, distance[np.arange(len(points)), new], -1.0)))] = empty
        if np.array_equal(new, labels):
            break
        labels = new
        centers = np.stack([points[labels == k].mean(axis=0) for k in range(clusters)])
    return labels.astype(np.int64)
