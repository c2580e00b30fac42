"""The diarizer ``clustering``: MarbleNet, TitaNet at several scales, and NeMo's auto-tuning spectral clustering.

Everything is computed in memory; no files are written.

Park et al., "Auto-tuning spectral clustering for speaker diarization using normalized maximum eigengap" (2020, arXiv
2003.02405).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diarist.clustering import Labels, SpeakerBounds, k_means, l2_normalize, renumber
from diarist.engines.multiscale.diarizer import MultiscaleDiarizer, Scale, nearest
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import load_model
from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder
from diarist.engines.nemo.vad import speech_detector
from diarist.engines.nemo_yaml.diar_infer_config import ClusteringConfig, DiarConfig, read_config
from diarist.engines.speaker_activity import Floats
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import MAX_SPEAKERS

NAME = "clustering"

MAX_CPU_WINDOWS = 3_000
"""The maximum number of windows that are clustered at once on a CPU. The work grows with the cube of that number:
4,000 windows take 17 s on two cores; 10,000, which is NeMo's value for a GPU, take minutes and gigabytes of memory."""


def load(settings: Settings) -> Loaded[Diarizer]:
    """Load the diarizer ``clustering`` as the settings and their configuration file describe it.

    Raises:
        ModelError: If a model is missing or damaged.
        ConfigurationError: If the configuration cannot be used or names a model of another kind.
    """
    return load_clustering(settings, read_config(settings), Runtime.of(settings))


def load_clustering(settings: Settings, config: DiarConfig, runtime: Runtime) -> Loaded[Diarizer]:
    """Load the diarizer for a configuration that has been read already; raises what ``load`` raises."""
    batch_size = settings.nemo_batch or config.batch_size
    file = f"diar_infer_{settings.diar_config}.yaml"
    vad = load_model(config.vad.model, "vad", settings, runtime, f"diarizer.vad.model_path in {file}")
    speaker_model = load_model(
        config.speaker_embeddings.model,
        "embedding",
        settings,
        runtime,
        f"diarizer.speaker_embeddings.model_path in {file}",
    )
    diarizer = MultiscaleDiarizer(
        speech_detector(vad, runtime, config.vad, batch_size),
        NemoSpeakerEncoder(speaker_model.model, runtime, batch_size),
        NemoClusterer(runtime, config.clustering),
        config,
        NAME,
    )
    return Loaded(diarizer, (vad.info, speaker_model.info), runtime.name)


