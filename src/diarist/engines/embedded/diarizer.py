"""The embedded diarizer: segmentation, embeddings, clustering, fusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.clustering import SPECTRAL_MINIMUM, Floats, SpeakerBounds, Windows, cluster, normalise
from diarist.engines.embedded import fusion
from diarist.engines.embedded.embedding import Embedder
from diarist.engines.embedded.segmentation import FRAME_OFFSET, FRAME_STEP, Segmenter, frame_time
from diarist.types import Audio, Diarization, Progress, Seconds, Span, SpeakerActivity, SpeakerHints, Turn, relabel


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of the pipeline. What each one was worth is told in ``docs/accuracy.md``."""

    window: Seconds = 1.5
    """Length of an embedding's window."""

    shift: Seconds = 0.75
    """From one embedding's window to the next."""

    least: Seconds = 0.8
    """Shorter speech by one speaker gets no embedding of its own."""

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
        recipe = self._recipe
        segmentation = self._segmenter.segment(audio, progress)
        count = fusion.speaker_count(segmentation)
        if not count.any():
            return Diarization()
        runs = fusion.single_speaker_runs(count, fusion.change_points(segmentation))
        windows = fusion.cut(runs, recipe.window, recipe.shift, recipe.least) or fusion.cut(
            runs, recipe.window, recipe.shift, 0.0
        )
        if not windows:  # nothing but overlap
            windows = (fusion.Window(Span(0.0, audio.duration), 0),)
        unit = normalise(self._embedder.embed(audio, [window.span for window in windows], progress))
        least, most = hints.bounds()
        start, end = np.array([(window.span.start, window.span.end) for window in windows]).T
        heard = fusion.heard_together(segmentation, windows) if len(windows) < SPECTRAL_MINIMUM else None
        located = Windows(unit, start, end, np.array([window.run for window in windows]), heard)
        labels = cluster(located, SpeakerBounds(least, most))
        progress("clustering", 1.0)
        voices = fusion.centroids(unit, labels, (end - start).astype(np.float32))
        evidence = fusion.voice_evidence(len(count), windows, unit @ voices.T)
        activity = fusion.local_to_global(segmentation, evidence)
        score = fusion.median_smooth(activity + recipe.voice_weight * evidence, recipe.smooth_frames)
        active = fusion.strongest(score, np.minimum(count, len(voices)))
        turns = self._turns(active, audio.duration)
        return _diarization(turns, voices, fusion.posterior(score, count, recipe.sharpness))

    def _turns(self, active: NDArray[np.bool_], duration: Seconds) -> tuple[Turn, ...]:
        """Active frames (frames, voices) to turns: short pauses filled, shorter turns dropped."""
        turns: list[Turn] = []
        for voice in range(active.shape[1]):
            edges = np.flatnonzero(np.diff(np.concatenate([[False], active[:, voice], [False]]).astype(np.int8)))
            spans = [Span(frame_time(first), frame_time(stop)) for first, stop in edges.reshape(-1, 2)]
            joined: list[Span] = []
            for span in spans:
                if joined and span.start - joined[-1].end < self._recipe.fill:
                    joined[-1] = Span(joined[-1].start, span.end)
                else:
                    joined.append(span)
            turns += [
                Turn(span.clamp(0.0, duration), str(voice))
                for span in joined
                if span.duration >= self._recipe.shortest_turn
            ]
        return tuple(sorted(turns))


def _diarization(turns: tuple[Turn, ...], voices: Floats, activity: Floats) -> Diarization:
    """Named by first appearance; voices that have no turn are left out."""
    names, ordered = relabel(turns)
    columns = [int(old) for old in names]
    return Diarization(ordered, voices[columns], SpeakerActivity(activity[:, columns], FRAME_STEP, FRAME_OFFSET))
