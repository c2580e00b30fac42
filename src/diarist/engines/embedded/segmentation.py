"""Local speaker activity: pyannote's segmentation-3.0 over sliding windows of ten seconds.

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

from diarist.engines.distributed_chunks import dump_arrays, load_arrays, make_chunk, run_distributed
from diarist.engines.embedded.parallel import map_in_order
from diarist.engines.memory_limit import MemoryLimit
from diarist.engines.speaker_activity import Grid
from diarist.protocols import Chunk, ScatterChunks
from diarist.types import SAMPLE_RATE, Audio, Progress, Samples

if TYPE_CHECKING:
    from diarist.engines.embedded.segmentation_network import FilteredBlock

WINDOW_SAMPLES = 160_000
"""10 s: the length that the model was trained on."""

FRAME_SAMPLES = 270
"""The step from one frame to the next: 10 x 3 x 3 x 3, the strides of the SincNet front end."""

RECEPTIVE_FIELD_SAMPLES = 991
"""The receptive field of one frame of the front end; the center of frame 0 is half of it."""

WINDOW_FRAMES = 589

BLOCK_WINDOWS = 12
"""The number of windows that share their filter outputs, rounded up to whole batches. More windows share more of the
work but take more memory; with 12, a sixth of the work remains. It does not depend on the number of threads, so that
the results do not either."""

CHUNK_BLOCKS = 10
"""The number of blocks in one chunk when other machines help: two minutes of the recording, thirty chunks per hour."""

LOCAL_SPEAKERS = 3
POWERSET_CLASSES = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
"""The speakers of the window that each of the 7 classes stands for."""

GRID = Grid(FRAME_SAMPLES / SAMPLE_RATE, (RECEPTIVE_FIELD_SAMPLES - FRAME_SAMPLES) / 2 / SAMPLE_RATE)
"""A frame covers the time from half a step before its center to half a step after it."""

POWERSET = np.array(
    [[float(k in members) for k in range(LOCAL_SPEAKERS)] for members in POWERSET_CLASSES], dtype=np.float32
)
"""Shape (7 classes, 3 speakers): 1 where the class contains the speaker."""


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The output of all windows, on one grid of frames that the windows share."""

    activity: NDArray[np.float32]
    """The probability of each of a window's speakers, shape (windows, 589 frames, 3 local speakers)."""

    classes: NDArray[np.uint8]
    """The most probable class, shape (windows, 589)."""

    starts: NDArray[np.int64]
    """The frame of the common grid at which each window starts, shape (windows,)."""

    frames: int
    """The length of the common grid: the number of frames whose center is in the recording."""

    def overlap_add(self, values: Iterable[NDArray[np.float32]], columns: int) -> NDArray[np.float32]:
        """Return the mean over windows of ``values`` on the common grid, (frames, columns).

        Args:
            values: The values of each window, (589, columns). An iterable, since the values of all windows together
                are ten times as large as the mean.
            columns: The number of columns.
        """
        total = np.zeros((int(self.starts[-1]) + WINDOW_FRAMES, columns), dtype=np.float32)
        weight = np.zeros((len(total), 1), dtype=np.float32)
        for start, value in zip(self.starts, values, strict=True):
            total[start : start + WINDOW_FRAMES] += value
            weight[start : start + WINDOW_FRAMES] += 1
        mean: NDArray[np.float32] = np.divide(total, np.maximum(weight, 1), out=total)
        return mean[: self.frames]


class Network(Protocol):
    """Scores windows; see ``segmentation_network.SegmentationNetwork``. Several threads call it at once."""

    def filter(self, samples: Samples) -> FilteredBlock:
        """Compute what all windows of a block, (samples,), share."""
        ...

    def score(self, block: FilteredBlock, starts: Sequence[int], length: int) -> NDArray[np.float32]:
        """Return the log-probabilities, (windows, 589, 7), of windows that start at these samples of the block."""
        ...


