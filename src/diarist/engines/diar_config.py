"""The configuration of clustering: NeMo's ``diar_infer_*.yaml``, found, read and checked.

What has an effect here becomes a ``DiarConfig``; every other key that NeMo's files have ever had is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diarist.engines.binarization import Binarization
from diarist.types import Seconds

Smoothing = Literal["median", "mean"]


@dataclass(frozen=True, slots=True)
class VadConfig:
    """What finds speech, and when speech counts."""

    model: str
    """A published name, or the path of a ``.nemo`` file."""

    rule: Binarization = field(default_factory=Binarization)

    window: Seconds = 0.63
    """What a model that judges whole windows hears at once; models that judge frames do not use it."""

    shift: Seconds = 0.01
    """From one such window to the next; models that judge frames have their own."""

    smoothing: Smoothing | None = None
    """How the judgements of overlapping windows are made one, or None where the window's centre is what it judges."""

    overlap: float = 0.5
    """Share of a window that the next one overlaps when they are smoothed, 0..1 (1 excluded)."""


@dataclass(frozen=True, slots=True)
class ScaleConfig:
    """Windows of one length that get embeddings."""

    window: Seconds
    shift: Seconds
    weight: float = 1.0
    """Of this scale's similarities against those of the others."""


@dataclass(frozen=True, slots=True)
class VoicesConfig:
    """What tells voices apart."""

    model: str
    """A published name, or the path of a ``.nemo`` file."""

    scales: tuple[ScaleConfig, ...] = (ScaleConfig(1.5, 0.75),)
    """Longest windows first; the last is the base scale, whose windows get the labels."""


@dataclass(frozen=True, slots=True)
class ClusteringConfig:
    """How NeMo's clustering finds the number of speakers. The names are those of NeMo's configurations."""

    max_num_speakers: int = 8
    """The most speakers, where no hint gives another limit."""

    enhanced_count_thres: int = 80
    """With fewer windows than this, speakers are counted by a way for short recordings."""

    max_rp_threshold: float = 0.25
    """The largest share of all windows that a window may have for neighbours."""

    sparse_search_volume: int = 30
    """How many numbers of neighbours are tried."""

    maj_vote_spk_count: bool = False
    """Whether the number of speakers is what most of those tries find, rather than what the best one finds."""

    chunk_cluster_count: int = 50
    """Clusters that stand for each chunk of a long recording."""

    embeddings_per_chunk: int = 10_000
    """Windows of the base scale in each chunk of a long recording."""


@dataclass(frozen=True, slots=True)
class DiarConfig:
    """What of a ``diar_infer_*.yaml`` has an effect here."""

    vad: VadConfig
    voices: VoicesConfig
    clustering: ClusteringConfig = ClusteringConfig()
    asr_model: str | None = None
    """The recogniser that it names, if any."""

    batch_size: int = 64
    """Windows at a time, where NEMO_BATCH says nothing else."""
