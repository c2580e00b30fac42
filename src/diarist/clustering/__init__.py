"""Clustering of speaker embeddings in numpy: how many speakers there are, and which window belongs to whom."""

from diarist.clustering.embeddings import (
    REFERENCE_WINDOW_S,
    EmbeddedWindows,
    Labels,
    SpeakerBounds,
    expected_similarity,
    l2_normalize,
    renumber,
)
from diarist.clustering.plda import Plda
from diarist.clustering.speaker_clustering import SPECTRAL_MAX_WINDOWS, cluster
from diarist.clustering.spectral import k_means
from diarist.clustering.vbx_clustering import FoundSpeakers, find_speakers

__all__ = [
    "REFERENCE_WINDOW_S",
    "SPECTRAL_MAX_WINDOWS",
    "EmbeddedWindows",
    "FoundSpeakers",
    "Labels",
    "Plda",
    "SpeakerBounds",
    "cluster",
    "expected_similarity",
    "find_speakers",
    "k_means",
    "l2_normalize",
    "renumber",
]
