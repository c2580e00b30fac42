"""From local speakers and voices to who speaks in every frame: the two kinds of evidence are fused frame by frame.

The segmentation knows to a few frames when somebody starts and stops, but its speakers are only told apart within ten
seconds; the embeddings know who it is, but only to a second or so. Where they are joined decides the words at turn
boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.clustering import assign, normalise
from diarist.engines.embedded.segmentation import MEMBERS, WINDOW_FRAMES, Segmentation, frame_at, frame_time
from diarist.types import Seconds, Span

Floats = NDArray[np.float32]


def speaker_count(segmentation: Segmentation) -> NDArray[np.int64]:
    """How many speak in each frame of the common grid, int64 (frames,): the rounded mean over windows."""
    spoken = MEMBERS.sum(axis=1)[segmentation.classes]  # (windows, 589)
    return np.rint(segmentation.overlap_add(spoken[:, :, None])[:, 0]).astype(np.int64)


def change_points(segmentation: Segmentation, reach: int = 8) -> NDArray[np.bool_]:
    """Where most windows hear one speaker hand over to another without a pause, bool (frames,): the first new frame.

    Windows differ by a few frames on the moment, so what is compared lies ``reach`` frames before and after it.
    """
    members = MEMBERS[segmentation.classes]  # (windows, 589, 3)
    solo = members.sum(axis=2) == 1
    changed = np.zeros((*solo.shape, 1), dtype=np.float32)
    before, after = slice(None, -2 * reach), slice(2 * reach, None)
    differ = (members[:, after] != members[:, before]).any(axis=2)
    changed[:, reach:-reach, 0] = solo[:, before] & solo[:, after] & differ
    likely = segmentation.overlap_add(changed)[:, 0] > 0.5
    found = np.zeros(len(likely), dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], likely, [False]]).astype(np.int8))).reshape(-1, 2)
    found[edges.sum(axis=1) // 2] = True
    return found


def single_speaker_runs(count: NDArray[np.int64], changes: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of frames (first, past the last) in which one and the same speaker speaks."""
    single = count == 1
    starts = single & (~np.roll(single, 1) | changes)
    starts[0] = single[0]
    runs: list[tuple[int, int]] = []
    for first in np.flatnonzero(starts):
        stop = first + 1
        while stop < len(single) and single[stop] and not starts[stop]:
            stop += 1
        runs.append((int(first), int(stop)))
    return runs


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one speaker's speech that gets an embedding."""

    span: Span
    run: int
    """The run that it is cut from."""


def cut(runs: Sequence[tuple[int, int]], length: Seconds, shift: Seconds, least: Seconds) -> tuple[Window, ...]:
    """Windows of ``length`` every ``shift`` within the runs; a shorter run of at least ``least`` is one window."""
    windows: list[Window] = []
    for run, (first, stop) in enumerate(runs):
        start, end = frame_time(first), frame_time(stop)
        if end - start < least:
            continue
        if end - start <= length:
            windows.append(Window(Span(start, end), run))
            continue
        pieces = int(np.ceil((end - start - length) / shift)) + 1
        offsets = np.linspace(start, end - length, pieces)
        windows.extend(Window(Span(float(at), float(at) + length), run) for at in offsets)
    return tuple(windows)


def heard_together(segmentation: Segmentation, windows: Sequence[Window], least: float = 0.3) -> Floats:
    """What the segmentation says of pairs of windows that lie within the same ten seconds.

    Returns:
        (windows, windows), 1 where it hears one speaker, -1 where it hears two, 0 where it heard less than ``least`` of
        both at once. Quadratic in the number of windows: for short recordings.
    """
    first = np.array([frame_at(window.span.start) for window in windows])
    stop = np.maximum([frame_at(window.span.end) for window in windows], first + 1)
    members = MEMBERS[segmentation.classes]  # (segmentation's windows, 589, 3)
    solo = members * (members.sum(axis=2, keepdims=True) == 1)
    until = np.concatenate([np.zeros_like(solo[:, :1]), np.cumsum(solo, axis=1)], axis=1)
    same, both = np.zeros((2, len(windows), len(windows)), dtype=np.float32)
    for index, start in enumerate(segmentation.starts):
        inside = np.flatnonzero((first >= start) & (stop <= start + WINDOW_FRAMES))
        spoken = until[index, stop[inside] - start] - until[index, first[inside] - start]
        share = spoken / (stop[inside] - first[inside])[:, None]  # (windows inside, 3)
        pairs = np.ix_(inside, inside)
        same[pairs] += share @ share.T
        both[pairs] += np.outer(share.sum(axis=1), share.sum(axis=1))
    said: Floats = np.where(both > least, 2 * same / np.maximum(both, 1e-9) - 1, 0).astype(np.float32)
    return said


