"""Diarization by clustering voices heard at several scales, whatever networks it is made of.

Park et al., "Multi-scale speaker diarization with dynamic scale weighting" (2022, arXiv 2203.15974), without its
decoder: one voice at a time, so where two speak at once the stronger one is given.
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
from diarist.engines.fusion import (
    Floats,
    Grid,
    Window,
    active_spans,
    cut,
    diarization_of,
    median_smooth,
    posterior,
    turns_of,
    voice_evidence,
)
from diarist.engines.multiscale.binarization import speech_spans
from diarist.engines.nemo_yaml.diar_infer_config import DiarConfig
from diarist.types import Audio, Diarization, Progress, Span, SpeakerHints

GRID = Grid(0.02)
"""The frames that everything is laid on; what finds speech may have others."""

SILENCE = 2.0**-16
"""Half of the least step of 16-bit samples: nothing above it is no sound at all."""


class SpeechDetector(Protocol):
    """Tells speech from everything else, frame by frame."""

    @property
    def grid(self) -> Grid:
        """What its frames are."""
        ...

    def probability(self, audio: Audio, progress: Progress) -> Floats:
        """How probable speech is in each frame, float32 (frames,) in 0..1. Reports the stage ``segmentation``."""
        ...


class SpeakerEncoder(Protocol):
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


@dataclass(frozen=True, slots=True)
class Recipe:
    """How labels of windows become turns."""

    label_weight: float = 0.1
    """What the label of the nearest window counts against the cosine of a moment to a voice."""

    smooth_frames: int = 25
    """Median filter over the fused scores: half a second."""

    sharpness: float = 4.0
    """What a difference of 1 in the fused score is worth, in nats."""


class MultiscaleDiarizer:
    """Speech, embeddings at several scales, clusters, turns. One voice at a time; keeps no state between calls.

    Args:
        detector: finds speech.
        encoder: hears voices.
        clusterer: tells how many there are, and which window is whose.
        config: when speech counts, and what the scales are.
        name: of what this is made of.
        recipe: how labels become turns.
    """

    def __init__(
        self,
        detector: SpeechDetector,
        encoder: SpeakerEncoder,
        clusterer: Clusterer,
        config: DiarConfig,
        name: str,
        recipe: Recipe = Recipe(),
    ) -> None:
        self._detector = detector
        self._encoder = encoder
        self._clusterer = clusterer
        self._config = config
        self._name = name
        self._recipe = recipe

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        speech = self._speech(audio, progress)
        if not speech:
            return Diarization(diarizer=self._name)
        windows, scales = self._hear(audio, speech, progress)
        bounds = SpeakerBounds(*hints.bounds())
        progress("clustering", 0.0)
        labels = self._clusterer.label(scales, bounds)
        progress("clustering", 1.0)
        shares = [voice_shares(scale, scales[-1], labels) for scale in scales]
        voices = [centroids_of(scale, share) for scale, share in zip(scales, shares, strict=True)]
        frames = max(1, math.ceil(audio.duration / GRID.step))
        label = nearest_label(windows[-1], labels, frames)  # (frames,)
        spoken = label >= 0
        score = self._score(windows, scales, voices, label)
        count = score.shape[1]
        speaker = np.where(spoken, score.argmax(axis=1), -1)
        speaker = keep_voices(speaker, label, min(bounds.min_speakers, count))
        turns = turns_of(speaker[:, None] == np.arange(count), GRID, audio.duration, 0.0, 0.0)
        activity = posterior(score, spoken.astype(np.int64), self._recipe.sharpness)
        weights = [scale.weight for scale in scales]
        mean = l2_normalize(np.average(np.stack(voices), axis=0, weights=weights).astype(np.float32))
        return diarization_of(turns, mean, activity, GRID, self._name)

    def _speech(self, audio: Audio, progress: Progress) -> tuple[Span, ...]:
        """Where somebody speaks."""
        if len(audio.samples) == 0:
            return ()
        grid, probability = self._detector.grid, self._detector.probability(audio, progress)
        heard = np.where(silent(audio, grid, len(probability)), np.float32(0), probability)
        return speech_spans(heard, grid, self._config.vad.binarization, audio.duration)

    def _hear(
        self, audio: Audio, speech: Sequence[Span], progress: Progress
    ) -> tuple[list[tuple[Window, ...]], list[Scale]]:
        """The windows of each scale, and what voices sound like in them."""
        parts = self._config.speaker_embeddings.scales
        windows = [cut(speech, part.window, part.shift, 0.0) for part in parts]
        # A stretch shorter than several scales' windows is the same window in each: heard once.
        spans = tuple(dict.fromkeys(window.span for own in windows for window in own))
        at = {span: row for row, span in enumerate(spans)}
        unit = l2_normalize(np.nan_to_num(self._encoder.embed(audio, spans, progress), posinf=0.0, neginf=0.0))
        scales: list[Scale] = []
        for part, own in zip(parts, windows, strict=True):
            start, end = np.array([(window.span.start, window.span.end) for window in own]).T
            scales.append(Scale(unit[[at[window.span] for window in own]], start, end, part.weight))
        return windows, scales

    def _score(
        self, windows: Sequence[Sequence[Window]], scales: Sequence[Scale], voices: Sequence[Floats], label: Labels
    ) -> Floats:
        """How well each voice fits each frame, (frames, voices): its cosine over the scales, and the frame's label."""
        whole = sum(scale.weight for scale in scales)
        score = np.zeros((len(label), len(voices[0])), dtype=np.float32)
        for own, scale, voice in zip(windows, scales, voices, strict=True):
            if scale.weight:
                score += scale.weight / whole * voice_evidence(GRID, len(label), own, scale.unit @ voice.T)
        said = np.flatnonzero(label >= 0)
        score[said, label[said]] += self._recipe.label_weight
        for span in active_spans(label >= 0, GRID):  # each apart: another may speak after the pause
            stretch = slice(GRID.at(span.start), GRID.at(span.end))
            score[stretch] = median_smooth(score[stretch], self._recipe.smooth_frames)
        return score