class NemoClusterer:
    """Implements ``diarist.engines.multiscale.diarizer.Clusterer`` with NeMo's clustering.

    It keeps no state between calls.

    Up to ``embeddings_per_chunk`` windows, and on a CPU at most ``MAX_CPU_WINDOWS``, are clustered at once. More
    windows are divided into chunks. Each chunk is clustered into about ``chunk_cluster_count`` clusters, and the
    centroids that represent those clusters (``chunk_centroids``) are clustered again. Windows without a centroid are
    assigned to the nearest speaker. NeMo also clusters long recordings in chunks, but it represents each cluster by its
    plain mean, and it first computes the affinity matrix of all windows, which takes 40 GB for four hours.

    Args:
        runtime: The device.
        config: The parameters of clustering.
    """

    def __init__(self, runtime: Runtime, config: ClusteringConfig) -> None:
        self._runtime = runtime
        self._config = config
        on_cpu = runtime.device.type == "cpu"
        self._max_windows = min(config.embeddings_per_chunk, MAX_CPU_WINDOWS) if on_cpu else config.embeddings_per_chunk

    def label(self, scales: Sequence[Scale], bounds: SpeakerBounds) -> Labels:
        """Return a speaker for each window of the last scale, int64 (windows,), numbered in order of appearance."""
        count = len(scales[-1].unit)
        min_speakers, max_speakers = min(bounds.min_speakers, count), min(self._max_speakers(bounds), count)
        if max_speakers == 1:
            return np.zeros(count, dtype=np.int64)
        combined = combine_scales(scales)
        with self._runtime.inference(exact=True), _seeded_random(self._runtime.device):
            labels = self._cluster(
                scales, combined, None if min_speakers < max_speakers else min_speakers, max_speakers
            )
            found = len(np.unique(labels))
            if not min_speakers <= found <= max_speakers:
                labels = self._cluster(scales, combined, max(min_speakers, min(found, max_speakers)), max_speakers)
        return renumber(split_largest_cluster(labels, combined, min_speakers))

    def _max_speakers(self, bounds: SpeakerBounds) -> int:
        if bounds.max_speakers is not None:
            return bounds.max_speakers
        if bounds.min_speakers <= self._config.max_num_speakers:
            return self._config.max_num_speakers
        return min(2 * bounds.min_speakers, MAX_SPEAKERS)  # the caller asks for more than the configuration allows for

    def _cluster(
        self, scales: Sequence[Scale], combined: Floats, num_speakers: int | None, max_speakers: int
    ) -> Labels:
        if len(combined) <= self._max_windows:
            return self._cluster_at_once(scales, num_speakers, max_speakers)
        return self._cluster_in_chunks(combined, num_speakers, max_speakers)

    def _cluster_at_once(self, scales: Sequence[Scale], num_speakers: int | None, max_speakers: int) -> Labels:
        from nemo.collections.asr.parts.utils.longform_clustering import LongFormSpeakerClustering

        clustering = LongFormSpeakerClustering(cuda=self._runtime.device.type == "cuda")
        clustering.speaker_clustering.maj_vote_spk_count = self._config.maj_vote_spk_count
        times = [np.stack([scale.start, scale.end], axis=1).astype(np.float32) for scale in scales]
        labels = clustering.forward_infer(
            embeddings_in_scales=torch.from_numpy(np.concatenate([scale.unit for scale in scales])),
            timestamps_in_scales=torch.from_numpy(np.concatenate(times)),
            multiscale_segment_counts=torch.tensor([len(scale.unit) for scale in scales]),
            multiscale_weights=torch.tensor([[scale.weight for scale in scales]], dtype=torch.float32),
            oracle_num_speakers=num_speakers or -1,
            max_num_speakers=max_speakers,
            max_rp_threshold=self._config.max_rp_threshold,
            enhanced_count_thres=self._config.enhanced_count_thres,
            sparse_search_volume=self._config.sparse_search_volume,
            embeddings_per_chunk=None,
        )
        return _as_numpy(labels)

    def _cluster_in_chunks(self, combined: Floats, num_speakers: int | None, max_speakers: int) -> Labels:
        chunks = -(-len(combined) // self._max_windows)
        edges = np.linspace(0, len(combined), chunks + 1).astype(int).tolist()
        # The centroids of all chunks are clustered at once too, and each speaker needs at least one of them.
        clusters = max(
            max_speakers + 1, min(max(self._config.chunk_cluster_count, 2 * max_speakers), self._max_windows // chunks)
        )
        centroids_by_chunk: list[Floats] = []
        centroid_of_window: list[Labels] = []
        for first, stop in pairwise(edges):
            chunk = combined[first:stop]
            labels = self._cluster_embeddings(chunk, min(clusters, len(chunk)), clusters)
            centroids, index = chunk_centroids(chunk, labels, max(1, len(chunk) // clusters))
            centroid_of_window.append(np.where(index < 0, index, index + sum(map(len, centroids_by_chunk))))
            centroids_by_chunk.append(centroids)
        centroid, speaker = (
            np.concatenate(centroid_of_window),
            self._cluster_embeddings(np.concatenate(centroids_by_chunk), num_speakers, max_speakers),
        )
        speakers = np.where(centroid < 0, -1, speaker[centroid])
        # Windows between the speakers, which no centroid represents, are assigned to the nearest speaker.
        unassigned = np.flatnonzero(speakers < 0)
        present = np.unique(speaker)
        means = l2_normalize(np.stack([combined[speakers == k].mean(axis=0) for k in present]))
        speakers[unassigned] = present[(combined[unassigned] @ means.T).argmax(axis=1)]
        return speakers

    def _cluster_embeddings(self, rows: Floats, num_speakers: int | None, max_speakers: int) -> Labels:
        """Cluster the embeddings of one scale, float32 (windows, values), and return a label for each."""
        from nemo.collections.asr.parts.utils.offline_clustering import SpeakerClustering, getCosAffinityMatrix

        on_gpu = self._runtime.device.type == "cuda"
        clustering = SpeakerClustering(maj_vote_spk_count=self._config.maj_vote_spk_count, cuda=on_gpu)
        return _as_numpy(
            clustering.forward_unit_infer(
                mat=getCosAffinityMatrix(self._runtime.tensor(rows)),
                oracle_num_speakers=num_speakers or -1,
                max_num_speakers=max_speakers,
                max_rp_threshold=self._config.max_rp_threshold,
                sparse_search_volume=self._config.sparse_search_volume,
            )
        )


def chunk_centroids(unit: Floats, labels: Labels, size: int) -> tuple[Floats, Labels]:
    """Return centroids, each the mean of about ``size`` windows of one cluster.

    If the speakers are far apart, NeMo finds a few large clusters and many clusters of a single window between two
    speakers. Most of the plain cluster means would be such windows, and they would obscure the speakers.

    Args:
        unit: Embeddings, float32 (windows, values).
        labels: The cluster of each window, int64 (windows,).
        size: The number of windows per centroid. Larger clusters get several centroids; clusters with less than a
            quarter of this number get none.

    Returns:
        The centroids, float32 (rows, values), and the row of each window, int64 (windows,), or -1 if it has none.
    """
    rows: list[Floats] = []
    row_of_window = np.full(len(unit), -1, dtype=np.int64)
    for label in np.unique(labels):
        windows = np.flatnonzero(labels == label)
        if len(windows) * 4 < size:
            continue
        for part in np.array_split(windows, -(-len(windows) // size)):
            row_of_window[part] = len(rows)
            rows.append(unit[part].mean(axis=0))
    return np.stack(rows), row_of_window


def combine_scales(scales: Sequence[Scale]) -> Floats:
    """Return one embedding per window of the last scale: the weighted sum of the nearest embeddings of all scales.

    Returns:
        Rows of unit length, float32 (windows, values).
    """
    base = scales[-1]
    combined = np.zeros_like(base.unit)
    for scale in scales:
        combined += np.float32(scale.weight) * scale.unit[nearest(scale, base)]
    return l2_normalize(combined)


def split_largest_cluster(labels: Labels, unit: Floats, min_speakers: int) -> Labels:
    """Divide the largest cluster in two until there are ``min_speakers`` clusters; return the labels, int64 (windows,).

    This is needed because NeMo's k-means may leave clusters empty.
    """
    labels = labels.copy()
    while len(np.unique(labels)) < min_speakers:
        rows = np.flatnonzero(labels == np.bincount(labels).argmax())
        labels[rows[k_means(unit[rows], 2) == 1]] = labels.max() + 1
    return labels


@contextlib.contextmanager
def _seeded_random(device: Any) -> Iterator[None]:
    """Seed PyTorch's random numbers and restore their state afterwards: NeMo draws from and seeds the global state."""
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        torch.manual_seed(0)
        yield


def _as_numpy(labels: Any) -> Labels:
    array: NDArray[np.int64] = labels.cpu().numpy().astype(np.int64)
    return array