def voice_evidence(frames: int, windows: Sequence[Window], similarity: Floats) -> Floats:
    """Spread each window's similarity to the voices over the frames that it covers.

    Args:
        frames: length of the common grid.
        similarity: cosine of each window to each voice, (windows, voices).

    Returns:
        The mean over covering windows, (frames, voices); zeros where no window covers a frame.
    """
    total = np.zeros((frames, similarity.shape[1]), dtype=np.float32)
    weight = np.zeros((frames, 1), dtype=np.float32)
    for window, row in zip(windows, similarity, strict=True):
        first, stop = frame_at(window.span.start), frame_at(window.span.end)
        total[first:stop] += row
        weight[first:stop] += 1
    mean: Floats = np.divide(total, np.maximum(weight, 1), out=total)
    return mean


def local_to_global(segmentation: Segmentation, evidence: Floats) -> Floats:
    """Rename each window's speakers to the voices they sound most like, one to one, and add the windows up.

    Args:
        evidence: (frames, voices), how much each frame sounds like each voice.

    Returns:
        Mean activity of each voice, (frames, voices), 0..1.
    """
    voices = evidence.shape[1]
    padded = np.zeros((int(segmentation.starts[-1]) + WINDOW_FRAMES, voices), dtype=np.float32)
    padded[: len(evidence)] = evidence
    members = MEMBERS[segmentation.classes]  # (windows, 589, 3)
    solo = members * (members.sum(axis=2, keepdims=True) == 1)
    renamed = np.zeros((len(members), WINDOW_FRAMES, voices), dtype=np.float32)
    for window, start in enumerate(segmentation.starts):
        heard = padded[start : start + WINDOW_FRAMES]
        frames = solo[window].sum(axis=0)
        weights = np.where(frames > 0, solo[window], members[window])  # a voice heard only in overlap: all its frames
        spoken = members[window].sum(axis=0) > 0
        score = weights.T @ heard  # (3, voices): longer speech decides
        local = np.flatnonzero(spoken)
        for speaker, voice in zip(local, assign(score[local]), strict=True):
            if voice >= 0:
                renamed[window, :, voice] = segmentation.activity[window, :, speaker]
    return segmentation.overlap_add(renamed)


def centroids(unit: Floats, labels: NDArray[np.int64], weights: Floats) -> Floats:
    """The mean voice of each label, unit rows (voices, values); ``weights`` (windows,) counts longer windows more."""
    voices = int(labels.max()) + 1
    return normalise(np.stack([(unit[labels == k] * weights[labels == k, None]).sum(axis=0) for k in range(voices)]))


def median_smooth(values: Floats, frames: int) -> Floats:
    """Running median over ``frames`` (odd), column by column."""
    if frames <= 1 or len(values) == 0:
        return values
    half = frames // 2
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    smooth = np.empty_like(values)
    block = 20_000
    for first in range(0, len(values), block):
        view = np.lib.stride_tricks.sliding_window_view(padded[first : first + block + 2 * half], frames, axis=0)
        smooth[first : first + block] = np.median(view, axis=2)[: len(values) - first]
    return smooth


def posterior(score: Floats, count: NDArray[np.int64], sharpness: float) -> Floats:
    """How probable it is that each voice speaks, (frames, voices) in 0..1: nothing in silence, shared in overlap.

    Args:
        score: fused, (frames, voices).
        count: how many speak in each frame, (frames,).
        sharpness: what a difference of 1 in score is worth, in nats.
    """
    likely = np.exp(sharpness * (score - score.max(axis=1, keepdims=True)))
    shared: Floats = np.minimum(1.0, count[:, None] * likely / likely.sum(axis=1, keepdims=True)).astype(np.float32)
    return shared


def strongest(score: Floats, count: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The ``count`` highest-ranked voices in every frame, bool (frames, voices)."""
    rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
    return rank < count[:, None]
