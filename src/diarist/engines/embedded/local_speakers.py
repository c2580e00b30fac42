"""What the segmentation tells: the number of speakers per frame, the change points, and which local speaker is whom.

The segmentation is precise to a few frames about when somebody starts and stops, but it distinguishes its speakers only
within ten seconds. The embeddings identify them over the whole recording (``diarist.engines.speaker_activity``). How
the two are combined decides the speaker of words at turn boundaries.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diarist.engines.embedded.segmentation import GRID, POWERSET, WINDOW_FRAMES, Segmentation
from diarist.engines.speaker_activity import Window, active_spans
from diarist.types import Seconds, Span

Floats = NDArray[np.float32]


def speaker_count(segmentation: Segmentation) -> NDArray[np.int64]:
    """Return the number of speakers in each frame of the common grid, int64 (frames,): the mean over windows."""
    size = POWERSET.sum(axis=1)
    counts = (size[classes][:, None] for classes in segmentation.classes)
    return np.rint(segmentation.overlap_add(counts, 1)[:, 0]).astype(np.int64)


POSSIBLE_SPEECH_THRESHOLD = 0.45
"""The expected number of speakers from which speech is possible. In a reverberant room, windows of the segmentation
disagree for seconds whether a voice in the background speaks, so that most of them say no, but barely."""


def possible_speech(segmentation: Segmentation, count: NDArray[np.int64], duration: Seconds) -> tuple[Span, ...]:
    """Return the time without speech in which somebody may speak nevertheless: ordered, disjoint spans.

    It is the time around speech for as long as the expected number of speakers is at least
    ``POSSIBLE_SPEECH_THRESHOLD``: a hysteresis, as in pyannote's binarization. Sound far from any speech, such as
    music, is left out.

    Args:
        segmentation: The segmentation.
        count: The number of speakers in each frame, (frames,).
        duration: The duration of the recording, at which spans end.
    """
    sums = (activity.sum(axis=1, keepdims=True) for activity in segmentation.activity)
    speech = count > 0
    candidate = speech | (segmentation.overlap_add(sums, 1)[:, 0] >= POSSIBLE_SPEECH_THRESHOLD)
    possible = np.zeros(len(count), dtype=np.bool_)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], candidate, [False]]).astype(np.int8)))
    for first, stop in edges.reshape(-1, 2):
        possible[first:stop] = speech[first:stop].any()
    return tuple(span.clamp(0.0, duration) for span in active_spans(possible & ~speech, GRID))


def change_points(segmentation: Segmentation, reach: int = 8) -> NDArray[np.bool_]:
    """Return the frames at which one speaker follows another without a pause, bool (frames,).

    A frame is marked where most windows agree; it is the first of the new speaker. Since windows differ by a few frames
    about the time, the frames that are ``reach`` before and after it are compared.
    """
    before, after = slice(None, -2 * reach), slice(2 * reach, None)
    single = POWERSET.sum(axis=1) == 1

    def changed(classes: NDArray[np.uint8]) -> Floats:
        changes = np.zeros((len(classes), 1), dtype=np.float32)
        first, second = classes[before], classes[after]
        changes[reach:-reach, 0] = single[first] & single[second] & (first != second)
        return changes

    likely = segmentation.overlap_add(map(changed, segmentation.classes), 1)[:, 0] > 0.5
    points = np.zeros(len(likely), dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], likely, [False]]).astype(np.int8))).reshape(-1, 2)
    points[edges.sum(axis=1) // 2] = True
    return points


def single_speaker_runs(count: NDArray[np.int64], changes: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the runs of frames (first, past the last) in which one and the same speaker speaks."""
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


