"""What the segmentation says: how many speak in each frame, where they hand over, and which of its speakers is whom.

It knows to a few frames when somebody starts and stops, but its speakers are only told apart within ten seconds: the
embeddings say who they are (``diarist.engines.fusion``). Where the two are joined decides the words at turn boundaries.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diarist.engines.embedded.segmentation import GRID, MEMBERS, WINDOW_FRAMES, Segmentation
from diarist.engines.fusion import Window

Floats = NDArray[np.float32]


def speaker_count(segmentation: Segmentation) -> NDArray[np.int64]:
    """How many speak in each frame of the common grid, int64 (frames,): the rounded mean over windows."""
    size = MEMBERS.sum(axis=1)
    spoken = (size[classes][:, None] for classes in segmentation.classes)
    return np.rint(segmentation.overlap_add(spoken, 1)[:, 0]).astype(np.int64)


def change_points(segmentation: Segmentation, reach: int = 8) -> NDArray[np.bool_]:
    """Where most windows hear one speaker hand over to another without a pause, bool (frames,): the first new frame.

    Windows differ by a few frames on the moment, so what is compared lies ``reach`` frames before and after it.
    """
    before, after = slice(None, -2 * reach), slice(2 * reach, None)
    solo = MEMBERS.sum(axis=1) == 1

    def changed(classes: NDArray[np.uint8]) -> Floats:
        found = np.zeros((len(classes), 1), dtype=np.float32)
        first, second = classes[before], classes[after]
        found[reach:-reach, 0] = solo[first] & solo[second] & (first != second)
        return found

    likely = segmentation.overlap_add(map(changed, segmentation.classes), 1)[:, 0] > 0.5
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


def heard_together(segmentation: Segmentation, windows: Sequence[Window], least: float = 0.3) -> Floats:
    """What the segmentation says of pairs of windows that lie within the same ten seconds.

    Returns:
        (windows, windows), 1 where it hears one speaker, -1 where it hears two, 0 where it heard less than ``least`` of
        both at once. Quadratic in the number of windows: for at most an hour or so.
    """
    first = np.array([GRID.at(window.span.start) for window in windows])
    stop = np.maximum([GRID.at(window.span.end) for window in windows], first + 1)
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


def local_to_global(segmentation: Segmentation, evidence: Floats) -> Floats:
    """Rename each window's speakers to the voices they sound most like, one to one, and add the windows up.

    Args:
        evidence: (frames, voices), how much each frame sounds like each voice.

    Returns:
        Mean activity of each voice, (frames, voices), 0..1.
    """
    voices = evidence.shape[1]

    def renamed(window: int) -> Floats:
        start = int(segmentation.starts[window])
        heard = np.zeros((WINDOW_FRAMES, voices), dtype=np.float32)
        covered = evidence[start : start + WINDOW_FRAMES]
        heard[: len(covered)] = covered
        members = MEMBERS[segmentation.classes[window]]  # (589, 3)
        solo = members * (members.sum(axis=1, keepdims=True) == 1)
        weights = np.where(solo.sum(axis=0) > 0, solo, members)  # a voice heard only in overlap: all its frames
        score = weights.T @ heard  # (3, voices): longer speech decides
        local = np.flatnonzero(members.sum(axis=0) > 0)
        activity = np.zeros((WINDOW_FRAMES, voices), dtype=np.float32)
        for speaker, voice in zip(local, assign(score[local]), strict=True):
            if voice >= 0:
                activity[:, voice] = segmentation.activity[window, :, speaker]
        return activity

    return segmentation.overlap_add(map(renamed, range(len(segmentation.starts))), voices)


def assign(score: Floats) -> tuple[int, ...]:
    """One-to-one assignment of few rows to columns with the greatest total score; -1 for a row left over.

    Exact: a row's best free column is always among its best ``rows`` columns, so these are all that are tried.

    Args:
        score: (rows, columns), with at most about 4 rows.
    """
    rows, columns = len(score), score.shape[1]
    if rows == 0 or columns == 0:
        return (-1,) * rows
    choices = [[*(int(k) for k in np.argsort(-row, kind="stable")[:rows]), -1] for row in score]
    left_over = max(0, rows - columns)
    possible = [tuple(c) for c in itertools.product(*choices) if _distinct(c) and c.count(-1) == left_over]

    def total(columns: tuple[int, ...]) -> float:
        return sum(float(score[row, column]) for row, column in enumerate(columns) if column >= 0)

    return max(possible, key=total)


def _distinct(columns: tuple[int, ...]) -> bool:
    taken = [column for column in columns if column >= 0]
    return len(set(taken)) == len(taken)
