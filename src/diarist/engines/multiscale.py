"""Diarization by clustering voices heard at several scales, whatever networks it is made of.

Park et al., "Multi-scale speaker diarization with dynamic scale weighting" (2022, arXiv 2203.15974), without its
decoder: one voice at a time, so where two speak at once the stronger one is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diarist.clustering import Labels, SpeakerBounds
from diarist.engines.diar_config import DiarConfig
from diarist.engines.fusion import Floats, Grid
from diarist.types import Audio, Diarization, Progress, Span, SpeakerHints


class SpeechDetector(Protocol):
    """Tells speech from everything else, frame by frame."""

    @property
    def grid(self) -> Grid:
        """What its frames are."""
        ...

    def probability(self, audio: Audio, progress: Progress) -> Floats:
        """How probable speech is in each frame, float32 (frames,) in 0..1. Reports the stage ``segmentation``."""
        ...


class VoiceEncoder(Protocol):
    """Tells what voices sound like."""

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> Floats:
        """One embedding a window, float32 (windows, values). Reports the stage ``embedding``.

        Args:
            audio: the whole recording.
            windows: of several lengths, in any order, within the recording.
            progress: called with the share of these windows that is done.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Embeddings of windows of one length."""

    unit: Floats
    """Rows of unit length, float32 (windows, values)."""

    start: NDArray[np.float64]
    """Seconds, ascending, (windows,)."""

    end: NDArray[np.float64]
    weight: float = 1.0


class Clusterer(Protocol):
    """Tells which windows are one voice."""

    def label(self, scales: Sequence[Scale], bounds: SpeakerBounds) -> Labels:
        """A voice for each window of the last scale, the one of the shortest windows: int64 (windows,), from 0.

        Args:
            scales: each with at least one window; longest windows first.
            bounds: what is known of the number of voices; met exactly while there are as many windows.
        """
        ...


class MultiscaleDiarizer:
    """Speech, embeddings at several scales, clusters, turns. Keeps no state between calls."""

    def __init__(
        self, detector: SpeechDetector, encoder: VoiceEncoder, clusterer: Clusterer, config: DiarConfig, name: str
    ) -> None:
        self._detector = detector
        self._encoder = encoder
        self._clusterer = clusterer
        self._config = config
        self._name = name

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        raise NotImplementedError
