"""The embedded windows that are clustered, and how similar windows of one speaker are expected to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diarist.types import Seconds

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

REFERENCE_WINDOW_S: Seconds = 1.5
"""The length of the windows that ``PRIOR_SIMILARITY`` describes."""

PRIOR_SIMILARITY = 0.5
"""The cosine similarity of two windows of one speaker where the recording itself has little evidence of it."""

PRIOR_PAIRS = 4
"""How many observed pairs the prior counts as."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedWindows:
    """Speaker embeddings of windows, and where in the recording the windows are."""

    unit: Floats
    """Rows of unit length, float32 (windows, values)."""

    start: NDArray[np.float64]
    """Start times in seconds, ascending, (windows,)."""

    end: NDArray[np.float64]
    run: Labels
    """The index of the run of one speaker's speech that each window is cut from, (windows,)."""

    agreement: Floats | None = None
    """Whether the segmentation assigns two windows to one speaker (1) or to two (-1), and 0 where it cannot say.
    Shape (windows, windows); None where the segmentation is not used."""

    recording_similarity: float | None = None
    """``same_speaker_similarity`` of the recording that these windows are a subset of; None where they are all of its
    windows."""

    def __len__(self) -> int:
        return len(self.unit)

    def subset(self, rows: slice | Labels) -> EmbeddedWindows:
        """Return the windows of these rows. They keep the recording's ``same_speaker_similarity``."""
        agreement = None if self.agreement is None else self.agreement[rows][:, rows]
        return EmbeddedWindows(
            self.unit[rows],
            self.start[rows],
            self.end[rows],
            self.run[rows],
            agreement,
            self.same_speaker_similarity(),
        )

    @property
    def disjoint(self) -> NDArray[np.bool_]:
        """Which pairs of windows do not overlap in time, (windows, windows)."""
        later = np.maximum(self.start[:, None], self.start)
        return np.minimum(self.end[:, None], self.end) - later <= 0.01

    def same_speaker_similarity(self) -> float:
        """Return the similarity of two windows of ``REFERENCE_WINDOW_S`` of one speaker in this recording.

        It is the mean cosine of neighboring windows of the same run that do not overlap.
        """
        if self.recording_similarity is not None:
            return self.recording_similarity
        cosines: list[float] = []
        for step in (1, 2, 3):
            first, second = slice(None, -step), slice(step, None)
            near = (self.run[first] == self.run[second]) & (self.start[second] >= self.end[first] - 0.01)
            cosines += (self.unit[first][near] * self.unit[second][near]).sum(axis=1).tolist()
        return (sum(cosines) + PRIOR_SIMILARITY * PRIOR_PAIRS) / (len(cosines) + PRIOR_PAIRS)


def expected_similarity(lengths: NDArray[np.float64], reference: float) -> NDArray[np.float64]:
    """Return the expected cosine of windows to others of the same length and speaker; it is lower for short windows.

    This is the signal's share of signal and noise, where the noise falls with the length, as that of any mean does.

    Args:
        lengths: The lengths of the windows in seconds, (windows,).
        reference: The same similarity for windows of ``REFERENCE_WINDOW_S``.
    """
    seconds = np.maximum(lengths, 0.01)
    similarity: NDArray[np.float64] = seconds / (seconds + REFERENCE_WINDOW_S * (1 / max(reference, 0.05) - 1))
    return similarity


@dataclass(frozen=True, slots=True)
class SpeakerBounds:
    """The minimum and the maximum number of speakers to look for."""

    min_speakers: int = 1
    max_speakers: int | None = None

    def clip(self, count: int, windows: int) -> int:
        """Return ``count`` clipped to the bounds, and to the number of windows."""
        upper = windows if self.max_speakers is None else min(self.max_speakers, windows)
        return max(min(self.min_speakers, windows), min(count, upper))


def l2_normalize(embeddings: Floats) -> Floats:
    """Scale rows to unit length, shape (windows, values); a row of zeros stays zero."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: Floats = (embeddings / np.maximum(length, 1e-9)).astype(np.float32)
    return unit


def renumber(labels: Labels) -> Labels:
    """Return the same partition, with labels 0, 1 ... in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
