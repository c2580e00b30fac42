"""Embeddings to labels, in numpy alone: how many voices there are, and which window is whose.

Long recordings are summarised first: the cost of the spectral step is bounded by ``SPECTRAL_LIMIT`` windows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

SPECTRAL_MINIMUM = 40
"""Fewer windows than this are too few for an eigengap: they are clustered bottom-up."""

SPECTRAL_LIMIT = 2_000
"""More windows than this are summarised by blocks before the spectral step (as NeMo's long-form clustering does)."""

AHC_DISTANCE = 0.65
"""Cosine distance at which average-link clusters of CAM++ embeddings stop to merge."""


@dataclass(frozen=True, slots=True)
class SpeakerBounds:
    """The least and the most clusters to look for."""

    least: int = 1
    most: int | None = None

    def clip(self, count: int, windows: int) -> int:
        most = windows if self.most is None else min(self.most, windows)
        return max(min(self.least, windows), min(count, most))


def normalise(embeddings: Floats) -> Floats:
    """Rows of unit length, shape (windows, values); a row of zeros stays one."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: Floats = (embeddings / np.maximum(length, 1e-9)).astype(np.float32)
    return unit


def cluster(embeddings: Floats, bounds: SpeakerBounds) -> Labels:
    """Label each window with its voice: 0, 1 ... in the order in which they first appear.

    Args:
        embeddings: float32 (windows, values), of any length.
        bounds: what is known of the number of voices; met exactly while there are as many windows.

    Returns:
        int64 (windows,).
    """
    count = len(embeddings)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    unit = normalise(embeddings)
    if bounds.clip(1, count) == bounds.clip(count, count) == 1:
        return np.zeros(count, dtype=np.int64)
    if count < SPECTRAL_MINIMUM:
        return in_order(agglomerate(1.0 - unit @ unit.T, AHC_DISTANCE, bounds))
    if count <= SPECTRAL_LIMIT:
        return in_order(spectral(unit, bounds))
    summary, member = summarise(unit, SPECTRAL_LIMIT)
    return in_order(spectral(summary, bounds)[member])


def in_order(labels: Labels) -> Labels:
    """The same partition, numbered by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def agglomerate(distance: Floats, threshold: float, bounds: SpeakerBounds) -> Labels:
    """Average-link clustering, bottom-up, of a (windows, windows) distance matrix, until clusters lie ``threshold`` apart."""
    count = len(distance)
    table = distance.astype(np.float64)
    np.fill_diagonal(table, np.inf)
    size = np.ones(count)
    labels = np.arange(count)
    left = count
    while left > 1:
        index = int(np.argmin(table))
        a, b = divmod(index, count)
        if left <= bounds.least or (table[a, b] > threshold and bounds.clip(left, count) == left):
            break
        merged = (size[a] * table[a] + size[b] * table[b]) / (size[a] + size[b])
        table[a], table[:, a] = merged, merged
        table[b], table[:, b] = np.inf, np.inf
        table[a, a] = np.inf
        size[a] += size[b]
        labels[labels == b] = a
        left -= 1
    return labels


def spectral(unit: Floats, bounds: SpeakerBounds, most: int = 20) -> Labels:
    """Spectral clustering of the pruned cosine affinity; the widest gap between eigenvalues tells the number of voices.

    von Luxburg, "A tutorial on spectral clustering" (2007); pruning of each row to its nearest windows as in Park et al.,
    "Auto-tuning spectral clustering" (2019), with a fixed share instead of its search, which fails on short recordings.
    """
    count = len(unit)
    affinity = unit @ unit.T
    np.fill_diagonal(affinity, 0.0)
    keep = max(6, min(count - 1, round(0.022 * count)))
    weakest = np.partition(affinity, count - keep, axis=1)[:, count - keep]
    affinity[affinity < weakest[:, None]] = 0.0
    np.maximum(affinity, 0.0, out=affinity)
    affinity = (affinity + affinity.T) / 2
    laplacian = np.diag(affinity.sum(axis=1)) - affinity
    values, vectors = smallest_eigenpairs(laplacian, min(count, max(most, bounds.least, bounds.most or 0) + 1))
    gaps = np.diff(values[: most + 1])
    voices = bounds.clip(int(np.argmax(gaps)) + 1, count)
    low, high = bounds.clip(1, count), bounds.clip(most, count)
    if low <= high and len(gaps) >= low:
        voices = low + int(np.argmax(gaps[low - 1 : high]))
    return k_means(vectors[:, :voices], voices)


def smallest_eigenpairs(matrix: Floats, count: int) -> tuple[Floats, Floats]:
    """The ``count`` smallest eigenvalues, ascending, and their vectors as columns, of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return values[:count], vectors[:, :count]


def k_means(points: Floats, clusters: int, rounds: int = 100) -> Labels:
    """Lloyd's algorithm from a deterministic farthest-point start (k-means++ without chance)."""
    centres = points[[int(np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1)))]]
    nearest = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < clusters:
        centres = np.vstack([centres, points[int(np.argmax(nearest))]])
        nearest = np.minimum(nearest, ((points - centres[-1]) ** 2).sum(axis=1))
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        distance = ((points[:, None, :] - centres[None]) ** 2).sum(axis=2)  # (points, clusters)
        new = np.argmin(distance, axis=1)
        for empty in np.setdiff1d(np.arange(clusters), new):
            new[int(np.argmax(distance[np.arange(len(points)), new]))] = empty
        if np.array_equal(new, labels):
            break
        labels = new
        centres = np.stack([points[labels == k].mean(axis=0) for k in range(clusters)])
    return labels.astype(np.int64)


def summarise(unit: Floats, limit: int, block: int = 400) -> tuple[Floats, Labels]:
    """At most ``limit`` (or one a block) mean embeddings that stand for all windows.

    Windows are joined bottom-up within consecutive blocks, so the cost is linear in the length of the recording.

    Returns:
        Unit rows, float32 (summaries, values), and the row that each window belongs to, int64 (windows,).
    """
    blocks = np.array_split(unit, max(1, round(len(unit) / block)))
    each = max(1, limit // len(blocks))
    rows: list[Floats] = []
    member: list[Labels] = []
    for windows in blocks:
        labels = in_order(agglomerate(1.0 - windows @ windows.T, 2.0, SpeakerBounds(each, each)))
        member.append(labels + sum(len(row) for row in rows))
        rows.append(np.stack([windows[labels == k].mean(axis=0) for k in range(int(labels.max()) + 1)]))
    return normalise(np.concatenate(rows)), np.concatenate(member)


def assign(score: Floats) -> tuple[int, ...]:
    """One-to-one assignment of few rows to columns with the greatest total score; -1 for a row left over.

    Exact: a row's best free column is always among its best ``rows`` columns, so these are all that are tried.

    Args:
        score: (rows, columns), with at most about 4 rows.
    """
    rows, columns = score.shape
    if rows == 0 or columns == 0:
        return (-1,) * rows
    choices = [[*np.argsort(-row, kind="stable")[:rows].tolist(), -1] for row in score]
    used = [
        c for c in itertools.product(*choices) if _distinct(c) and sum(k == -1 for k in c) == max(0, rows - columns)
    ]
    return max(used, key=lambda c: sum(float(score[i, k]) for i, k in enumerate(c) if k >= 0))


def _distinct(columns: tuple[int, ...]) -> bool:
    taken = [column for column in columns if column >= 0]
    return len(set(taken)) == len(taken)
