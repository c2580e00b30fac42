"""From windows with speaker similarities to the speakers of every frame, for any networks.

An embedding identifies the speaker, but its time is only accurate to about a second. Voice activity detection and local
speakers are accurate to a few frames. Both kinds of evidence are put on one grid of frames and added there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.clustering import l2_normalize
from diarist.types import Diarization, Seconds, Span, SpeakerActivity, Turn, relabel

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """A sequence of frames of one length."""

    step: Seconds
    """The time from one frame to the next."""

    start: Seconds = 0.0
    """The start of frame 0."""

    def time(self, frame: float) -> Seconds:
        """Return the start of a frame."""
        return float(frame) * self.step + self.start

    def frame_at(self, time: Seconds) -> int:
        """Return the frame whose start is nearest; never below 0."""
        return max(0, round((time - self.start) / self.step))


@dataclass(frozen=True, slots=True)
class Window:
    """A part of one speaker's speech that gets an embedding."""

    span: Span
    run: int
    """The index of the run of speech that the window is cut from."""


def sliding_windows(runs: Sequence[Span], length: Seconds, shift: Seconds, min_duration: Seconds) -> tuple[Window, ...]:
    """Cut runs into windows of ``length`` every ``shift``; a shorter run of at least ``min_duration`` is one window."""
    windows: list[Window] = []
    for run, span in enumerate(runs):
        if span.duration < min_duration:
            continue
        if span.duration <= length:
            windows.append(Window(span, run))
            continue
        count = int(np.ceil((span.duration - length) / shift)) + 1
        starts = np.linspace(span.start, span.end - length, count)
        windows.extend(Window(Span(float(start), float(start) + length), run) for start in starts)
    return tuple(windows)


def spread_over_frames(grid: Grid, frames: int, windows: Sequence[Window], similarity: Floats) -> Floats:
    """Return the mean similarity of each frame to the speakers, over the windows that cover it.

    Args:
        grid: The grid of the frames.
        frames: The number of frames.
        windows: The windows that were embedded.
        similarity: The cosine of each window to each speaker, (windows, speakers).

    Returns:
        Shape (frames, speakers); zeros where no window covers a frame.
    """
    total = np.zeros((frames, similarity.shape[1]), dtype=np.float32)
    weight = np.zeros((frames, 1), dtype=np.float32)
    for window, row in zip(windows, similarity, strict=True):
        first, stop = grid.frame_at(window.span.start), grid.frame_at(window.span.end)
        total[first:stop] += row
        weight[first:stop] += 1
    mean: Floats = np.divide(total, np.maximum(weight, 1), out=total)
    return mean


def centroids(unit: Floats, labels: NDArray[np.int64], weights: Floats) -> Floats:
    """Return the weighted mean embedding of each label, unit rows (speakers, values).

    Args:
        unit: Embeddings of unit length, (windows, values).
        labels: The speaker of each window, (windows,).
        weights: The weight of each window, (windows,), such as its length.
    """
    speakers = int(labels.max()) + 1
    return l2_normalize(
        np.stack([(unit[labels == k] * weights[labels == k, None]).sum(axis=0) for k in range(speakers)])
    )


def median_filter(values: Floats, frames: int) -> Floats:
    """Return the running median over ``frames`` (odd), column by column."""
    if frames <= 1 or len(values) == 0:
        return values
    half = frames // 2
    smooth = np.empty_like(values)
    for block in _blocks(len(values)):
        # The first and last values are repeated beyond both ends.
        padded = np.arange(block.start - half, block.stop + half).clip(0, len(values) - 1)
        view = np.lib.stride_tricks.sliding_window_view(values[padded], frames, axis=0)
        smooth[block] = np.median(view, axis=2)
    return smooth


def speaker_posterior(score: Floats, count: NDArray[np.int64], sharpness: float) -> Floats:
    """Return the probability that each speaker is active, (frames, speakers) in 0..1.

    It is zero in silence, and shared between speakers in overlap.

    Args:
        score: The fused score, (frames, speakers).
        count: The number of speakers in each frame, (frames,).
        sharpness: The weight of a difference of 1 in the score, in nats.
    """
    probability = np.empty(score.shape, dtype=np.float32)
    for block in _blocks(len(score)):
        part = score[block]
        likelihood = np.exp(sharpness * (part - part.max(axis=1, keepdims=True)))
        probability[block] = np.minimum(1.0, count[block, None] * likelihood / likelihood.sum(axis=1, keepdims=True))
    return probability


def top_speakers(score: Floats, count: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the ``count`` speakers with the highest score in every frame, bool (frames, speakers)."""
    chosen = np.empty(score.shape, dtype=np.bool_)
    for block in _blocks(len(score)):
        rank = np.argsort(np.argsort(-score[block], axis=1, kind="stable"), axis=1, kind="stable")
        chosen[block] = rank < count[block, None]
    return chosen


def _blocks(frames: int, size: int = 20_000) -> Iterator[slice]:
    """Yield slices that cover all frames, so that temporary arrays have the size of minutes and not of hours."""
    return (slice(first, min(first + size, frames)) for first in range(0, frames, size))


def active_spans(active: NDArray[np.bool_], grid: Grid) -> list[Span]:
    """Return the spans of consecutive active frames, bool (frames,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return [Span(grid.time(first), grid.time(stop)) for first, stop in edges.reshape(-1, 2)]


def turns_from_frames(
    active: NDArray[np.bool_], grid: Grid, duration: Seconds, min_pause: Seconds, min_turn: Seconds
) -> tuple[Turn, ...]:
    """Return the turns of active frames, with the number of the column as the speaker.

    Args:
        active: Whether each speaker is active, (frames, speakers).
        grid: The grid of the frames.
        duration: The duration of the recording, at which turns end.
        min_pause: A shorter pause of one speaker is part of the turn.
        min_turn: A shorter turn is dropped as noise.
    """
    turns: list[Turn] = []
    for speaker in range(active.shape[1]):
        merged: list[Span] = []
        for span in active_spans(active[:, speaker], grid):
            if merged and span.start - merged[-1].end < min_pause:
                merged[-1] = Span(merged[-1].start, span.end)
            else:
                merged.append(span)
        turns += [Turn(span.clamp(0.0, duration), str(speaker)) for span in merged if span.duration >= min_turn]
    return tuple(sorted(turn for turn in turns if turn.span.duration > 0))


def build_diarization(
    turns: Sequence[Turn], embeddings: Floats, activity: Floats, grid: Grid, diarizer: str
) -> Diarization:
    """Name the speakers in the order in which they first speak, and drop those without a turn.

    Args:
        turns: Turns with the number of the column as the speaker.
        embeddings: The embedding of each speaker, (speakers, values).
        activity: The probability that each speaker is active, (frames, speakers), 0..1.
        grid: The grid of the frames.
        diarizer: The name of the diarizer.
    """
    names, ordered = relabel(turns)
    columns = [int(old) for old in names]
    return Diarization(
        ordered, embeddings[columns], SpeakerActivity(activity[:, columns], grid.step, grid.start), diarizer
    )