def silent(audio: Audio, grid: Grid, frames: int) -> NDArray[np.bool_]:
    """Which frames hold digital silence, bool (frames,): models trained on sound may take it for anything."""
    edges = np.ceil((grid.start + np.arange(frames + 1) * grid.step) * audio.rate - 1e-6).astype(np.int64)
    edges = edges.clip(0, len(audio.samples))
    held = np.zeros(frames, dtype=bool)
    block = 6_000  # bounds the memory for hours
    for first in range(0, frames, block):
        own = edges[first : first + block + 1]
        loud = np.abs(audio.part(own[0], own[-1])) > SILENCE
        so_far = np.concatenate([[0], np.cumsum(loud)])[own - own[0]]
        held[first : first + block] = np.diff(so_far) > 0
    return ~held


def nearest(scale: Scale, base: Scale) -> NDArray[np.int64]:
    """The window of ``scale`` whose middle is nearest to that of each of ``base``, int64 (base windows,)."""
    middle, wanted = (scale.start + scale.end) / 2, (base.start + base.end) / 2
    right = np.searchsorted(middle, wanted).clip(max=len(middle) - 1)
    left = (right - 1).clip(min=0)
    found: NDArray[np.int64] = np.where(wanted - middle[left] <= middle[right] - wanted, left, right)
    return found


def voice_shares(scale: Scale, base: Scale, labels: Labels) -> Floats:
    """How many base windows of each voice are nearest to each window of a scale, (windows, voices)."""
    shares = np.zeros((len(scale.unit), int(labels.max()) + 1), dtype=np.float32)
    np.add.at(shares, (nearest(scale, base), labels), 1.0)
    return shares


def centroids_of(scale: Scale, shares: Floats) -> Floats:
    """The mean voice of each label at a scale, unit rows (voices, values)."""
    return l2_normalize(shares.T @ scale.unit)


def nearest_label(windows: Sequence[Window], labels: Labels, frames: int) -> Labels:
    """The label of the window of the same stretch of speech whose middle is nearest, int64 (frames,); -1 elsewhere."""
    found = np.full(frames, -1, dtype=np.int64)
    first = 0
    for stop in range(1, len(windows) + 1):
        if stop < len(windows) and windows[stop].run == windows[first].run:
            continue
        own = windows[first:stop]
        edges = [GRID.at(own[0].span.start)]
        edges += [GRID.at((left.span.middle + right.span.middle) / 2) for left, right in pairwise(own)]
        edges.append(max(GRID.at(own[-1].span.end), edges[0] + 1))
        for (begin, end), label in zip(pairwise(edges), labels[first:stop], strict=True):
            found[begin:end] = label
        first = stop
    return found


def keep_voices(speaker: Labels, label: Labels, least: int) -> Labels:
    """Give voices that smoothing took every frame of their own frames back, until ``least`` speak, int64 (frames,).

    Args:
        speaker: the voice of each frame, -1 where nobody speaks.
        label: the voice that each frame was given at first, likewise.
        least: how many have to speak.
    """
    present = set(np.unique(speaker[speaker >= 0]).tolist())
    if len(present) >= least:
        return speaker
    kept = speaker.copy()
    for voice in sorted(set(np.unique(label[label >= 0]).tolist()) - present):
        kept[label == voice] = voice
    return kept if len(np.unique(kept[kept >= 0])) >= least else label
