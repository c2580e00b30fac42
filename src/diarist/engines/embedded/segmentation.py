"""Who speaks within ten seconds: pyannote's segmentation-3.0 over sliding windows.

Bredin, "pyannote.audio 2.1 speaker diarization pipeline" (2023); Plaquet and Bredin, "Powerset multi-class cross
entropy loss for neural speaker diarization" (2023); model card of pyannote/segmentation-3.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diarist.engines.chunk_processing import chunk_of, done_elsewhere, dump_arrays, load_arrays
from diarist.engines.embedded.parallel import in_order
from diarist.engines.fusion import Grid
from diarist.protocols import Chunk, ScatterChunks
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

SEGMENT_WINDOWS = 12
"""Windows that share their filters, in whole batches. More share more, and take more memory: of 12 a sixth of the work
is left. Their number does not go by that of the threads, so that no value does.
"""

CHUNK_SEGMENTS = 10
"""Stretches that are one portion where other machines help: two minutes of the recording, thirty portions an hour."""

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
        windows = self._windows(audio)
        scores = self._read(audio, windows, lambda done: progress("segmentation", done))
        return self._segmentation(audio, *scores)

    def distribute(self, audio: Audio, progress: Progress, scatter: ScatterChunks) -> Segmentation:
        """As ``segment``, read elsewhere."""
        size = CHUNK_SEGMENTS * self._stretch_windows
        windows = self._windows(audio)
        parts = [windows[first : first + size] for first in range(0, len(windows), size)]
        if len(parts) == 1:
            return self.segment(audio, progress)
        chunks = [
            chunk_of("segmentation", audio, *self._samples(part), {"first": part.start, "stop": part.stop})
            for part in parts
        ]
        activity, classes = _empty(len(windows))
        with closing(done_elsewhere(chunks, list(map(len, parts)), scatter, progress)) as results:
            for part, result in zip(parts, results, strict=True):
                found = load_arrays(result)
                _fill(activity, part, found["activity"])
                _fill(classes, part, found["classes"])
        return self._segmentation(audio, activity, classes)

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        """Read the windows of a portion of ``spread``."""
        work = json.loads(chunk.work)
        windows = range(work["first"], work["stop"])
        activity, classes = self._read(audio, windows, lambda done: progress("segmentation", done))
        return dump_arrays(activity=activity, classes=classes)

    @property
    def _stretch_windows(self) -> int:
        return -(-SEGMENT_WINDOWS // self._batch) * self._batch

    @property
    def _step_samples(self) -> int:
        return self._step_frames * FRAME_SAMPLES

    def _windows(self, audio: Audio) -> range:
        return range(1 + max(0, -(-(len(audio.samples) - WINDOW_SAMPLES) // self._step_samples)))

    def _samples(self, windows: range) -> tuple[int, int]:
        """What the windows cover: the first sample, and the one after the last."""
        return windows.start * self._step_samples, windows[-1] * self._step_samples + WINDOW_SAMPLES

    def _read(
        self, audio: Audio, windows: range, report: Callable[[float], None]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Activity and classes of some windows, as in ``Segmentation``; the first of them begins a stretch."""
        activity, classes = _empty(len(windows))

        def read(stretch: range) -> int:
            """Fill in the rows of a stretch's windows; the row after the last of them."""
            heard = self._network.hear(_cover(audio, *self._samples(stretch)))
            for first in range(stretch.start, stretch.stop, self._batch):
                batch = range(first, min(first + self._batch, stretch.stop))
                starts = [(i - stretch.start) * self._step_samples for i in batch]
                scores = self._network.score(heard, starts, WINDOW_SAMPLES)  # (batch, 589, 7)
                rows = slice(first - windows.start, batch.stop - windows.start)
                classes[rows] = scores.argmax(axis=2)
                activity[rows] = np.exp(scores) @ MEMBERS
            return stretch.stop - windows.start

        size = self._stretch_windows
        stretches = (windows[first : first + size] for first in range(0, len(windows), size))
        with closing(in_order(read, stretches, self._streams)) as done:
            for stop in done:
                report(stop / len(windows))
        return activity, classes

    def _segmentation(self, audio: Audio, activity: NDArray[np.float32], classes: NDArray[np.uint8]) -> Segmentation:
        frames = max(1, round((len(audio.samples) - FIELD_SAMPLES / 2) / FRAME_SAMPLES + 0.5))
        starts = np.arange(len(classes), dtype=np.int64) * self._step_frames
        return Segmentation(activity, classes, starts, min(frames, int(starts[-1]) + WINDOW_FRAMES))


def _empty(windows: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Room for the activity and the classes of as many windows."""
    activity = np.empty((windows, WINDOW_FRAMES, LOCAL_SPEAKERS), dtype=np.float32)
    return activity, np.empty((windows, WINDOW_FRAMES), dtype=np.uint8)


def _fill(values: NDArray[Any], rows: range, found: NDArray[Any]) -> None:
    place = values[rows.start : rows.stop]
    if found.shape != place.shape or found.dtype != place.dtype:
        raise ValueError(f"a portion has {found.dtype} {found.shape} for {place.dtype} {place.shape}")
    place[:] = found


def _cover(audio: Audio, first: int, stop: int) -> Samples:
    """The samples from ``first`` to before ``stop``, filled up with silence."""
    piece = audio.part(first, stop)
    return np.pad(piece, (0, stop - first - len(piece))) if len(piece) < stop - first else piece
