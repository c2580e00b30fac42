"""Who speaks within ten seconds: pyannote's segmentation-3.0 over sliding windows.

Bredin, "pyannote.audio 2.1 speaker diarization pipeline" (2023); Plaquet and Bredin, "Powerset multi-class cross
entropy loss for neural speaker diarization" (2023); model card of pyannote/segmentation-3.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from diarist.engines.embedded.streams import in_order
from diarist.engines.fusion import Grid
from diarist.types import SAMPLE_RATE, Audio, Progress, Samples

if TYPE_CHECKING:
    from diarist.engines.embedded.segmentation_network import Filtered

WINDOW_SAMPLES = 160_000
"""10 s: the length that the model was trained on."""

FRAME_SAMPLES = 270
"""From one frame to the next: 10 x 3 x 3 x 3, the strides of the SincNet front end."""

FIELD_SAMPLES = 991
"""What one frame of the front end sees; frame 0 is centred on half of it."""

WINDOW_FRAMES = 589

STRETCH_WINDOWS = 12
"""Windows that share their filters, in whole batches. More share more, and take more memory: of 12 a sixth of the work
is left. Their number does not go by that of the threads, so that no value does.
"""

LOCAL_SPEAKERS = 3
CLASSES = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
"""The powerset: which of the window's speakers each of the 7 classes means."""

GRID = Grid(FRAME_SAMPLES / SAMPLE_RATE, (FIELD_SAMPLES - FRAME_SAMPLES) / 2 / SAMPLE_RATE)
"""A frame starts to speak for the recording half a step before its centre."""

MEMBERS = np.array([[float(k in members) for k in range(LOCAL_SPEAKERS)] for members in CLASSES], dtype=np.float32)
"""Shape (7 classes, 3 speakers): 1 where the class holds the speaker."""


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """What each window says, on one grid of frames that all windows share."""

    activity: NDArray[np.float32]
    """Probability of each of a window's speakers, shape (windows, 589 frames, 3 local speakers)."""

    classes: NDArray[np.uint8]
    """The most probable class, shape (windows, 589)."""

    starts: NDArray[np.int64]
    """The frame on the common grid at which each window starts, shape (windows,)."""

    frames: int
    """Length of the common grid: as many frames as have their centre in the recording."""

    def overlap_add(self, values: Iterable[NDArray[np.float32]], columns: int) -> NDArray[np.float32]:
        """The mean over windows of ``values``, (589, columns) of each window, on the common grid: (frames, columns).

        They come one by one: those of all windows together are ten times as large as the mean.
        """
        total = np.zeros((int(self.starts[-1]) + WINDOW_FRAMES, columns), dtype=np.float32)
        weight = np.zeros((len(total), 1), dtype=np.float32)
        for start, value in zip(self.starts, values, strict=True):
            total[start : start + WINDOW_FRAMES] += value
            weight[start : start + WINDOW_FRAMES] += 1
        mean: NDArray[np.float32] = np.divide(total, np.maximum(weight, 1), out=total)
        return mean[: self.frames]


class Network(Protocol):
    """What scores windows: ``segmentation_network.SegmentationNetwork``. Called by several threads at once."""

    def hear(self, samples: Samples) -> Filtered:
        """What all windows of a stretch, (samples,), share."""
        ...

    def score(self, heard: Filtered, starts: Sequence[int], length: int) -> NDArray[np.float32]:
        """Log-probabilities, (windows, 589, 7), of windows that start at these samples of the stretch."""
        ...


class Segmenter:
    """The model with its windows.

    Args:
        network: the model.
        step_frames: from one window to the next, in frames, so that all windows share one grid.
        batch: windows at a time. More than a few leave the processor's caches: 16 take a fifth longer each than 4.
        streams: stretches that are worked on at once.
    """

    def __init__(self, network: Network, step_frames: int = 59, batch: int = 4, streams: int = 1) -> None:
        self._network = network
        self._step_frames = step_frames
        self._batch = batch
        self._streams = streams

    def segment(self, audio: Audio, progress: Progress) -> Segmentation:
        """Slide over the recording; the last window is filled up with silence."""
        length = len(audio.samples)
        step_samples = self._step_frames * FRAME_SAMPLES
        windows = 1 + max(0, -(-(length - WINDOW_SAMPLES) // step_samples))
        activity = np.empty((windows, WINDOW_FRAMES, LOCAL_SPEAKERS), dtype=np.float32)
        classes = np.empty((windows, WINDOW_FRAMES), dtype=np.uint8)

        def read(stretch: range) -> int:
            """Fill in the rows of a stretch's windows; the window after the last of them."""
            heard = self._network.hear(_stretch(audio, stretch, step_samples))
            for first in range(stretch.start, stretch.stop, self._batch):
                batch = range(first, min(first + self._batch, stretch.stop))
                starts = [(i - stretch.start) * step_samples for i in batch]
                scores = self._network.score(heard, starts, WINDOW_SAMPLES)  # (batch, 589, 7)
                classes[first : batch.stop] = scores.argmax(axis=2)
                activity[first : batch.stop] = np.exp(scores) @ MEMBERS
            return stretch.stop

        size = -(-STRETCH_WINDOWS // self._batch) * self._batch
        stretches = (range(first, min(first + size, windows)) for first in range(0, windows, size))
        with closing(in_order(read, stretches, self._streams)) as done:
            for stop in done:
                progress("segmentation", stop / windows)
        frames = max(1, round((length - FIELD_SAMPLES / 2) / FRAME_SAMPLES + 0.5))
        starts = np.arange(windows, dtype=np.int64) * self._step_frames
        return Segmentation(activity, classes, starts, min(frames, int(starts[-1]) + WINDOW_FRAMES))


def _stretch(audio: Audio, windows: range, step_samples: int) -> Samples:
    """What the windows cover, filled up with silence."""
    first, stop = windows.start * step_samples, windows[-1] * step_samples + WINDOW_SAMPLES
    piece = audio.part(first, stop)
    return np.pad(piece, (0, stop - first - len(piece))) if len(piece) < stop - first else piece
