"""Diarization by clustering speaker embeddings of several window lengths (scales), for any networks.

Park et al., "Multi-scale speaker diarization with dynamic scale weighting" (2022, arXiv 2203.15974), without its
decoder: only one speaker is active at a time, so in overlap the stronger one is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diarist.clustering import Labels, SpeakerBounds, l2_normalize
from diarist.engines.multiscale.binarization import speech_spans
from diarist.engines.nemo_yaml.diar_infer_config import DiarConfig
from diarist.engines.speaker_activity import (
    Floats,
    Grid,
    Window,
    active_spans,
    build_diarization,
    median_filter,
    sliding_windows,
    speaker_posterior,
    spread_over_frames,
    turns_from_frames,
)
from diarist.types import Audio, Diarization, Progress, Span, SpeakerHints

GRID = Grid(0.02)
"""The frames of the diarization; those of the speech detector may differ."""

SILENCE = 2.0**-16
"""Half of the smallest step of 16-bit samples: samples up to this are digital silence."""


class SpeechDetector(Protocol):
    """Detects speech, frame by frame."""

    @property
    def grid(self) -> Grid:
        """The grid of its frames."""
        ...

    def probability(self, audio: Audio, progress: Progress) -> Floats:
        """Return the probability of speech in each frame, float32 (frames,) in 0..1.

        It reports the stage ``segmentation``.
        """
        ...


class SpeakerEncoder(Protocol):
    """Computes speaker embeddings."""

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> Floats:
        """Return one embedding per window, float32 (windows, values). It reports the stage ``embedding``.

        Args:
            audio: The whole recording.
            windows: Windows of several lengths, in any order, within the recording.
            progress: Called with the share of these windows that is done.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """The embeddings of windows of one length."""

    unit: Floats
    """Rows of unit length, float32 (windows, values)."""

    start: NDArray[np.float64]
    """Start times in seconds, ascending, (windows,)."""

    end: NDArray[np.float64]
    weight: float = 1.0


class Clusterer(Protocol):
    """Assigns windows to speakers."""

    def label(self, scales: Sequence[Scale], bounds: SpeakerBounds) -> Labels:
        """Return the speaker of each window of the last scale (that of the shortest windows), int64 (windows,), from 0.

        Args:
            scales: Scales with at least one window each, longest windows first.
            bounds: The number of speakers to look for; it is met exactly if there are as many windows.
        """
        ...


@dataclass(frozen=True, slots=True)
class MultiscaleConfig:
    """Parameters of the step from labels of windows to turns."""

    label_weight: float = 0.1
    """The weight of the label of the nearest window, relative to the cosine of a frame to a speaker."""

    smooth_frames: int = 25
    """The length of the median filter over the fused scores: half a second."""

    sharpness: float = 4.0
    """The weight of a difference of 1 in the fused score, in nats."""


class MultiscaleDiarizer:
    """Speech detection, embeddings of several scales, clustering, turns.

    One speaker is active at a time. The diarizer keeps no state between calls.

    Args:
        detector: Detects speech.
        encoder: Computes embeddings.
        clusterer: Finds the number of speakers, and assigns windows to them.
        config: The scales, and the rule for the start and end of speech.
        name: The name of the diarizer.
        fusion: Parameters of the step from labels to turns.
    """

    def __init__(
        self,
        detector: SpeechDetector,
        encoder: SpeakerEncoder,
        clusterer: Clusterer,
        config: DiarConfig,
        name: str,
        fusion: MultiscaleConfig = MultiscaleConfig(),
    ) -> None:
        self._detector = detector
        self._encoder = encoder
        self._clusterer = clusterer
        self._config = config
        self._name = name
        self._fusion = fusion

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        speech = self._detect_speech(audio, progress)
        if not speech:
            return Diarization(diarizer=self._name)
        windows, scales = self._embed(audio, speech, progress)
        bounds = SpeakerBounds(*hints.bounds())
        progress("clustering", 0.0)
        labels = self._clusterer.label(scales, bounds)
        progress("clustering", 1.0)
        counts = [base_window_counts(scale, scales[-1], labels) for scale in scales]
        speakers = [scale_centroids(scale, count) for scale, count in zip(scales, counts, strict=True)]
        frames = max(1, math.ceil(audio.duration / GRID.step))
        label = nearest_label(windows[-1], labels, frames)  # (frames,)
        speech_frames = label >= 0
        score = self._score(windows, scales, speakers, label)
        count = score.shape[1]
        speaker = np.where(speech_frames, score.argmax(axis=1), -1)
        speaker = restore_speakers(speaker, label, min(bounds.min_speakers, count))
        turns = turns_from_frames(speaker[:, None] == np.arange(count), GRID, audio.duration, 0.0, 0.0)
        activity = speaker_posterior(score, speech_frames.astype(np.int64), self._fusion.sharpness)
        weights = [scale.weight for scale in scales]
        mean = l2_normalize(np.average(np.stack(speakers), axis=0, weights=weights).astype(np.float32))
        return build_diarization(turns, mean, activity, GRID, self._name)

    def _detect_speech(self, audio: Audio, progress: Progress) -> tuple[Span, ...]:
        if len(audio.samples) == 0:
            return ()
        grid, probability = self._detector.grid, self._detector.probability(audio, progress)
        audible = np.where(silent_frames(audio, grid, len(probability)), np.float32(0), probability)
        return speech_spans(audible, grid, self._config.vad.binarization, audio.duration)

    def _embed(
        self, audio: Audio, speech: Sequence[Span], progress: Progress
    ) -> tuple[list[tuple[Window, ...]], list[Scale]]:
        """Return the windows of each scale, and their embeddings."""
        configs = self._config.speaker_embeddings.scales
        windows = [sliding_windows(speech, config.window, config.shift, 0.0) for config in configs]
        # Speech that is shorter than the windows of several scales is the same window in each: it is embedded once.
        spans = tuple(dict.fromkeys(window.span for own in windows for window in own))
        row_of = {span: row for row, span in enumerate(spans)}
        unit = l2_normalize(np.nan_to_num(self._encoder.embed(audio, spans, progress), posinf=0.0, neginf=0.0))
        scales: list[Scale] = []
        for config, own in zip(configs, windows, strict=True):
            start, end = np.array([(window.span.start, window.span.end) for window in own]).T
            scales.append(Scale(unit[[row_of[window.span] for window in own]], start, end, config.weight))
        return windows, scales

    def _score(
        self, windows: Sequence[Sequence[Window]], scales: Sequence[Scale], speakers: Sequence[Floats], label: Labels
    ) -> Floats:
        """Return the score of each speaker in each frame, (frames, speakers): cosines of all scales, and the label."""
        total_weight = sum(scale.weight for scale in scales)
        score = np.zeros((len(label), len(speakers[0])), dtype=np.float32)
        for own, scale, speaker in zip(windows, scales, speakers, strict=True):
            if scale.weight:
                score += scale.weight / total_weight * spread_over_frames(GRID, len(label), own, scale.unit @ speaker.T)
        labeled = np.flatnonzero(label >= 0)
        score[labeled, label[labeled]] += self._fusion.label_weight
        for span in active_spans(label >= 0, GRID):  # one by one, since another speaker may follow after the pause
            frames = slice(GRID.frame_at(span.start), GRID.frame_at(span.end))
            score[frames] = median_filter(score[frames], self._fusion.smooth_frames)
        return score


