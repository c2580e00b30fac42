"""Bottom-up clustering of windows by average linkage, relative to how similar windows within a cluster are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.clustering.embeddings import EmbeddedWindows, Labels, SpeakerBounds, expected_similarity

SMALL_CLUSTER_DISTANCES = ((0.6, 0.3), (0.45, 0.25), (0.3, 0.2))
"""The distance that a cluster of one, two or three windows must have from every other cluster to be kept.

Each pair is the minimum as a share of the mean similarity within the two clusters, and the minimum as a cosine. The
embeddings of few windows scatter: by chance alone, a phrase of one speaker is this different from the rest.
"""

AGREEMENT_WEIGHT = 0.15
"""The weight, as a cosine, of the segmentation's statement that two windows are one speaker, or two."""

DUPLICATE_SIMILARITY = 2 / 3
"""The position of a cosine, between that of neighbors of one speaker (0) and 1, from which two windows are taken to
hold the same sound, for example a jingle or a recording that is played twice. Such pairs say nothing about the
similarity of two phrases of one speaker."""

CLUSTER_PRIOR_PAIRS = 3
"""How many observed pairs within a cluster the mean similarity of the recording counts as."""


@dataclass(slots=True, eq=False)
class _ClusterStatistics:
    """Sums over the windows of each cluster and each pair of clusters, from which all distances are computed."""

    size: NDArray[np.floating]
    """The number of windows in each cluster, (clusters,)."""

    distinct_size: NDArray[np.floating]
    """The same, where windows that hold the same sound count as one, (clusters,)."""

    linkage: NDArray[np.floating]
    """The sum of the similarities of their windows, with the segmentation's agreement, (clusters, clusters)."""

    similarity: NDArray[np.floating]
    """The sum of the cosines over pairs of windows that share no sound, (clusters, clusters)."""

    pairs: NDArray[np.floating]
    """The number of such pairs, (clusters, clusters)."""

    within: NDArray[np.floating]
    """``similarity`` within each cluster, where each pair counts once, (clusters,)."""

    within_pairs: NDArray[np.floating]
    """The number of such pairs, (clusters,)."""

    expected: NDArray[np.float64]
    """The sum of the expected similarities of its windows to others of their speaker, (clusters,)."""

    max_cohesion: float
    """The upper limit of the mean similarity within a cluster, as a share of the expected one."""

    @classmethod
    def of(cls, windows: EmbeddedWindows, labels: Labels, max_cohesion: float = np.inf) -> _ClusterStatistics:
        member = np.zeros((len(labels), int(labels.max()) + 1), dtype=np.float32)
        member[np.arange(len(labels)), labels] = 1.0
        cosine, disjoint = windows.unit @ windows.unit.T, windows.disjoint
        reference = windows.same_speaker_similarity()
        duplicate = disjoint & (cosine >= 1 - (1 - DUPLICATE_SIMILARITY) * (1 - reference))
        disjoint &= ~duplicate  # windows that share sound, by overlap or by repetition, are similar whoever speaks
        linkage = cosine if windows.agreement is None else cosine + AGREEMENT_WEIGHT * windows.agreement
        similarity, pairs = member.T @ (cosine * disjoint) @ member, member.T @ disjoint @ member
        expected = expected_similarity(windows.end - windows.start, reference) @ member
        distinct_size = (1 / (1 + duplicate.sum(axis=1))) @ member
        return cls(
            member.sum(axis=0), distinct_size, member.T @ linkage @ member, similarity, pairs,
            np.diag(similarity) / 2, np.diag(pairs) / 2, expected, max_cohesion,
        )  # fmt: skip

    def cohesion(self) -> NDArray[np.float64]:
        """Return the mean similarity within each cluster, (clusters,), shrunk to the expected one for few pairs."""
        expected = self.expected / self.size
        cohesion: NDArray[np.float64] = (self.within + CLUSTER_PRIOR_PAIRS * expected) / (
            self.within_pairs + CLUSTER_PRIOR_PAIRS
        )
        return np.minimum(cohesion, self.max_cohesion * expected)

    def distances(self) -> NDArray[np.float64]:
        """Return the mean similarity within two clusters minus that across them, (clusters, clusters).

        The diagonal is infinite.
        """
        cohesion = self.cohesion()
        distance: NDArray[np.float64] = (cohesion[:, None] + cohesion) / 2 - self.linkage / np.outer(
            self.size, self.size
        )
        np.fill_diagonal(distance, np.inf)
        return distance

    def merge(self, a: int, b: int) -> None:
        """Add cluster ``b`` to ``a``; the row of ``b`` is meaningless afterwards."""
        self.within[a] += self.within[b] + self.similarity[a, b]
        self.within_pairs[a] += self.within_pairs[b] + self.pairs[a, b]
        self.expected[a] += self.expected[b]
        for table in (self.linkage, self.similarity, self.pairs):
            table[a] += table[b]
            table[:, a] += table[:, b]
        self.size[a] += self.size[b]
        self.distinct_size[a] += self.distinct_size[b]


