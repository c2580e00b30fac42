"""What the diarizers that begin with a segmentation share: their stages run on this machine, or on several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diarist.engines.embedded.segmentation import Segmentation, Segmenter
from diarist.protocols import Chunk, ScatterChunks
from diarist.types import Audio, Diarization, Progress, SpeakerHints

EmbeddedT = TypeVar("EmbeddedT")
EmbeddedT_contra = TypeVar("EmbeddedT_contra", contravariant=True)


class EmbeddingStage(Protocol[EmbeddedT_contra]):
    """Embeds parts of a recording, such as spans, or the local speakers of a segmentation."""

    def embed(self, audio: Audio, parts: EmbeddedT_contra, progress: Progress, /) -> NDArray[np.float32]: ...

    def distribute(
        self, audio: Audio, parts: EmbeddedT_contra, progress: Progress, scatter: ScatterChunks
    ) -> NDArray[np.float32]: ...

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes: ...


class StagedDiarizer(ABC, Generic[EmbeddedT]):
    """A diarizer with a stage of segmentation and one of embeddings. It keeps no state between calls."""

    def __init__(self, segmenter: Segmenter, embedder: EmbeddingStage[EmbeddedT]) -> None:
        self._segmenter = segmenter
        self._embedder = embedder

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        return self._diarize(audio, hints, progress, self._segmenter.segment, self._embedder.embed)

    def diarize_distributed(
        self, audio: Audio, hints: SpeakerHints, progress: Progress, scatter: ScatterChunks
    ) -> Diarization:
        segment = partial(self._segmenter.distribute, scatter=scatter)
        return self._diarize(audio, hints, progress, segment, partial(self._embedder.distribute, scatter=scatter))

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        part = self._segmenter if chunk.stage == "segmentation" else self._embedder
        return part.perform(audio, chunk, progress)

    @abstractmethod
    def _diarize(
        self,
        audio: Audio,
        hints: SpeakerHints,
        progress: Progress,
        segment: Callable[[Audio, Progress], Segmentation],
        embed: Callable[[Audio, EmbeddedT, Progress], NDArray[np.float32]],
    ) -> Diarization:
        """Return the diarization, with these functions for the two stages."""
