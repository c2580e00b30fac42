"""From windows of one voice to who speaks in every frame, whatever network the evidence comes from.

An embedding knows who it is, but only to a second or so; what tells speech from silence, or one local speaker from
another, knows when to a few frames. Both are laid on one grid of frames and added up there.
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
    """Frames of one length, one after the other."""

    step: Seconds
    """From one frame to the next."""

    start: Seconds = 0.0
    """Where frame 0 starts."""

    def time(self, frame: float) -> Seconds:
        """Where a frame starts."""
        return float(frame) * self.step + self.start

    def at(self, time: Seconds) -> int:
        """The frame whose start is nearest; never below 0."""
        return max(0, round((time - self.start) / self.step))


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one speaker's speech that gets an embedding."""

    span: Span
    run: int
    """The run that it is cut from."""


def cut(runs: Sequence[Span], length: Seconds, shift: Seconds, least: Seconds) -> tuple[Window, ...]:
    """Windows of ``length`` every ``shift`` within the runs; a shorter run of at least ``least`` is one window."""
    windows: list[Window] = []
    for run, span in enumerate(runs):
        if span.duration < least:
            continue
        if span.duration <= length:
            windows.append(Window(span, run))
            continue
        pieces = int(np.ceil((span.duration - length) / shift)) + 1
        offsets = np.linspace(span.start, span.end - length, pieces)
        windows.extend(Window(Span(float(at), float(at) + length), run) for at in offsets)
    return tuple(windows)


def voice_evidence(grid: Grid, frames: int, windows: Sequence[Window], similarity: Floats) -> Floats:
    """Spread each window's similarity to the voices over the frames that it covers.

    Args:
        grid: what the frames are.
        frames: how many there are.
        windows: what was embedded.
        similarity: cosine of each window to each voice, (windows, voices).

    Returns:
        The mean over covering windows, (frames, voices); zeros where no window covers a frame.
    """
    total = np.zeros((frames, similarity.shape[1]), dtype=np.float32)
    weight = np.zeros((frames, 1), dtype=np.float32)
    for window, row in zip(windows, similarity, strict=True):
        first, stop = grid.at(window.span.start), grid.at(window.span.end)
        total[first:stop] += row
        weight[first:stop] += 1
    mean: Floats = np.divide(total, np.maximum(weight, 1), out=total)
    return mean


def centroids(unit: Floats, labels: NDArray[np.int64], weights: Floats) -> Floats:
    """The mean voice of each label, unit rows (voices, values); ``weights`` (windows,) counts longer windows more."""
    voices = int(labels.max()) + 1
    return l2_normalize(np.stack([(unit[labels == k] * weights[labels == k, None]).sum(axis=0) for k in range(voices)]))


def median_smooth(values: Floats, frames: int) -> Floats:
    """Running median over ``frames`` (odd), column by column."""
    if frames <= 1 or len(values) == 0:
        return values
    half = frames // 2
    smooth = np.empty_like(values)
    for block in _blocks(len(values)):
        # The edge is repeated beyond both ends.
        around = np.arange(block.start - half, block.stop + half).clip(0, len(values) - 1)
        view = np.lib.stride_tricks.sliding_window_view(values[around], frames, axis=0)
        smooth[block] = np.median(view, axis=2)
    return smooth


def posterior(score: Floats, count: NDArray[np.int64], sharpness: float) -> Floats:
    """How probable it is that each voice speaks, (frames, voices) in 0..1: nothing in silence, shared in overlap.

    Args:
        score: fused, (frames, voices).
        count: how many speak in each frame, (frames,).
        sharpness: what a difference of 1 in score is worth, in nats.
    """
    shared = np.empty(score.shape, dtype=np.float32)
    for block in _blocks(len(score)):
        part = score[block]
        likely = np.exp(sharpness * (part - part.max(axis=1, keepdims=True)))
        shared[block] = np.minimum(1.0, count[block, None] * likely / likely.sum(axis=1, keepdims=True))
    return shared


def strongest(score: Floats, count: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The ``count`` highest-ranked voices in every frame, bool (frames, voices)."""
    chosen = np.empty(score.shape, dtype=np.bool_)
    for block in _blocks(len(score)):
        rank = np.argsort(np.argsort(-score[block], axis=1, kind="stable"), axis=1, kind="stable")
        chosen[block] = rank < count[block, None]
    return chosen


def _blocks(frames: int, size: int = 20_000) -> Iterator[slice]:
    """Slices that cover all frames: what is computed on the way is as large as a few minutes, not as hours."""
    return (slice(first, min(first + size, frames)) for first in range(0, frames, size))


def active_spans(active: NDArray[np.bool_], grid: Grid) -> list[Span]:
    """The stretches of frames that are on, bool (frames,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    return [Span(grid.time(first), grid.time(stop)) for first, stop in edges.reshape(-1, 2)]


def turns_of(
    active: NDArray[np.bool_], grid: Grid, duration: Seconds, fill: Seconds, shortest: Seconds
) -> tuple[Turn, ...]:
    """Active frames (frames, voices) to turns named by their column.

    Args:
        active: who speaks, (frames, voices).
        grid: what the frames are.
        duration: of the recording; turns end with it.
        fill: a shorter pause of one voice is part of its turn.
        shortest: a shorter turn is taken for noise.
    """
    turns: list[Turn] = []
    for voice in range(active.shape[1]):
        joined: list[Span] = []
        for span in active_spans(active[:, voice], grid):
            if joined and span.start - joined[-1].end < fill:
                joined[-1] = Span(joined[-1].start, span.end)
            else:
                joined.append(span)
        turns += [Turn(span.clamp(0.0, duration), str(voice)) for span in joined if span.duration >= shortest]
    return tuple(sorted(turn for turn in turns if turn.span.duration > 0))


def diarization_of(turns: Sequence[Turn], voices: Floats, activity: Floats, grid: Grid, diarizer: str) -> Diarization:
    """Voices named as they first speak; those that have no turn are left out.

    Args:
        turns: named by their column.
        voices: an embedding each, (voices, values).
        activity: how probable it is that each speaks, (frames, voices), 0..1.
        grid: what the frames are.
        diarizer: the name of what found them.
    """
    names, ordered = relabel(turns)
    columns = [int(old) for old in names]
    return Diarization(ordered, voices[columns], SpeakerActivity(activity[:, columns], grid.step, grid.start), diarizer)
