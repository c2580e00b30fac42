"""The embedded diarizer: segmentation, embeddings, clustering, fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from diarist.clustering import (
    REFERENCE_WINDOW_S,
    SPECTRAL_MAX_WINDOWS,
    EmbeddedWindows,
    SpeakerBounds,
    cluster,
    expected_similarity,
    l2_normalize,
)
from diarist.engines.embedded import local_speakers
from diarist.engines.embedded.segmentation import GRID, Segmentation, Segmenter
from diarist.engines.embedded.speaker_embedding import Embedder
from diarist.engines.fusion import (
    Window,
    centroids,
    cut,
    diarization_of,
    median_smooth,
    posterior,
    strongest,
    turns_of,
    voice_evidence,
)
from diarist.protocols import Chunk, ScatterChunks
from diarist.types import Audio, Diarization, Progress, Seconds, Span, SpeakerHints

NAME = "embedded"

Segment: TypeAlias = Callable[[Audio, Progress], Segmentation]
Embed: TypeAlias = Callable[[Audio, Sequence[Span], Progress], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of the pipeline. What each one was worth is told in ``docs/accuracy.md``."""

    window: Seconds = 1.5
    """Length of an embedding's window."""

    shift: Seconds = 0.75
    """From one embedding's window to the next."""

    least: Seconds = 0.8
    """Shorter speech by one speaker says nothing of who there is: it is not clustered."""

    briefest: Seconds = 0.2
    """Shorter speech by one speaker does not even say which of them it is: there is no embedding of it."""

    voice_weight: float = 4.0
    """Weight of a frame's similarity to a voice against its activity in the segmentation."""

    sharpness: float = 2.0
    """What a difference of 1 in the fused score is worth, in nats."""

    smooth_frames: int = 31
    """Median filter over the fused scores: half a second."""

    fill: Seconds = 0.4
    """A shorter pause of one speaker is part of the turn."""

    shortest_turn: Seconds = 0.1
    """A shorter turn is taken for noise."""


class EmbeddedDiarizer:
    """Diarization on the CPU, without PyTorch. Keeps no state between calls."""

    def __init__(self, segmenter: Segmenter, embedder: Embedder, recipe: Recipe = Recipe()) -> None:
        self._segmenter = segmenter
        self._embedder = embedder
        self._recipe = recipe

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

    def _diarize(
        self, audio: Audio, hints: SpeakerHints, progress: Progress, segment: Segment, embed: Embed
    ) -> Diarization:
        recipe = self._recipe
        segmentation = segment(audio, progress)
        count = local_speakers.speaker_count(segmentation)
        if not count.any():
            return Diarization(diarizer=NAME)
        frames = local_speakers.single_speaker_runs(count, local_speakers.change_points(segmentation))
        runs = [Span(GRID.time(first), GRID.time(stop)) for first, stop in frames]
        windows, brief = self._windows(runs, audio.duration)
        spans = [window.span for window in (*windows, *brief)]
        unit = l2_normalize(embed(audio, spans, progress))
        least, most = hints.bounds()
        start, end = np.array([(window.span.start, window.span.end) for window in windows]).T
        heard = local_speakers.heard_together(segmentation, windows) if len(windows) <= SPECTRAL_MAX_WINDOWS else None
        located = EmbeddedWindows(unit[: len(windows)], start, end, np.array([window.run for window in windows]), heard)
        labels = cluster(located, SpeakerBounds(least, most))
        progress("clustering", 1.0)
        voices = centroids(located.unit, labels, (end - start).astype(np.float32))
        # A short window is less like its own voice than a long one, and yet it is as much of it.
        whole = located.same_speaker_similarity()
        lengths = np.array([span.duration for span in spans])
        expected = (
            expected_similarity(lengths, whole) / expected_similarity(np.array([REFERENCE_WINDOW_S]), whole)
        ).astype(np.float32)
        similarity = (unit @ voices.T) / expected[:, None]
        evidence = voice_evidence(GRID, len(count), (*windows, *brief), similarity)
        score = local_speakers.local_to_global(segmentation, evidence)
        del segmentation  # hours of it are larger than all that follows
        evidence *= recipe.voice_weight
        score += evidence
        smooth = median_smooth(score, recipe.smooth_frames)
        alone = ~smooth.any(axis=1)  # speech that is shorter than the silence around it: the median is of silence
        smooth[alone] = score[alone]
        active = strongest(smooth, np.minimum(count, len(voices)))
        turns = turns_of(active, GRID, audio.duration, recipe.fill, recipe.shortest_turn)
        return diarization_of(turns, voices, posterior(smooth, count, recipe.sharpness), GRID, NAME)

    def _windows(self, runs: Sequence[Span], duration: Seconds) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
        """What is clustered, at least one window, and what is too brief for that but still sounds like somebody."""
        recipe = self._recipe
        windows = cut(runs, recipe.window, recipe.shift, recipe.least)
        if not windows:
            everything = Window(Span(0.0, duration), 0)  # nothing but overlap
            return cut(runs, recipe.window, recipe.shift, 0.0) or (everything,), ()
        brief = (Window(span, run) for run, span in enumerate(runs) if recipe.briefest <= span.duration < recipe.least)
        return windows, tuple(brief)
