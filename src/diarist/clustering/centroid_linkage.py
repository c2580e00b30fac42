"""Bottom-up clustering by the distance of centroids, in memory that is linear in the number of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diarist.clustering.embeddings import Floats, Labels, renumber

_BLOCK_ROWS = 512
"""The number of rows of the distance matrix that exist at the same time."""


def centroid_linkage(points: Floats, threshold: float) -> Labels:
    """Merge the two clusters with the nearest centroids while their Euclidean distance is at most ``threshold``.

    The centroid of a merged cluster is the mean of its points, so that it may be nearer to a third cluster than either
    of the two was. This does not matter here: merges stop at the first distance above the threshold, and any later
    merge below it would include one above it.

    The distances are computed when they are needed, instead of being stored. Each cluster has a lower bound of the
    distance to its nearest neighbor, which is made exact only when it is the smallest of all (Müllner, "Modern
    hierarchical, agglomerative clustering algorithms", 2011, section 3.3).

    Args:
        points: The points, float32 (points, values).
        threshold: The distance up to which two clusters are one.

    Returns:
        The cluster of each point, 0, 1 ... in the order in which they first appear, int64 (points,).
    """
    root = np.arange(len(points))
    merges: list[tuple[int, int]] = []
    clusters = _Clusters(points)
    while len(clusters.centers) > 1:
        first = int(np.argmin(clusters.bound))
        if clusters.bound[first] > threshold**2:
            break
        if clusters.stale[first]:
            clusters.find_nearest(slice(first, first + 1))
            continue
        second = int(clusters.nearest[first])
        merges.append((int(clusters.point[first]), int(clusters.point[second])))
        clusters.merge(first, second)
    for into, merged in reversed(merges):  # what ``into`` was merged into later is known by then
        root[merged] = root[into]
    return renumber(root)


class _Clusters:
    """The clusters that are left. A merged one is removed from the arrays once half of all are."""

    def __init__(self, points: Floats) -> None:
        self.centers = points.copy()
        self.point = np.arange(len(points))
        """A point of each cluster, which identifies it."""
        self.size = np.ones(len(points))
        self.square: NDArray[np.float32] = (points**2).sum(axis=1)
        """The square norm of each center; infinite where a cluster was merged into another."""
        self.nearest = np.zeros(len(points), dtype=np.int64)
        self.bound = np.full(len(points), np.inf, dtype=np.float32)
        """A lower bound of the square distance to the nearest center."""
        self.stale = np.zeros(len(points), dtype=np.bool_)
        """Whether ``bound`` may be lower than the distance."""
        self._dead = 0
        for start in range(0, len(points), _BLOCK_ROWS):
            self.find_nearest(slice(start, min(start + _BLOCK_ROWS, len(points))))

    def distances(self, rows: slice) -> Floats:
        """Return the square distances of rows to all, (rows, clusters); infinite to themselves and to merged ones."""
        inner = self.centers[rows] @ self.centers.T
        distances: Floats = np.maximum(self.square[rows, None] + self.square - 2 * inner, 0)
        distances[np.arange(len(inner)), np.arange(rows.start, rows.stop)] = np.inf
        return distances

    def find_nearest(self, rows: slice) -> None:
        distances = self.distances(rows)
        self.nearest[rows] = np.argmin(distances, axis=1)
        self.bound[rows] = distances[np.arange(len(distances)), self.nearest[rows]]
        self.stale[rows] = False

    def merge(self, first: int, second: int) -> None:
        """Merge the second cluster into the first."""
        size = self.size[first] + self.size[second]
        share = np.float32(self.size[second] / size)
        self.centers[first] += share * (self.centers[second] - self.centers[first])
        self.square[first] = (self.centers[first] ** 2).sum()
        self.size[first] = size
        self.square[second], self.bound[second] = np.inf, np.inf
        distances = self.distances(slice(first, first + 1))[0]
        self.stale |= (self.nearest == first) | (self.nearest == second)
        nearer = distances < self.bound
        nearer[second] = False
        self.nearest[nearer], self.bound[nearer], self.stale[nearer] = first, distances[nearer], False
        self.nearest[first] = np.argmin(distances)
        self.bound[first], self.stale[first] = distances[self.nearest[first]], False
        self._dead += 1
        if self._dead * 2 > len(self.centers):
            self._compact()

    def _compact(self) -> None:
        live = np.isfinite(self.square)
        position = np.cumsum(live) - 1
        # A cluster whose nearest one was merged is stale, so that the position does not matter.
        self.nearest = position[self.nearest[live]]
        for name in ("centers", "point", "size", "square", "bound", "stale"):
            setattr(self, name, getattr(self, name)[live])
        self._dead = 0
