"""What a voice sounds like: CAM++ embeddings of short windows.

Wang et al., "CAM++: A fast and efficient network for speaker verification using context-aware masking" (2023,
arXiv 2303.00332); the model is 3D-Speaker's ``iic/speech_campplus_sv_zh_en_16k-common_advanced``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from diarist.engines.chunk_processing import chunk_of, done_elsewhere, dump_arrays, load_arrays
from diarist.engines.embedded.parallel import in_order
from diarist.protocols import Chunk, ScatterChunks
from diarist.types import SAMPLE_RATE, Audio, Progress, Seconds, Span

if TYPE_CHECKING:
    import onnxruntime

MELS = 80
SHIFT: Seconds = 0.01
"""Between two rows of filterbanks."""

SHORTEST: Seconds = 0.2
"""A shorter window than this is filled up by repetition: the network needs some frames for its statistics."""

VALUES = 192

HOP_SAMPLES = round(SHIFT * SAMPLE_RATE)
FIELD_SAMPLES = 400
"""What one row is computed from: 25 ms."""

BLOCK_ROWS = 6_000
"""A minute: bounds what is held of a recording's filterbanks."""

GROUP_WINDOWS = 192
"""Windows that share batches: about two and a half minutes of speech, and one portion where other machines help."""

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of one length."""

    windows: list[int] = field(default_factory=list)
    """Their indices."""

    features: list[Floats] = field(default_factory=list)
    """Their filterbanks, each (rows, 80)."""


def filterbanks(audio: Audio) -> Floats:
    """Kaldi filterbanks as 3D-Speaker computes them, float32 (rows, 80): 25 ms every 10 ms, Povey window, no dither."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = MELS
    blocks: list[Floats] = []
    for first in range(0, max(1, _row_count(audio)), BLOCK_ROWS):
        extractor = kaldi_native_fbank.OnlineFbank(options)
        extractor.accept_waveform(SAMPLE_RATE, _heard_in(audio, first, first + BLOCK_ROWS).samples)
        extractor.input_finished()
        rows = extractor.num_frames_ready
        if rows:
            blocks.append(np.stack([extractor.get_frame(i) for i in range(rows)]))
    return np.concatenate(blocks) if blocks else np.zeros((0, MELS), dtype=np.float32)


