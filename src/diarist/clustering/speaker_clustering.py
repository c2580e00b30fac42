"""From embedded windows to speakers: the clustering steps, chosen by the number of windows.

The windows of a long recording are summarized first, which limits the spectral step to ``SPECTRAL_MAX_WINDOWS``.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from diarist.clustering.agglomerative import agglomerate, merge_small_clusters
from diarist.clustering.embeddings import EmbeddedWindows, Floats, Labels, SpeakerBounds, l2_normalize, renumber
from diarist.clustering.spectral import spectral_clustering

SPECTRAL_MIN_WINDOWS = 40
"""Fewer windows are too few for an eigengap: they are clustered bottom-up."""

SPECTRAL_MAX_WINDOWS = 2_000
"""More windows are summarized by blocks before the spectral step, as in NeMo's long-form clustering."""

MERGE_THRESHOLD = 0.14
"""Two clusters are two speakers when windows within them are more similar than windows across them by this cosine.

Unlike a fixed distance, this also works on a telephone, whose channel makes all speakers similar. See
``docs/experiments.md``.
"""

LARGE_CLUSTER_MERGE_THRESHOLD = 0.18
"""The same for clusters of many windows, whose means are more reliable."""

MAX_COHESION = 1.2
"""The limit of the similarity within a cluster of many windows, as a share of that of neighboring windows. A cluster
above it holds one phrase that is repeated: no speaker's windows are that similar."""

MIN_SPLIT_SHARE = 0.015
"""A smaller share of all windows is not taken for a speaker that the spectral step has missed: a recording of hours
contains coughs and laughs that sound like nobody."""

SPLIT_SAMPLE_WINDOWS = 400
"""At most this many windows of a cluster, evenly sampled, decide whether it is one speaker."""


def cluster(windows: EmbeddedWindows, bounds: SpeakerBounds) -> Labels:
    """Assign each window to a speaker: 0, 1 ... in the order in which they first appear, int64 (windows,).

    Args:
        windows: What is clustered.
        bounds: The number of speakers to look for; it is met exactly if there are as many windows.
    """
    count = len(windows)
    if count == 0 or bounds.clip(1, count) == bounds.clip(count, count) == 1:
        return np.zeros(count, dtype=np.int64)
    windows = replace(windows, recording_similarity=windows.same_speaker_similarity())
    if count < SPECTRAL_MIN_WINDOWS:
        labels = agglomerate(windows, np.arange(count), bounds, MERGE_THRESHOLD)
        return renumber(merge_small_clusters(windows, labels, bounds))
    if count <= SPECTRAL_MAX_WINDOWS:
        labels = spectral_clustering(windows.unit, bounds)
    else:
        summary, member = summarize(windows, SPECTRAL_MAX_WINDOWS)
        labels = spectral_clustering(summary, bounds)[member]
    merged = merge_clusters(windows, labels, bounds)
    if bounds.clip(count, count) > int(merged.max()) + 1:
        merged = merge_clusters(windows, split_clusters(windows, merged), bounds)
    return renumber(merged)


def split_clusters(windows: EmbeddedWindows, labels: Labels) -> Labels:
    """Split clusters that hold several speakers, int64 (windows,): 0, 1 ... without a gap.

    The widest gap between eigenvalues misses a speaker who says little, and those windows end up in another cluster.
    There they are found by the same relative distance by which clusters are merged.
    """
    split = renumber(labels)
    for label in range(int(split.max()) + 1):
        rows = np.flatnonzero(split == label)
        step = -(-len(rows) // SPLIT_SAMPLE_WINDOWS)
        min_size = max(1, round(MIN_SPLIT_SHARE * len(windows) / step))
        sample = windows.subset(rows[::step])
        if len(sample) < 2 * min_size:
            continue
        inner = agglomerate(
            sample, np.arange(len(sample)), SpeakerBounds(), LARGE_CLUSTER_MERGE_THRESHOLD, MAX_COHESION
        )
        inner = merge_small_clusters(sample, inner, SpeakerBounds(), MAX_COHESION)
        present, size = np.unique(inner, return_counts=True)
        speakers = present[size >= min_size]
        if len(speakers) < 2:
            continue
        centers = l2_normalize(np.stack([sample.unit[inner == speaker].mean(axis=0) for speaker in speakers]))
        nearest = np.argmax(windows.unit[rows] @ centers.T, axis=1)
        split[rows] = np.where(nearest == 0, label, int(split.max()) + nearest)
    return renumber(split)


def merge_clusters(windows: EmbeddedWindows, labels: Labels, bounds: SpeakerBounds) -> Labels:
    """Merge clusters that are one speaker, int64 (windows,).

    The spectral step uses nearest neighbors alone, and makes a speaker of every phrase that is repeated. At most
    ``SPECTRAL_MAX_WINDOWS`` windows, evenly sampled, represent all of them.
    """
    step = -(-len(windows) // SPECTRAL_MAX_WINDOWS)
    present, dense = np.unique(labels[::step], return_inverse=True)
    sample = windows.subset(slice(None, None, step))
    merged = agglomerate(sample, dense, bounds, LARGE_CLUSTER_MERGE_THRESHOLD, MAX_COHESION)
    if step == 1:
        merged = merge_small_clusters(sample, merged, bounds, MAX_COHESION)
    renamed = np.arange(int(labels.max()) + 1)
    renamed[present[dense]] = present[merged]
    return renamed[labels]


def summarize(windows: EmbeddedWindows, limit: int, block: int = 400) -> tuple[Floats, Labels]:
    """Return at most ``limit`` mean embeddings (or one per block) that represent all windows.

    Windows are merged bottom-up within consecutive blocks, so that the cost is linear in the length of the recording.

    Returns:
        Rows of unit length, float32 (summaries, values), and the row that each window belongs to, int64 (windows,).
    """
    blocks = max(1, round(len(windows) / block))
    edges = np.linspace(0, len(windows), blocks + 1).astype(int).tolist()
    per_block = max(1, limit // blocks)
    rows: list[Floats] = []
    member: list[Labels] = []
    for first, stop in itertools.pairwise(edges):
        part = windows.subset(slice(first, stop))
        labels = renumber(agglomerate(part, np.arange(len(part)), SpeakerBounds(per_block, per_block), np.inf))
        member.append(labels + sum(len(row) for row in rows))
        rows.append(np.stack([part.unit[labels == k].mean(axis=0) for k in range(int(labels.max()) + 1)]))
    return l2_normalize(np.concatenate(rows)), np.concatenate(member)