class Segmenter:
    """The segmentation model over the sliding windows of a recording.

    The model does not run on blocks of digital silence, whose scores are always the same. In other blocks it runs on
    all windows, since the mean of a block affects the rounding in each of its windows.

    Args:
        network: The model.
        step_frames: The step from one window to the next in frames, so that all windows share one grid.
        batch: The number of windows per batch. More than a few do not fit the processor's caches: 16 take a fifth
            longer per window than 4.
        workers: The number of blocks that are processed at once.
        device: The name of the device that the model runs on. If its memory runs out, batches are halved.
    """

    def __init__(
        self, network: Network, step_frames: int = 59, batch: int = 4, workers: int = 1, device: str = "cpu"
    ) -> None:
        self._network = network
        self._step_frames = step_frames
        self._batch = batch
        self._workers = workers
        self._limit = MemoryLimit(batch, device)
        self._silence: dict[int, NDArray[np.float32]] = {}
        """The scores of batches of digital silence, by the number of windows."""

    def segment(self, audio: Audio, progress: Progress) -> Segmentation:
        """Slide over the recording; the last window is padded with silence."""
        windows = self._windows(audio)
        scores = self._score(audio, windows, lambda done: progress("segmentation", done))
        return self._segmentation(audio, *scores)

    def distribute(self, audio: Audio, progress: Progress, scatter: ScatterChunks) -> Segmentation:
        """Do the same as ``segment`` in chunks that other machines may process."""
        size = CHUNK_BLOCKS * self._block_windows
        windows = self._windows(audio)
        parts = [windows[first : first + size] for first in range(0, len(windows), size)]
        if len(parts) == 1:
            return self.segment(audio, progress)
        chunks = [
            make_chunk("segmentation", audio, *self._samples(part), {"first": part.start, "stop": part.stop})
            for part in parts
        ]
        activity, classes = _empty(len(windows))
        with closing(run_distributed(chunks, list(map(len, parts)), scatter, progress)) as results:
            for part, result in zip(parts, results, strict=True):
                arrays = load_arrays(result)
                _fill(activity, part, arrays["activity"])
                _fill(classes, part, arrays["classes"])
        return self._segmentation(audio, activity, classes)

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        """Process the windows of a chunk that ``distribute`` made."""
        work = json.loads(chunk.work)
        windows = range(work["first"], work["stop"])
        activity, classes = self._score(audio, windows, lambda done: progress("segmentation", done))
        return dump_arrays(activity=activity, classes=classes)

    @property
    def _block_windows(self) -> int:
        return -(-BLOCK_WINDOWS // self._batch) * self._batch

    @property
    def _step_samples(self) -> int:
        return self._step_frames * FRAME_SAMPLES

    def _windows(self, audio: Audio) -> range:
        return range(1 + max(0, -(-(len(audio.samples) - WINDOW_SAMPLES) // self._step_samples)))

    def _samples(self, windows: range) -> tuple[int, int]:
        """Return the first sample of the windows, and the one after the last."""
        return windows.start * self._step_samples, windows[-1] * self._step_samples + WINDOW_SAMPLES

    def _score(
        self, audio: Audio, windows: range, report: Callable[[float], None]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return the activity and classes of windows as in ``Segmentation``; the first window starts a block."""
        activity, classes = _empty(len(windows))

        def score_block(block: range) -> int:
            """Fill in the rows of a block's windows, and return the row after the last of them."""
            samples = _padded_part(audio, *self._samples(block))
            filtered = self._network.filter(samples) if samples.any() else None
            for first in range(block.start, block.stop, self._batch):
                batch = range(first, min(first + self._batch, block.stop))
                if filtered is None:
                    scores = self._silence_scores(len(batch))
                else:
                    scores = self._score_windows(filtered, [(i - block.start) * self._step_samples for i in batch])
                rows = slice(first - windows.start, batch.stop - windows.start)
                classes[rows] = scores.argmax(axis=2)
                activity[rows] = np.exp(scores) @ POWERSET
            return block.stop - windows.start

        size = self._block_windows
        blocks = (windows[first : first + size] for first in range(0, len(windows), size))
        with closing(map_in_order(score_block, blocks, self._workers)) as done:
            for stop in done:
                report(stop / len(windows))
        return activity, classes

    def _score_windows(self, filtered: FilteredBlock, starts: Sequence[int]) -> NDArray[np.float32]:
        """Return the log-probabilities of windows of a block, (windows, 589, 7)."""
        return np.stack(self._limit.run(starts, lambda part: list(self._network.score(filtered, part, WINDOW_SAMPLES))))

    def _silence_scores(self, windows: int) -> NDArray[np.float32]:
        """Return the log-probabilities of windows of digital silence, which are computed once for each number."""
        if windows not in self._silence:
            starts = [i * self._step_samples for i in range(windows)]
            zeros = np.zeros(starts[-1] + WINDOW_SAMPLES, dtype=np.float32)
            self._silence[windows] = self._score_windows(self._network.filter(zeros), starts)
        return self._silence[windows]

    def _segmentation(self, audio: Audio, activity: NDArray[np.float32], classes: NDArray[np.uint8]) -> Segmentation:
        frames = max(1, round((len(audio.samples) - RECEPTIVE_FIELD_SAMPLES / 2) / FRAME_SAMPLES + 0.5))
        starts = np.arange(len(classes), dtype=np.int64) * self._step_frames
        return Segmentation(activity, classes, starts, min(frames, int(starts[-1]) + WINDOW_FRAMES))


def _empty(windows: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Allocate the activity and the classes of this number of windows."""
    activity = np.empty((windows, WINDOW_FRAMES, LOCAL_SPEAKERS), dtype=np.float32)
    return activity, np.empty((windows, WINDOW_FRAMES), dtype=np.uint8)


def _fill(values: NDArray[Any], rows: range, result: NDArray[Any]) -> None:
    target = values[rows.start : rows.stop]
    if result.shape != target.shape or result.dtype != target.dtype:
        raise ValueError(
            f"the result of a chunk is {result.dtype} {result.shape}, expected {target.dtype} {target.shape}"
        )
    target[:] = result


def _padded_part(audio: Audio, first: int, stop: int) -> Samples:
    """Return the samples from ``first`` to before ``stop``, padded with silence."""
    part = audio.part(first, stop)
    return np.pad(part, (0, stop - first - len(part))) if len(part) < stop - first else part