def speaker_agreement(segmentation: Segmentation, windows: Sequence[Window], min_overlap: float = 0.3) -> Floats:
    """Return whether the segmentation assigns pairs of windows within the same ten seconds to the same speaker.

    The cost is quadratic in the number of windows, so that it suits recordings of up to about an hour.

    Returns:
        Shape (windows, windows): 1 for the same speaker, -1 for two speakers, and 0 where both windows together have
        less than ``min_overlap`` of speech by a single speaker in any one window of the segmentation.
    """
    first = np.array([GRID.frame_at(window.span.start) for window in windows])
    stop = np.maximum([GRID.frame_at(window.span.end) for window in windows], first + 1)
    members = POWERSET[segmentation.classes]  # (segmentation's windows, 589, 3)
    single = members * (members.sum(axis=2, keepdims=True) == 1)
    cumulative = np.concatenate([np.zeros_like(single[:, :1]), np.cumsum(single, axis=1)], axis=1)
    same, both = np.zeros((2, len(windows), len(windows)), dtype=np.float32)
    for index, start in enumerate(segmentation.starts):
        inside = np.flatnonzero((first >= start) & (stop <= start + WINDOW_FRAMES))
        frames = cumulative[index, stop[inside] - start] - cumulative[index, first[inside] - start]
        share = frames / (stop[inside] - first[inside])[:, None]  # (windows inside, 3)
        pairs = np.ix_(inside, inside)
        same[pairs] += share @ share.T
        both[pairs] += np.outer(share.sum(axis=1), share.sum(axis=1))
    agreement: Floats = np.where(both > min_overlap, 2 * same / np.maximum(both, 1e-9) - 1, 0).astype(np.float32)
    return agreement


def local_to_global(segmentation: Segmentation, similarity: Floats) -> Floats:
    """Map each window's local speakers one-to-one to the most similar speakers of the recording, and add up windows.

    Args:
        segmentation: The activity of local speakers.
        similarity: How similar each frame is to each speaker, (frames, speakers).

    Returns:
        The mean activity of each speaker, (frames, speakers), 0..1.
    """
    speakers = similarity.shape[1]

    def mapped(window: int) -> Floats:
        start = int(segmentation.starts[window])
        own = np.zeros((WINDOW_FRAMES, speakers), dtype=np.float32)
        covered = similarity[start : start + WINDOW_FRAMES]
        own[: len(covered)] = covered
        members = POWERSET[segmentation.classes[window]]  # (589, 3)
        single = members * (members.sum(axis=1, keepdims=True) == 1)
        weights = np.where(single.sum(axis=0) > 0, single, members)  # a speaker only in overlap: all of their frames
        score = weights.T @ own  # (3, speakers): longer speech weighs more
        local = np.flatnonzero(members.sum(axis=0) > 0)
        activity = np.zeros((WINDOW_FRAMES, speakers), dtype=np.float32)
        for local_speaker, speaker in zip(local, assign(score[local]), strict=True):
            if speaker >= 0:
                activity[:, speaker] = segmentation.activity[window, :, local_speaker]
        return activity

    return segmentation.overlap_add(map(mapped, range(len(segmentation.starts))), speakers)


def assign(score: Floats) -> tuple[int, ...]:
    """Return the one-to-one assignment of rows to columns with the highest total score; -1 for a row left over.

    The result is exact: a row's best free column is always among its best ``rows`` columns, so only these are tried.

    Args:
        score: Shape (rows, columns), with at most about 4 rows.
    """
    rows, columns = len(score), score.shape[1]
    if rows == 0 or columns == 0:
        return (-1,) * rows
    choices = [[*(int(k) for k in np.argsort(-row, kind="stable")[:rows]), -1] for row in score]
    unassigned = max(0, rows - columns)
    possible = [tuple(c) for c in itertools.product(*choices) if _distinct(c) and c.count(-1) == unassigned]

    def total(columns: tuple[int, ...]) -> float:
        return sum(float(score[row, column]) for row, column in enumerate(columns) if column >= 0)

    return max(possible, key=total)


def _distinct(columns: tuple[int, ...]) -> bool:
    assigned = [column for column in columns if column >= 0]
    return len(set(assigned)) == len(assigned)
