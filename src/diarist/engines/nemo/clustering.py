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

from diarist.clustering import Labels, SpeakerBounds, in_order, k_means, normalise
from diarist.engines.fusion import Floats
from diarist.engines.multiscale.diarizer import MultiscaleDiarizer, Scale, nearest
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import load_model
from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder
from diarist.engines.nemo.vad import speech_detector
from diarist.engines.nemo_yaml.diar_infer_config import ClusteringConfig, DiarConfig, read_config
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import MAX_SPEAKERS

NAME = "clustering"

CPU_WINDOWS = 3_000
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
    batch = settings.nemo_batch or config.batch_size
    file = f"diar_infer_{settings.diar_config}.yaml"
    vad = load_model(config.vad.model, "vad", settings, runtime, f"diarizer.vad.model_path in {file}")
    voices = load_model(
        config.voices.model, "embedding", settings, runtime, f"diarizer.speaker_embeddings.model_path in {file}"
    )
    diarizer = MultiscaleDiarizer(
        speech_detector(vad, runtime, config.vad, batch),
        NemoSpeakerEncoder(voices.model, runtime, batch),
        NemoClusterer(runtime, config.clustering),
        config,
        NAME,
    )
    return Loaded(diarizer, (vad.info, voices.info), runtime.name)


class NemoClusterer:
    """Implements ``diarist.engines.multiscale.diarizer.Clusterer`` with NeMo's clustering.

    It keeps no state between calls.

    Up to ``embeddings_per_chunk`` windows, and on a CPU at most ``CPU_WINDOWS``, are clustered at once. More windows
    are divided into chunks. Each chunk is clustered into about ``chunk_cluster_count`` clusters, and the centroids that
    represent those clusters (``summary``) are clustered again. Windows without a centroid are assigned to the nearest
    speaker. NeMo also clusters long recordings in chunks, but it represents each cluster by its plain mean, and it
    first computes the affinity matrix of all windows, which takes 40 GB for four hours.

    Args:
        runtime: The device.
        config: The parameters of clustering.
    """

    def __init__(self, runtime: Runtime, config: ClusteringConfig) -> None:
        self._runtime = runtime
        self._config = config
        on_cpu = runtime.device.type == "cpu"
        self._windows = min(config.embeddings_per_chunk, CPU_WINDOWS) if on_cpu else config.embeddings_per_chunk

    def label(self, scales: Sequence[Scale], bounds: SpeakerBounds) -> Labels:
        """Return a speaker for each window of the last scale, int64 (windows,), numbered in order of appearance."""
        count = len(scales[-1].unit)
        least, most = min(bounds.least, count), min(self._most(bounds), count)
        if most == 1:
            return np.zeros(count, dtype=np.int64)
        mixed = interpolated(scales)
        with self._runtime.using(exact=True), _own_chance(self._runtime.device):
            labels = self._group(scales, mixed, None if least < most else least, most)
            found = len(np.unique(labels))
            if not least <= found <= most:
                labels = self._group(scales, mixed, max(least, min(found, most)), most)
        return in_order(split(labels, mixed, least))

    def _most(self, bounds: SpeakerBounds) -> int:
        if bounds.most is not None:
            return bounds.most
        if bounds.least <= self._config.max_num_speakers:
            return self._config.max_num_speakers
        return min(2 * bounds.least, MAX_SPEAKERS)  # the caller asks for more than the configuration allows for

    def _group(self, scales: Sequence[Scale], mixed: Floats, exactly: int | None, most: int) -> Labels:
        if len(mixed) <= self._windows:
            return self._whole(scales, exactly, most)
        return self._in_chunks(mixed, exactly, most)

    def _whole(self, scales: Sequence[Scale], exactly: int | None, most: int) -> Labels:
        from nemo.collections.asr.parts.utils.longform_clustering import LongFormSpeakerClustering

        clustering = LongFormSpeakerClustering(cuda=self._runtime.device.type == "cuda")
        clustering.speaker_clustering.maj_vote_spk_count = self._config.maj_vote_spk_count
        times = [np.stack([scale.start, scale.end], axis=1).astype(np.float32) for scale in scales]
        labels = clustering.forward_infer(
            embeddings_in_scales=torch.from_numpy(np.concatenate([scale.unit for scale in scales])),
            timestamps_in_scales=torch.from_numpy(np.concatenate(times)),
            multiscale_segment_counts=torch.tensor([len(scale.unit) for scale in scales]),
            multiscale_weights=torch.tensor([[scale.weight for scale in scales]], dtype=torch.float32),
            oracle_num_speakers=exactly or -1,
            max_num_speakers=most,
            max_rp_threshold=self._config.max_rp_threshold,
            enhanced_count_thres=self._config.enhanced_count_thres,
            sparse_search_volume=self._config.sparse_search_volume,
            embeddings_per_chunk=None,
        )
        return _as_numpy(labels)

    def _in_chunks(self, mixed: Floats, exactly: int | None, most: int) -> Labels:
        chunks = -(-len(mixed) // self._windows)
        edges = np.linspace(0, len(mixed), chunks + 1).astype(int).tolist()
        # The centroids of all chunks are clustered at once too, and each speaker needs at least one of them.
        clusters = max(most + 1, min(max(self._config.chunk_cluster_count, 2 * most), self._windows // chunks))
        rows: list[Floats] = []
        member: list[Labels] = []
        for first, stop in pairwise(edges):
            part = mixed[first:stop]
            labels = self._unit(part, min(clusters, len(part)), clusters)
            means, own = summary(part, labels, max(1, len(part) // clusters))
            member.append(np.where(own < 0, own, own + sum(map(len, rows))))
            rows.append(means)
        row, voice = np.concatenate(member), self._unit(np.concatenate(rows), exactly, most)
        found = np.where(row < 0, -1, voice[row])
        # Windows between the speakers, which no centroid represents, are assigned to the nearest speaker.
        left = np.flatnonzero(found < 0)
        present = np.unique(voice)
        centres = normalise(np.stack([mixed[found == k].mean(axis=0) for k in present]))
        found[left] = present[(mixed[left] @ centres.T).argmax(axis=1)]
        return found

    def _unit(self, rows: Floats, exactly: int | None, most: int) -> Labels:
        """Cluster the embeddings of one scale, float32 (windows, values), and return a label for each."""
        from nemo.collections.asr.parts.utils.offline_clustering import SpeakerClustering, getCosAffinityMatrix

        on_gpu = self._runtime.device.type == "cuda"
        clustering = SpeakerClustering(maj_vote_spk_count=self._config.maj_vote_spk_count, cuda=on_gpu)
        return _as_numpy(
            clustering.forward_unit_infer(
                mat=getCosAffinityMatrix(self._runtime.tensor(rows)),
                oracle_num_speakers=exactly or -1,
                max_num_speakers=most,
                max_rp_threshold=self._config.max_rp_threshold,
                sparse_search_volume=self._config.sparse_search_volume,
            )
        )


def summary(unit: Floats, labels: Labels, size: int) -> tuple[Floats, Labels]:
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
    member = np.full(len(unit), -1, dtype=np.int64)
    for label in np.unique(labels):
        windows = np.flatnonzero(labels == label)
        if len(windows) * 4 < size:
            continue
        for piece in np.array_split(windows, -(-len(windows) // size)):
            member[piece] = len(rows)
            rows.append(unit[piece].mean(axis=0))
    return np.stack(rows), member


def interpolated(scales: Sequence[Scale]) -> Floats:
    """Return one embedding per window of the last scale: the weighted sum of the nearest embeddings of all scales.

    Returns:
        Rows of unit length, float32 (windows, values).
    """
    base = scales[-1]
    mixed = np.zeros_like(base.unit)
    for scale in scales:
        mixed += np.float32(scale.weight) * scale.unit[nearest(scale, base)]
    return normalise(mixed)


def split(labels: Labels, unit: Floats, least: int) -> Labels:
    """Divide the largest cluster in two until there are ``least`` clusters; return the labels, int64 (windows,).

    This is needed because NeMo's k-means may leave clusters empty.
    """
    labels = labels.copy()
    while len(np.unique(labels)) < least:
        rows = np.flatnonzero(labels == np.bincount(labels).argmax())
        labels[rows[k_means(unit[rows], 2) == 1]] = labels.max() + 1
    return labels


@contextlib.contextmanager
def _own_chance(device: Any) -> Iterator[None]:
    """Seed PyTorch's random numbers and restore their state afterwards: NeMo draws from and seeds the global state."""
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        torch.manual_seed(0)
        yield


def _as_numpy(labels: Any) -> Labels:
    found: NDArray[np.int64] = labels.cpu().numpy().astype(np.int64)
    return found