def _row_count(audio: Audio) -> int:
    return max(0, (len(audio.samples) - FIELD_SAMPLES) // HOP_SAMPLES + 1)


def _heard_in(audio: Audio, first: int, last: int) -> Audio:
    """What the rows from ``first`` to before ``last`` are computed from: a view."""
    return Audio(audio.part(first * HOP_SAMPLES, (last - 1) * HOP_SAMPLES + FIELD_SAMPLES))


class Embedder:
    """The model over windows of a recording.

    Args:
        session: the ONNX graph: ``features`` (batch, rows, 80) to ``embedding`` (batch, 192).
        batch: windows of one length at a time. More leave the processor's caches: 16 take a sixth longer each than 8.
        streams: batches that are worked on at once.
    """

    def __init__(self, session: onnxruntime.InferenceSession, batch: int = 8, streams: int = 1) -> None:
        self._session = session
        self._batch = batch
        self._streams = streams

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> Floats:
        """One embedding a window, float32 (windows, 192).

        Filterbanks are computed once, shared by the windows of a minute, and dropped after it: memory does not grow
        with the recording.
        """
        return self._read(audio, windows, _groups(audio, windows), lambda done: progress("embedding", done))

    def distribute(self, audio: Audio, windows: Sequence[Span], progress: Progress, scatter: ScatterChunks) -> Floats:
        """As ``embed``, heard elsewhere."""
        groups = _groups(audio, windows)
        if len(groups) < 2:
            return self.embed(audio, windows, progress)
        chunks = [_chunk(audio, [windows[index] for index in group]) for group in groups]
        found = np.zeros((len(windows), VALUES), dtype=np.float32)
        with closing(done_elsewhere(chunks, list(map(len, groups)), scatter, progress)) as results:
            for group, result in zip(groups, results, strict=True):
                heard = load_arrays(result)["embeddings"]
                if heard.shape != (len(group), VALUES) or heard.dtype != np.float32:
                    raise ValueError(f"a portion has {heard.dtype} {heard.shape} for {len(group)} embeddings")
                found[group] = heard
        return found

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        """Hear the windows of a portion of ``spread``."""
        windows = [Span(start, end) for start, end in json.loads(chunk.work)["windows"]]
        everything = [list(range(len(windows)))]
        return dump_arrays(embeddings=self._read(audio, windows, everything, lambda done: progress("embedding", done)))

    def _read(
        self, audio: Audio, windows: Sequence[Span], groups: Sequence[list[int]], report: Callable[[float], None]
    ) -> Floats:
        """Embeddings of windows, (windows, 192); no batch has windows of two groups."""
        found = np.zeros((len(windows), VALUES), dtype=np.float32)
        rows = _row_count(audio)
        done = 0

        def run(batch: Batch) -> list[int]:
            found[batch.windows] = self._run(np.stack(batch.features))
            return batch.windows

        batches = (
            batch
            for group in groups
            for batch in _batches(
                _features(audio, {index: _rows(windows[index], rows) for index in group}), self._batch
            )
        )
        with closing(in_order(run, batches, self._streams)) as results:
            for members in results:
                done += len(members)
                report(done / len(windows))
        return found

    def _run(self, batch: Floats) -> Floats:
        """Filterbanks of windows of one length, (windows, rows, 80), to embeddings, (windows, 192)."""
        batch = batch - batch.mean(axis=1, keepdims=True)
        length, shortest = batch.shape[1], round(SHORTEST / SHIFT)
        if length < shortest:
            batch = np.concatenate([batch] * -(-shortest // length), axis=1)
        embeddings: Floats = self._session.run(None, {"features": batch})[0]
        return embeddings


def _rows(window: Span, rows: int) -> tuple[int, int]:
    """The first row of the window and the one after its last, within what there is; at least one row."""
    first = min(round(window.start / SHIFT), rows - 1)
    return first, min(max(first + 1, round(window.end / SHIFT)), rows)


def _groups(audio: Audio, windows: Sequence[Span]) -> list[list[int]]:
    """The numbers of windows that are heard together, those that begin earlier first; none where there are no rows."""
    rows = _row_count(audio)
    if rows == 0:
        return []
    ordered = sorted(range(len(windows)), key=lambda index: _rows(windows[index], rows)[0])
    return [ordered[first : first + GROUP_WINDOWS] for first in range(0, len(ordered), GROUP_WINDOWS)]


def _chunk(audio: Audio, windows: Sequence[Span]) -> Chunk:
    bounds = [_rows(window, _row_count(audio)) for window in windows]
    first, last = min(start for start, _ in bounds), max(stop for _, stop in bounds)
    work = {"windows": [[window.start, window.end] for window in windows]}
    stop_sample = (last - 1) * HOP_SAMPLES + FIELD_SAMPLES
    return chunk_of("embedding", audio, first * HOP_SAMPLES, stop_sample, work)


def _batches(features: Iterable[tuple[int, Floats]], size: int) -> Iterator[Batch]:
    """Windows of one length together, ``size`` of them; what is left over of each length comes last."""
    waiting: dict[int, Batch] = {}
    for index, own in features:
        batch = waiting.setdefault(len(own), Batch())
        batch.windows.append(index)
        batch.features.append(own)
        if len(batch.windows) == size:
            yield waiting.pop(len(own))
    for _, batch in sorted(waiting.items()):
        yield batch


def _features(audio: Audio, bounds: Mapping[int, tuple[int, int]]) -> Iterator[tuple[int, Floats]]:
    """Each window's index and filterbanks, (rows, 80), minute by minute; of windows that begin earlier first."""
    ordered = sorted(bounds, key=lambda index: bounds[index][0])
    for _, group in groupby(ordered, key=lambda index: bounds[index][0] // BLOCK_ROWS):
        members = list(group)
        first, last = bounds[members[0]][0], max(bounds[index][1] for index in members)
        shared = filterbanks(_heard_in(audio, first, last))
        for index in members:
            own = slice(bounds[index][0] - first, bounds[index][1] - first)
            yield index, shared[own].copy()  # a view would keep the whole minute