def silent_frames(audio: Audio, grid: Grid, frames: int) -> NDArray[np.bool_]:
    """Return the frames of digital silence, bool (frames,): models trained on sound may take it for anything."""
    edges = np.ceil((grid.start + np.arange(frames + 1) * grid.step) * audio.rate - 1e-6).astype(np.int64)
    edges = edges.clip(0, len(audio.samples))
    audible = np.zeros(frames, dtype=bool)
    block = 6_000  # limits the memory for hours
    for first in range(0, frames, block):
        own = edges[first : first + block + 1]
        loud = np.abs(audio.part(own[0], own[-1])) > SILENCE
        cumulative = np.concatenate([[0], np.cumsum(loud)])[own - own[0]]
        audible[first : first + block] = np.diff(cumulative) > 0
    return ~audible


def nearest(scale: Scale, base: Scale) -> NDArray[np.int64]:
    """Return the window of ``scale`` with the middle nearest to that of each window of ``base``, int64 (windows,)."""
    middle, base_middle = (scale.start + scale.end) / 2, (base.start + base.end) / 2
    right = np.searchsorted(middle, base_middle).clip(max=len(middle) - 1)
    left = (right - 1).clip(min=0)
    index: NDArray[np.int64] = np.where(base_middle - middle[left] <= middle[right] - base_middle, left, right)
    return index


def base_window_counts(scale: Scale, base: Scale, labels: Labels) -> Floats:
    """Return how many base windows of each speaker are nearest to each window of a scale, (windows, speakers)."""
    counts = np.zeros((len(scale.unit), int(labels.max()) + 1), dtype=np.float32)
    np.add.at(counts, (nearest(scale, base), labels), 1.0)
    return counts


def scale_centroids(scale: Scale, counts: Floats) -> Floats:
    """Return the mean embedding of each speaker at a scale, unit rows (speakers, values)."""
    return l2_normalize(counts.T @ scale.unit)


def nearest_label(windows: Sequence[Window], labels: Labels, frames: int) -> Labels:
    """Return the label of the window of the same run whose middle is nearest, int64 (frames,); -1 outside of runs."""
    nearest_labels = np.full(frames, -1, dtype=np.int64)
    first = 0
    for stop in range(1, len(windows) + 1):
        if stop < len(windows) and windows[stop].run == windows[first].run:
            continue
        own = windows[first:stop]
        edges = [GRID.frame_at(own[0].span.start)]
        edges += [GRID.frame_at((left.span.middle + right.span.middle) / 2) for left, right in pairwise(own)]
        edges.append(max(GRID.frame_at(own[-1].span.end), edges[0] + 1))
        for (begin, end), label in zip(pairwise(edges), labels[first:stop], strict=True):
            nearest_labels[begin:end] = label
        first = stop
    return nearest_labels


def restore_speakers(speaker: Labels, label: Labels, min_speakers: int) -> Labels:
    """Give speakers that smoothing removed their own frames back, until ``min_speakers`` are left, int64 (frames,).

    Args:
        speaker: The speaker of each frame, -1 where nobody speaks.
        label: The speaker that each frame had before smoothing, in the same form.
        min_speakers: The number of speakers that must be active.
    """
    present = set(np.unique(speaker[speaker >= 0]).tolist())
    if len(present) >= min_speakers:
        return speaker
    restored = speaker.copy()
    for removed in sorted(set(np.unique(label[label >= 0]).tolist()) - present):
        restored[label == removed] = removed
    return restored if len(np.unique(restored[restored >= 0])) >= min_speakers else label
