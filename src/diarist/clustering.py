"""Embeddings to labels, in numpy alone: how many voices there are, and which window is whose.

Long recordings are summarised first: the cost of the spectral step is bounded by ``SPECTRAL_LIMIT`` windows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diarist.types import Seconds

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

SPECTRAL_MINIMUM = 40
"""Fewer windows than this are too few for an eigengap: they are clustered bottom-up."""

SPECTRAL_LIMIT = 2_000
"""More windows than this are summarised by blocks before the spectral step (as NeMo's long-form clustering does)."""

DISTINCT = 0.14
"""Two clusters are two voices when windows within them are more alike than windows across them by this much (cosine).

Against a fixed distance this holds on a telephone too, whose channel makes all voices alike. See ``docs/accuracy.md``.
"""

DISTINCT_CLUSTERS = 0.18
"""The same for clusters of many windows, whose means say more."""

REPEATED = 1.2
"""Among many windows, those of a cluster that are more alike than this, as a share of what neighbours are, hold one
phrase that is heard again and again: no voice is that alike."""

FEW = ((0.6, 0.3), (0.45, 0.25), (0.3, 0.2))
"""What sets a cluster of one, two or three windows apart from every other: the distance (cosine) as a share of how
alike windows are within, and as it is.

Few windows scatter: by chance alone a phrase of one speaker is this unlike the rest.
"""

PARTED_SHARE = 0.015
"""A smaller share of all windows is not taken for a voice that the spectral step has passed over: in hours there are
coughs and laughs that sound like nobody."""

PARTED_LIMIT = 400
"""At most as many windows of a cluster, evenly taken, say whether it is one voice."""

HEARD_TOGETHER = 0.15
"""What it is worth, as a cosine, that the segmentation hears two windows as one speaker, or as two."""

SAME_VOICE = 0.5
"""Cosine of two windows of one voice, where the recording itself says little about it."""

WINDOW_S: Seconds = 1.5
"""Length of the windows that ``SAME_VOICE`` is about."""

SAME_VOICE_PAIRS = 4
"""How many observed pairs that prior is worth."""

SAME_SOUND = 2 / 3
"""How far, from what neighbours of one voice have to 1, a cosine must be for two windows to hold the same sound, as
where a jingle or the whole recording is heard twice: they say nothing of how alike two phrases of one voice are."""

CLUSTER_PAIRS = 3
"""How many observed pairs within a cluster the recording's own mean is worth."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """What is clustered: embeddings, and where in the recording they come from."""

    unit: Floats
    """Rows of unit length, float32 (windows, values)."""

    start: NDArray[np.float64]
    """Seconds, ascending, (windows,)."""

    end: NDArray[np.float64]
    run: Labels
    """The stretch of one speaker's speech that each window is cut from, (windows,)."""

    heard: Floats | None = None
    """Whether the segmentation hears two windows as one speaker (1) or as two (-1); 0 where it cannot say.
    Shape (windows, windows); None where nobody asked it."""

    alike: float | None = None
    """``same_voice`` of the recording that these are a part of; None where they are all of it."""

    def __len__(self) -> int:
        return len(self.unit)

    def part(self, rows: slice | Labels) -> Windows:
        heard = None if self.heard is None else self.heard[rows][:, rows]
        return Windows(
            self.unit[rows], self.start[rows], self.end[rows], self.run[rows], heard, self.same_voice()
        )  # fmt: skip

    @property
    def apart(self) -> NDArray[np.bool_]:
        """Which pairs of windows have no moment in common, (windows, windows)."""
        later = np.maximum(self.start[:, None], self.start)
        return np.minimum(self.end[:, None], self.end) - later <= 0.01

    def same_voice(self) -> float:
        """How alike two windows of ``WINDOW_S`` of one voice are in this recording: the mean cosine of neighbours."""
        if self.alike is not None:
            return self.alike
        alike: list[float] = []
        for step in (1, 2, 3):
            first, second = slice(None, -step), slice(step, None)
            near = (self.run[first] == self.run[second]) & (self.start[second] >= self.end[first] - 0.01)
            alike += (self.unit[first][near] * self.unit[second][near]).sum(axis=1).tolist()
        return (sum(alike) + SAME_VOICE * SAME_VOICE_PAIRS) / (len(alike) + SAME_VOICE_PAIRS)


def expected_similarity(seconds: NDArray[np.float64], whole: float) -> NDArray[np.float64]:
    """How alike windows should be to others like them of the same voice, a cosine each: shorter ones scatter more.

    The signal's share of signal and noise, where noise falls with the length as any mean's does.

    Args:
        seconds: their lengths, (windows,).
        whole: the same for windows of ``WINDOW_S``.
    """
    heard = np.maximum(seconds, 0.01)
    share: NDArray[np.float64] = heard / (heard + WINDOW_S * (1 / max(whole, 0.05) - 1))
    return share


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


def cluster(windows: Windows, bounds: SpeakerBounds) -> Labels:
    """Label each window with its voice: 0, 1 ... in the order in which they first appear, int64 (windows,).

    Args:
        bounds: what is known of the number of voices; met exactly while there are as many windows.
    """
    count = len(windows)
    if count == 0 or bounds.clip(1, count) == bounds.clip(count, count) == 1:
        return np.zeros(count, dtype=np.int64)
    windows = replace(windows, alike=windows.same_voice())
    if count < SPECTRAL_MINIMUM:
        labels = agglomerate(windows, np.arange(count), bounds, DISTINCT)
        return in_order(join_few(windows, labels, bounds))
    if count <= SPECTRAL_LIMIT:
        labels = spectral(windows.unit, bounds)
    else:
        summary, member = summarise(windows, SPECTRAL_LIMIT)
        labels = spectral(summary, bounds)[member]
    joined = join_alike(windows, labels, bounds)
    if bounds.clip(count, count) > int(joined.max()) + 1:
        joined = join_alike(windows, part_unlike(windows, joined), bounds)
    return in_order(joined)


def part_unlike(windows: Windows, labels: Labels) -> Labels:
    """Part clusters that hold several voices, int64 (windows,): 0, 1 ... without a gap.

    The widest gap between eigenvalues passes over a voice that speaks little, and its windows end up in another
    cluster. There they are told by the same relative distance by which clusters are joined.
    """
    parted = in_order(labels)
    for label in range(int(parted.max()) + 1):
        rows = np.flatnonzero(parted == label)
        step = -(-len(rows) // PARTED_LIMIT)
        needed = max(1, round(PARTED_SHARE * len(windows) / step))
        some = windows.part(rows[::step])
        if len(some) < 2 * needed:
            continue
        inner = agglomerate(some, np.arange(len(some)), SpeakerBounds(), DISTINCT_CLUSTERS, REPEATED)
        inner = join_few(some, inner, SpeakerBounds(), REPEATED)
        present, size = np.unique(inner, return_counts=True)
        voices = present[size >= needed]
        if len(voices) < 2:
            continue
        centres = normalise(np.stack([some.unit[inner == voice].mean(axis=0) for voice in voices]))
        nearest = np.argmax(windows.unit[rows] @ centres.T, axis=1)
        parted[rows] = np.where(nearest == 0, label, int(parted.max()) + nearest)
    return in_order(parted)


def join_alike(windows: Windows, labels: Labels, bounds: SpeakerBounds) -> Labels:
    """Join clusters that are one voice, int64 (windows,).

    Neighbours alone, which is what the spectral step goes by, make a voice of every phrase that is heard twice. At most
    ``SPECTRAL_LIMIT`` windows, evenly taken, stand for all.
    """
    step = -(-len(windows) // SPECTRAL_LIMIT)
    present, dense = np.unique(labels[::step], return_inverse=True)
    some = windows.part(slice(None, None, step))
    joined = agglomerate(some, dense, bounds, DISTINCT_CLUSTERS, REPEATED)
    if step == 1:
        joined = join_few(some, joined, bounds, REPEATED)
    renamed = np.arange(int(labels.max()) + 1)
    renamed[present[dense]] = present[joined]
    return renamed[labels]


def in_order(labels: Labels) -> Labels:
    """The same partition, numbered by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


@dataclass(slots=True, eq=False)
class _Clusters:
    """Sums over the windows of each cluster and each pair of clusters, of which all that is asked follows."""

    size: NDArray[np.floating]
    """Windows in each, (clusters,)."""

    sounds: NDArray[np.floating]
    """The same, with those that hold the same sound counted as one."""

    across: NDArray[np.floating]
    """How alike their windows are, summed, (clusters, clusters)."""

    alike: NDArray[np.floating]
    """The same over pairs of windows that share no sound, (clusters, clusters)."""

    pairs: NDArray[np.floating]
    """How many such pairs there are."""

    within: NDArray[np.floating]
    """``alike`` within each cluster, each pair once, (clusters,)."""

    within_pairs: NDArray[np.floating]
    expected: NDArray[np.float64]
    """How alike its windows should be to others of their voice, summed, (clusters,)."""

    most: float
    """As a share of what is expected, how alike windows within a cluster are taken to be at most."""

    @classmethod
    def of(cls, windows: Windows, labels: Labels, most: float = np.inf) -> _Clusters:
        member = np.zeros((len(labels), int(labels.max()) + 1), dtype=np.float32)
        member[np.arange(len(labels)), labels] = 1.0
        cosine, apart = windows.unit @ windows.unit.T, windows.apart
        again = apart & (cosine >= 1 - (1 - SAME_SOUND) * (1 - windows.same_voice()))
        apart &= ~again  # shared sound, be it of one moment or of two, makes any two windows alike
        across = cosine if windows.heard is None else cosine + HEARD_TOGETHER * windows.heard
        alike, pairs = member.T @ (cosine * apart) @ member, member.T @ apart @ member
        expected = expected_similarity(windows.end - windows.start, windows.same_voice()) @ member
        sounds = (1 / (1 + again.sum(axis=1))) @ member
        return cls(
            member.sum(axis=0), sounds, member.T @ across @ member, alike, pairs, np.diag(alike) / 2,
            np.diag(pairs) / 2, expected, most,
        )  # fmt: skip

    def own(self) -> NDArray[np.float64]:
        """Mean likeness within each cluster, (clusters,); what is expected where there are few pairs to see it by."""
        expected = self.expected / self.size
        own: NDArray[np.float64] = (self.within + CLUSTER_PAIRS * expected) / (self.within_pairs + CLUSTER_PAIRS)
        return np.minimum(own, self.most * expected)

    def distance(self) -> NDArray[np.float64]:
        """Mean likeness within two clusters less that across them, (clusters, clusters); infinite to itself."""
        own = self.own()
        distance: NDArray[np.float64] = (own[:, None] + own) / 2 - self.across / np.outer(self.size, self.size)
        np.fill_diagonal(distance, np.inf)
        return distance

    def join(self, a: int, b: int) -> None:
        """Add cluster ``b`` to ``a``; what is kept of ``b`` means nothing any more."""
        self.within[a] += self.within[b] + self.alike[a, b]
        self.within_pairs[a] += self.within_pairs[b] + self.pairs[a, b]
        self.expected[a] += self.expected[b]
        for table in (self.across, self.alike, self.pairs):
            table[a] += table[b]
            table[:, a] += table[:, b]
        self.size[a] += self.size[b]
        self.sounds[a] += self.sounds[b]


def agglomerate(
    windows: Windows, labels: Labels, bounds: SpeakerBounds, distinct: float, most: float = np.inf
) -> Labels:
    """Join clusters bottom-up while the closest two are less than ``distinct`` apart, int64 (windows,).

    The distance of two clusters is the mean cosine within them less the mean cosine across them (average linkage, made
    relative): it estimates half the squared distance of their true centres, free of the scatter of short windows.

    Args:
        labels: the clusters to begin with, (windows,): 0, 1 ... without a gap.
        most: how alike windows within a cluster are taken to be at most, as a share of what neighbours are.
    """
    clusters = _Clusters.of(windows, labels, most)
    distance = clusters.distance()
    count = len(distance)
    joined = np.arange(count)
    for left in range(count, 1, -1):
        a, b = sorted(divmod(int(np.argmin(distance)), count))
        if left <= bounds.least or (distance[a, b] > distinct and bounds.clip(left, len(windows)) == left):
            break
        clusters.join(a, b)
        joined[joined == b] = a
        live = np.isfinite(distance[a])
        live[b] = False
        own = clusters.own()
        across = clusters.across[a] / (clusters.size[a] * clusters.size)
        row = np.where(live, (own[a] + own) / 2 - across, np.inf)
        distance[a], distance[:, a] = row, row
        distance[b], distance[:, b] = np.inf, np.inf
    return joined[labels]


def join_few(windows: Windows, labels: Labels, bounds: SpeakerBounds, most: float = np.inf) -> Labels:
    """Join clusters of few windows to their nearest unless they are as far from it as ``FEW`` asks, int64 (windows,).

    The least distinct first. Labels may have gaps; ``most`` as in ``agglomerate``.
    """
    present, dense = np.unique(labels, return_inverse=True)
    clusters = _Clusters.of(windows, dense, most)
    joined = np.arange(len(present))
    for left in range(len(present), max(bounds.least, 1), -1):
        own, distance = clusters.own(), clusters.distance()
        gone = np.setdiff1d(np.arange(len(present)), joined)
        distance[gone], distance[:, gone] = np.inf, np.inf
        nearest = np.argmin(distance, axis=1)
        apart = distance[np.arange(len(present)), nearest]
        alike = np.maximum((own + own[nearest]) / 2, 0.05)
        share, least = np.array([_asked(sounds) for sounds in clusters.sounds]).T
        enough = np.minimum(apart / alike - share, apart - least)
        weakest = int(np.argmin(enough))
        if enough[weakest] > 0 or bounds.clip(left - 1, len(windows)) != left - 1:
            break
        into = int(nearest[weakest])
        clusters.join(into, weakest)
        joined[joined == weakest] = into
    return present[joined][dense]


def _asked(sounds: float) -> tuple[float, float]:
    """What ``FEW`` asks of a cluster of so many sounds; nothing of one that has more."""
    few = int(np.ceil(sounds - 0.01))
    return FEW[few - 1] if few <= len(FEW) else (-np.inf, -np.inf)


def spectral(unit: Floats, bounds: SpeakerBounds, most: int = 20) -> Labels:
    """Spectral clustering of the pruned cosine affinity; the widest gap between eigenvalues tells the number of voices.

    von Luxburg, "A tutorial on spectral clustering" (2007); each row is pruned to its nearest as in Park et al.,
    "Auto-tuning spectral clustering" (2019), with a fixed share instead of its search, which fails on short ones.
    """
    count = len(unit)
    affinity = unit @ unit.T
    np.fill_diagonal(affinity, 0.0)
    keep = max(6, min(count - 1, round(0.022 * count)))
    weakest = np.partition(affinity, count - keep, axis=1)[:, count - keep]
    affinity[affinity < weakest[:, None]] = 0.0
    np.maximum(affinity, 0.0, out=affinity)
    affinity = (affinity + affinity.T) / 2
    laplacian: Floats = np.subtract(np.diag(affinity.sum(axis=1)), affinity, dtype=np.float32)
    values, vectors = smallest_eigenpairs(laplacian, min(count, max(most, bounds.least, bounds.most or 0) + 1))
    gaps = np.diff(values[: most + 1])
    voices = bounds.clip(int(np.argmax(gaps)) + 1, count)
    low, high = bounds.clip(1, count), bounds.clip(most, count)
    if voices == low and len(gaps) >= low:  # the widest gap lies below what was asked for: the widest from there on
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
            shared = np.bincount(new, minlength=clusters)[new] > 1  # a point alone leaves its own cluster empty
            new[int(np.argmax(np.where(shared, distance[np.arange(len(points)), new], -1.0)))] = empty
        if np.array_equal(new, labels):
            break
        labels = new
        centres = np.stack([points[labels == k].mean(axis=0) for k in range(clusters)])
    return labels.astype(np.int64)


def summarise(windows: Windows, limit: int, block: int = 400) -> tuple[Floats, Labels]:
    """At most ``limit`` (or one a block) mean embeddings that stand for all windows.

    Windows are joined bottom-up within consecutive blocks, so the cost is linear in the length of the recording.

    Returns:
        Unit rows, float32 (summaries, values), and the row that each window belongs to, int64 (windows,).
    """
    blocks = max(1, round(len(windows) / block))
    edges = np.linspace(0, len(windows), blocks + 1).astype(int).tolist()
    each = max(1, limit // blocks)
    rows: list[Floats] = []
    member: list[Labels] = []
    for first, stop in itertools.pairwise(edges):
        part = windows.part(slice(first, stop))
        labels = in_order(agglomerate(part, np.arange(len(part)), SpeakerBounds(each, each), np.inf))
        member.append(labels + sum(len(row) for row in rows))
        rows.append(np.stack([part.unit[labels == k].mean(axis=0) for k in range(int(labels.max()) + 1)]))
    return normalise(np.concatenate(rows)), np.concatenate(member)