def agglomerate(
    windows: EmbeddedWindows, labels: Labels, bounds: SpeakerBounds, threshold: float, max_cohesion: float = np.inf
) -> Labels:
    """Merge the two closest clusters while their distance is at most ``threshold``, int64 (windows,).

    The distance of two clusters is the mean cosine within them minus the mean cosine across them (average linkage, made
    relative): it estimates half the squared distance of their true centers, without the scatter of short windows.

    Args:
        windows: What is clustered.
        labels: The clusters to start from, (windows,): 0, 1 ... without a gap.
        bounds: The number of speakers to look for.
        threshold: The distance up to which two clusters are one speaker.
        max_cohesion: The upper limit of the similarity within a cluster, as a share of that of neighboring windows.
    """
    statistics = _ClusterStatistics.of(windows, labels, max_cohesion)
    distance = statistics.distances()
    count = len(distance)
    merged = np.arange(count)
    for remaining in range(count, 1, -1):
        a, b = sorted(divmod(int(np.argmin(distance)), count))
        if remaining <= bounds.min_speakers or (
            distance[a, b] > threshold and bounds.clip(remaining, len(windows)) == remaining
        ):
            break
        statistics.merge(a, b)
        merged[merged == b] = a
        live = np.isfinite(distance[a])
        live[b] = False
        cohesion = statistics.cohesion()
        across = statistics.linkage[a] / (statistics.size[a] * statistics.size)
        row = np.where(live, (cohesion[a] + cohesion) / 2 - across, np.inf)
        distance[a], distance[:, a] = row, row
        distance[b], distance[:, b] = np.inf, np.inf
    return merged[labels]


def merge_small_clusters(
    windows: EmbeddedWindows, labels: Labels, bounds: SpeakerBounds, max_cohesion: float = np.inf
) -> Labels:
    """Merge small clusters into their nearest, unless they are as far away as ``SMALL_CLUSTER_DISTANCES`` requires.

    The least distinct cluster is merged first.

    Args:
        windows: What is clustered.
        labels: The clusters to start from, (windows,); there may be gaps between the numbers.
        bounds: The number of speakers to look for.
        max_cohesion: As in ``agglomerate``.

    Returns:
        The labels that are left, int64 (windows,).
    """
    present, dense = np.unique(labels, return_inverse=True)
    statistics = _ClusterStatistics.of(windows, dense, max_cohesion)
    merged = np.arange(len(present))
    for remaining in range(len(present), max(bounds.min_speakers, 1), -1):
        cohesion, distance = statistics.cohesion(), statistics.distances()
        gone = np.setdiff1d(np.arange(len(present)), merged)
        distance[gone], distance[:, gone] = np.inf, np.inf
        nearest = np.argmin(distance, axis=1)
        nearest_distance = distance[np.arange(len(present)), nearest]
        similarity = np.maximum((cohesion + cohesion[nearest]) / 2, 0.05)
        share, absolute = np.array([_required_distance(size) for size in statistics.distinct_size]).T
        margin = np.minimum(nearest_distance / similarity - share, nearest_distance - absolute)
        weakest = int(np.argmin(margin))
        if margin[weakest] > 0 or bounds.clip(remaining - 1, len(windows)) != remaining - 1:
            break
        target = int(nearest[weakest])
        statistics.merge(target, weakest)
        merged[merged == weakest] = target
    return present[merged][dense]


def _required_distance(distinct_windows: float) -> tuple[float, float]:
    """Return the row of ``SMALL_CLUSTER_DISTANCES`` for a cluster; a larger cluster needs no distance."""
    count = int(np.ceil(distinct_windows - 0.01))
    return SMALL_CLUSTER_DISTANCES[count - 1] if count <= len(SMALL_CLUSTER_DISTANCES) else (-np.inf, -np.inf)
