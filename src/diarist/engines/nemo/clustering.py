"""NeMo's clustering diarizer, in memory: MarbleNet, TitaNet at several scales, and auto-tuning spectral clustering.

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
from diarist.engines.fusion import Floats
from diarist.engines.multiscale.diarizer import MultiscaleDiarizer, Scale, nearest
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import load_model
from diarist.engines.nemo.speaker_embedding import NemoSpeakerEncoder
from diarist.engines.nemo.vad import speech_detector
from diarist.engines.nemo_yaml.diar_infer import ClusteringConfig, DiarConfig, read_config
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import MAX_SPEAKERS

NAME = "clustering"

CPU_WINDOWS = 3_000
"""Windows that are clustered at once on a CPU: the work grows with their cube. 4,000 take 17 s on two cores; 10,000,
which is NeMo's number for a GPU, minutes and gigabytes."""


def load(settings: Settings) -> Loaded[Diarizer]:
    """The diarizer ``clustering``, as the settings and their configuration describe it.

    Raises:
        ModelError: a model is missing or damaged.
        ConfigurationError: the configuration cannot be used, or names a model of another kind.
    """
    return load_clustering(settings, read_config(settings), Runtime.of(settings))


def load_clustering(settings: Settings, config: DiarConfig, runtime: Runtime) -> Loaded[Diarizer]:
    """The same for a configuration that is read already."""
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
    """NeMo's clustering: ``diarist.engines.multiscale.diarizer.Clusterer``. Keeps no state between calls.

    Up to ``embeddings_per_chunk`` windows, and on a CPU ``CPU_WINDOWS`` at most, are clustered as they are. More are
    cut into chunks. Each chunk is clustered, into about ``chunk_cluster_count`` clusters, and what stands for the
    clusters (``summary``) is clustered again. The windows that nothing stands for go to the nearest voice. NeMo also
    works on long recordings in chunks, but with plain means, and first builds a matrix of every window against every
    other one, which takes 40 GB for four hours.

    Args:
        runtime: where it runs.
        config: how the number of voices is found.
    """

    def __init__(self, runtime: Runtime, config: ClusteringConfig) -> None:
        self._runtime = runtime
        self._config = config
        on_cpu = runtime.device.type == "cpu"
        self._windows = min(config.embeddings_per_chunk, CPU_WINDOWS) if on_cpu else config.embeddings_per_chunk

    def label(self, scales: Sequence[Scale], bounds: SpeakerBounds) -> Labels:
        """A voice for each window of the last scale, int64 (windows,), numbered as they first appear."""
        count = len(scales[-1].unit)
        least, most = min(bounds.min_speakers, count), min(self._most(bounds), count)
        if most == 1:
            return np.zeros(count, dtype=np.int64)
        mixed = interpolated(scales)
        with self._runtime.using(exact=True), _own_chance(self._runtime.device):
            labels = self._group(scales, mixed, None if least < most else least, most)
            found = len(np.unique(labels))
            if not least <= found <= most:
                labels = self._group(scales, mixed, max(least, min(found, most)), most)
        return renumber(split(labels, mixed, least))

    def _most(self, bounds: SpeakerBounds) -> int:
        if bounds.max_speakers is not None:
            return bounds.max_speakers
        if bounds.min_speakers <= self._config.max_num_speakers:
            return self._config.max_num_speakers
        return min(
            2 * bounds.min_speakers, MAX_SPEAKERS
        )  # the caller knows of more than the configuration reckons with

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
        # All means together are clustered at once too, and have to tell the voices apart.
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
        # What stands between the voices goes to the nearest.
        left = np.flatnonzero(found < 0)
        present = np.unique(voice)
        centres = l2_normalize(np.stack([mixed[found == k].mean(axis=0) for k in present]))
        found[left] = present[(mixed[left] @ centres.T).argmax(axis=1)]
        return found

    def _unit(self, rows: Floats, exactly: int | None, most: int) -> Labels:
        """Cluster rows of one scale, (windows, values)."""
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
    """Means of about ``size`` windows of one cluster each.

    Where voices are far apart, NeMo's clusters are a few large ones and many of a single window between two voices. Of
    their plain means most would be such windows, and hide the voices.

    Args:
        unit: embeddings, (windows, values).
        labels: their clusters, (windows,).
        size: clusters of more windows have several means, those of a small part of it none.

    Returns:
        The means, (rows, values), and the row of each window, int64 (windows,), or -1.
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
    """One embedding for each window of the last scale, the weighted sum of those nearest to it at every scale.

    Returns:
        Unit rows, float32 (windows, values).
    """
    base = scales[-1]
    mixed = np.zeros_like(base.unit)
    for scale in scales:
        mixed += np.float32(scale.weight) * scale.unit[nearest(scale, base)]
    return l2_normalize(mixed)


def split(labels: Labels, unit: Floats, least: int) -> Labels:
    """Divide the largest cluster in two until there are ``least``, int64 (windows,).

    NeMo's k-means may leave clusters empty.
    """
    labels = labels.copy()
    while len(np.unique(labels)) < least:
        rows = np.flatnonzero(labels == np.bincount(labels).argmax())
        labels[rows[k_means(unit[rows], 2) == 1]] = labels.max() + 1
    return labels


@contextlib.contextmanager
def _own_chance(device: Any) -> Iterator[None]:
    """NeMo draws from PyTorch's own random numbers, and seeds them, for the whole process."""
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        torch.manual_seed(0)
        yield


def _as_numpy(labels: Any) -> Labels:
    found: NDArray[np.int64] = labels.cpu().numpy().astype(np.int64)
    return found
