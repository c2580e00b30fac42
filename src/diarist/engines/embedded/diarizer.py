"""The embedded diarizer: segmentation, embeddings, clustering, fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from diarist.engines.embedded.staged_diarizer import StagedDiarizer
from diarist.engines.speaker_activity import (
    Window,
    build_diarization,
    centroids,
    median_filter,
    sliding_windows,
    speaker_posterior,
    spread_over_frames,
    top_speakers,
    turns_from_frames,
)
from diarist.types import Audio, Diarization, Progress, Seconds, Span, SpeakerHints

NAME = "embedded"

Segment: TypeAlias = Callable[[Audio, Progress], Segmentation]
Embed: TypeAlias = Callable[[Audio, Sequence[Span], Progress], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class DiarizerConfig:
    """The parameters of the pipeline. ``docs/experiments.md`` gives the effect of each of them."""

    window: Seconds = 1.5
    """The length of an embedding's window."""

    shift: Seconds = 0.75
    """The step from one embedding's window to the next."""

    min_clustered: Seconds = 0.8
    """Shorter speech by one speaker is not clustered: it says nothing about how many speakers there are."""

    min_embedded: Seconds = 0.2
    """Shorter speech by one speaker is not embedded: it does not even say which of the speakers it is."""

    similarity_weight: float = 4.0
    """The weight of a frame's similarity to a speaker, relative to its activity in the segmentation."""

    sharpness: float = 2.0
    """The weight of a difference of 1 in the fused score, in nats."""

    smooth_frames: int = 31
    """The length of the median filter over the fused scores: half a second."""

    min_pause: Seconds = 0.4
    """A shorter pause of one speaker is part of the turn."""

    min_turn: Seconds = 0.1
    """A shorter turn is dropped as noise."""


class EmbeddedDiarizer(StagedDiarizer[Sequence[Span]]):
    """Diarization with Diarist's own clustering, without PyTorch. It keeps no state between calls."""

    def __init__(self, segmenter: Segmenter, embedder: Embedder, config: DiarizerConfig = DiarizerConfig()) -> None:
        super().__init__(segmenter, embedder)
        self._config = config

    def _diarize(
        self, audio: Audio, hints: SpeakerHints, progress: Progress, segment: Segment, embed: Embed
    ) -> Diarization:
        config = self._config
        segmentation = segment(audio, progress)
        count = local_speakers.speaker_count(segmentation)
        if not count.any():
            return Diarization(diarizer=NAME)
        frames = local_speakers.single_speaker_runs(count, local_speakers.change_points(segmentation))
        runs = [Span(GRID.time(first), GRID.time(stop)) for first, stop in frames]
        windows, short = self._windows(runs, audio.duration)
        spans = [window.span for window in (*windows, *short)]
        unit = l2_normalize(embed(audio, spans, progress))
        start, end = np.array([(window.span.start, window.span.end) for window in windows]).T
        agreement = (
            local_speakers.speaker_agreement(segmentation, windows) if len(windows) <= SPECTRAL_MAX_WINDOWS else None
        )
        run = np.array([window.run for window in windows])
        embedded = EmbeddedWindows(unit[: len(windows)], start, end, run, agreement)
        labels = cluster(embedded, SpeakerBounds(*hints.bounds()))
        progress("clustering", 1.0)
        speakers = centroids(embedded.unit, labels, (end - start).astype(np.float32))
        # A short window is less similar to its own speaker than a long one, and yet belongs to them just as much.
        reference = embedded.same_speaker_similarity()
        lengths = np.array([span.duration for span in spans])
        expected = (
            expected_similarity(lengths, reference) / expected_similarity(np.array([REFERENCE_WINDOW_S]), reference)
        ).astype(np.float32)
        similarity = spread_over_frames(GRID, len(count), (*windows, *short), (unit @ speakers.T) / expected[:, None])
        score = local_speakers.local_to_global(segmentation, similarity)
        possible = local_speakers.possible_speech(segmentation, count, audio.duration)
        del segmentation  # that of hours is larger than everything that follows
        similarity *= config.similarity_weight
        score += similarity
        smooth = median_filter(score, config.smooth_frames)
        removed = ~smooth.any(axis=1)  # speech that is shorter than the silence around it, so that the median is zero
        smooth[removed] = score[removed]
        active = top_speakers(smooth, np.minimum(count, len(speakers)))
        turns = turns_from_frames(active, GRID, audio.duration, config.min_pause, config.min_turn)
        posterior = speaker_posterior(smooth, count, config.sharpness)
        diarization = build_diarization(turns, speakers, posterior, GRID, NAME)
        return replace(diarization, possible_speech=possible)

    def _windows(self, runs: Sequence[Span], duration: Seconds) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
        """Return the windows that are clustered, at least one, and the short ones that are only embedded."""
        config = self._config
        windows = sliding_windows(runs, config.window, config.shift, config.min_clustered)
        if not windows:
            everything = Window(Span(0.0, duration), 0)  # for a recording with nothing but overlap
            return sliding_windows(runs, config.window, config.shift, 0.0) or (everything,), ()
        short = (
            Window(span, run)
            for run, span in enumerate(runs)
            if config.min_embedded <= span.duration < config.min_clustered
        )
        return windows, tuple(short)
