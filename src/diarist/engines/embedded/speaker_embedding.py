"""Speaker embeddings of short windows.

The default model is 3D-Speaker's ``iic/speech_campplus_sv_zh_en_16k-common_advanced``. Wang et al., "CAM++: A fast and
efficient network for speaker verification using context-aware masking" (2023, arXiv 2303.00332).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Literal, TypeAlias

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from diarist.engines.distributed_chunks import dump_arrays, load_arrays, make_chunk, run_distributed
from diarist.engines.embedded.parallel import map_in_order
from diarist.engines.memory_limit import MemoryLimit
from diarist.engines.onnx.mel_features import MelFeatures
from diarist.models.mel_filters import hann_window, slaney_filters
from diarist.models.tdt_description import FEATURES
from diarist.protocols import Chunk, ScatterChunks
from diarist.types import SAMPLE_RATE, Audio, Progress, Seconds, Span

if TYPE_CHECKING:
    import onnxruntime

MELS = 80
HOP_S: Seconds = 0.01
"""The step from one row of the filterbanks to the next."""

MIN_WINDOW_S: Seconds = 0.2
"""A shorter window is padded by repetition: the network needs some frames for its statistics."""

HOP_SAMPLES = round(HOP_S * SAMPLE_RATE)
FRAME_SAMPLES = 400
"""The samples that one row is computed from: 25 ms."""

BLOCK_ROWS = 6_000
"""One minute: the limit of the filterbanks that are kept in memory."""

GROUP_WINDOWS = 192
"""The number of windows that share batches: about two and a half minutes of speech. It is one chunk when other machines
help."""

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FilterbankSettings:
    """The parameters of Kaldi filterbanks in which the training of the models differs."""

    window: Literal["povey", "hamming"]
    """The name of the window function."""

    scale: float
    """The factor of the samples, which are in -1..1. It only matters for silence, whose logarithms have a lower limit,
    if the mean of the rows is subtracted."""


THREE_D_SPEAKER = FilterbankSettings("povey", 1.0)
"""As in 3D-Speaker, and in ``scripts/3dspeaker/test-onnx.py`` of sherpa-onnx."""

WESPEAKER = FilterbankSettings("hamming", 32_768.0)
"""As in ``wespeaker/bin/infer_onnx.py`` of WeSpeaker: samples of 16 bits."""

FILTERBANKS: Mapping[str, FilterbankSettings] = {"3d-speaker": THREE_D_SPEAKER, "wespeaker": WESPEAKER}
"""The filterbanks by the names that the catalog uses."""

LOGITS_OUTPUT = "logits"
"""The output of NeMo's speaker models that classifies the speakers of the training."""


def features_named(name: str) -> FilterbankSettings | MelFeatures:
    """Return the features by the name that the catalog uses: those of ``FILTERBANKS``, or those of a NeMo model."""
    if name in FILTERBANKS:
        return FILTERBANKS[name]
    settings = FEATURES[name]
    return MelFeatures(settings, hann_window(settings), slaney_filters(settings))


@dataclass(frozen=True, slots=True)
class _Signature:
    """The inputs and the output of a graph."""

    features: str
    """The name of the input for features."""

    length: str | None
    """The name of the input for the number of rows. If there is one, the features are (batch, 80, rows), as in NeMo;
    otherwise they are (batch, rows, 80)."""

    embeddings: str
    """The name of the output."""

    values: int
    fixed_batch: bool
    """Whether the size of batches is fixed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of one length."""

    windows: list[int] = field(default_factory=list)
    """The indices of the windows."""

    features: list[Floats] = field(default_factory=list)
    """The features of each window, (rows, 80)."""


def filterbanks(audio: Audio, settings: FilterbankSettings = THREE_D_SPEAKER) -> Floats:
    """Return Kaldi filterbanks, float32 (rows, 80): frames of 25 ms every 10 ms, no dither."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.window_type = settings.window
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = MELS
    blocks: list[Floats] = []
    for first in range(0, max(1, row_count(len(audio.samples))), BLOCK_ROWS):
        extractor = kaldi_native_fbank.OnlineFbank(options)
        samples = _row_samples(audio, first, first + BLOCK_ROWS).samples
        extractor.accept_waveform(SAMPLE_RATE, samples if settings.scale == 1 else samples * np.float32(settings.scale))
        extractor.input_finished()
        rows = extractor.num_frames_ready
        if rows:
            blocks.append(np.stack([extractor.get_frame(i) for i in range(rows)]))
    return np.concatenate(blocks) if blocks else np.zeros((0, MELS), dtype=np.float32)


def row_count(samples: int) -> int:
    """Return the number of rows of the filterbanks of this number of samples."""
    return max(0, (samples - FRAME_SAMPLES) // HOP_SAMPLES + 1)


def _row_samples(audio: Audio, first: int, stop: int) -> Audio:
    """Return the samples that the rows from ``first`` to before ``stop`` are computed from: a view."""
    return Audio(audio.part(first * HOP_SAMPLES, (stop - 1) * HOP_SAMPLES + FRAME_SAMPLES))


class Embedder:
    """The embedding model over windows of a recording.

    Args:
        session: The ONNX graph, from features (batch, rows, 80), or (batch, 80, rows) and the number of rows, to
            embeddings (batch, values). The names do not matter. If the batch is fixed in the shapes, windows are
            processed one by one.
        batch: The number of windows of one length per batch. More do not fit the processor's caches: 16 take a sixth
            longer per window than 8.
        workers: The number of batches that are processed at once.
        device: The name of the device that the model runs on. If its memory runs out, batches are halved.
        features: The parameters of the filterbanks, whose mean over the rows of each window is subtracted; or NeMo's
            features, which are computed and normalized for each window by itself.

    Raises:
        ValueError: The graph has other inputs or outputs.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        batch: int = 8,
        workers: int = 1,
        device: str = "cpu",
        features: FilterbankSettings | MelFeatures = THREE_D_SPEAKER,
    ) -> None:
        self._session = session
        self._signature = _inspect(session)
        self._values = self._signature.values
        self._batch = 1 if self._signature.fixed_batch else batch
        self._workers = workers
        self._limit = MemoryLimit(self._batch, device)
        self._features = features

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> Floats:
        """Return one embedding per window, float32 (windows, values).

        Filterbanks are computed once, shared by the windows of a minute, and dropped after it: the memory does not grow
        with the recording.
        """
        return self._embed_groups(audio, windows, _groups(audio, windows), lambda done: progress("embedding", done))

    def distribute(self, audio: Audio, windows: Sequence[Span], progress: Progress, scatter: ScatterChunks) -> Floats:
        """Do the same as ``embed`` in chunks that other machines may process."""
        groups = _groups(audio, windows)
        if len(groups) < 2:
            return self.embed(audio, windows, progress)
        chunks = [_chunk(audio, [windows[index] for index in group]) for group in groups]
        embeddings = np.zeros((len(windows), self._values), dtype=np.float32)
        with closing(run_distributed(chunks, list(map(len, groups)), scatter, progress)) as results:
            for group, result in zip(groups, results, strict=True):
                part = load_arrays(result)["embeddings"]
                if part.shape != (len(group), self._values) or part.dtype != np.float32:
                    raise ValueError(
                        f"the result of a chunk is {part.dtype} {part.shape}, expected {len(group)} embeddings"
                    )
                embeddings[group] = part
        return embeddings

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        """Embed the windows of a chunk that ``distribute`` made."""
        windows = [Span(start, end) for start, end in json.loads(chunk.work)["windows"]]
        groups = [list(range(len(windows)))]
        return dump_arrays(
            embeddings=self._embed_groups(audio, windows, groups, lambda done: progress("embedding", done))
        )

    def _embed_groups(
        self, audio: Audio, windows: Sequence[Span], groups: Sequence[list[int]], report: Callable[[float], None]
    ) -> Floats:
        """Return the embeddings of windows, (windows, values); no batch has windows of two groups."""
        embeddings = np.zeros((len(windows), self._values), dtype=np.float32)
        rows = row_count(len(audio.samples))
        done = 0

        def run(batch: Batch) -> list[int]:
            embeddings[batch.windows] = self._limit.run(batch.features, lambda part: list(self._run(np.stack(part))))
            return batch.windows

        batches = (
            batch
            for group in groups
            for batch in _batches(
                _features(audio, {index: _rows(windows[index], rows) for index in group}, self._features), self._batch
            )
        )
        with closing(map_in_order(run, batches, self._workers)) as results:
            for members in results:
                done += len(members)
                report(done / len(windows))
        return embeddings

    def _run(self, batch: Floats) -> Floats:
        """Map the features of windows of one length, (windows, rows, 80), to embeddings, (windows, values)."""
        if isinstance(self._features, FilterbankSettings):
            batch = batch - batch.mean(axis=1, keepdims=True)
        length, min_length = batch.shape[1], round(MIN_WINDOW_S / HOP_S)
        if length < min_length:
            batch = np.concatenate([batch] * -(-min_length // length), axis=1)
        signature = self._signature
        inputs = {signature.features: batch}
        if signature.length is not None:
            inputs = {
                signature.features: np.ascontiguousarray(batch.transpose(0, 2, 1)),
                signature.length: np.full(len(batch), batch.shape[1], dtype=np.int64),
            }
        embeddings: Floats = self._session.run([signature.embeddings], inputs)[0]
        if embeddings.shape != (len(batch), self._values):  # numpy would repeat a single one
            raise ValueError(f"the model returned {embeddings.shape} for a batch of {len(batch)} windows")
        return embeddings


def _inspect(session: onnxruntime.InferenceSession) -> _Signature:
    """Return the names of the inputs and of the output of a graph.

    Raises:
        ValueError: The graph does not map features to embeddings.
    """
    inputs, outputs = (
        [(value.name, value.type, *value.shape) for value in values]
        for values in (session.get_inputs(), session.get_outputs())
    )
    match inputs, [value for value in outputs if value[0] != LOGITS_OUTPUT]:
        case (
            [(str(features), "tensor(float)", batch, str() | None, int(mels))],
            [(str(embeddings), "tensor(float)", results, int(values))],
        ) if mels == MELS:
            return _Signature(features, None, embeddings, values, isinstance(batch, int) or isinstance(results, int))
        case (
            [(str(features), "tensor(float)", batch, int(mels), str() | None), (str(length), "tensor(int64)", _)],
            [(str(embeddings), "tensor(float)", results, int(values))],
        ) if mels == MELS:
            return _Signature(features, length, embeddings, values, isinstance(batch, int) or isinstance(results, int))
    found = ", ".join(f"{name} {kind} {shape}" for name, kind, *shape in (*inputs, *outputs))
    raise ValueError(
        f"its inputs and outputs are {found}, and not floats (batch, rows, {MELS}), or (batch, {MELS}, rows) and a"
        " length, and floats (batch, values)"
    )


def _rows(window: Span, rows: int) -> tuple[int, int]:
    """Return the first row of the window and the one after its last, of those that exist; at least one row."""
    first = min(round(window.start / HOP_S), rows - 1)
    return first, min(max(first + 1, round(window.end / HOP_S)), rows)


def _groups(audio: Audio, windows: Sequence[Span]) -> list[list[int]]:
    """Return the indices of windows that are embedded together, in order of start; no groups if there are no rows."""
    rows = row_count(len(audio.samples))
    if rows == 0:
        return []
    ordered = sorted(range(len(windows)), key=lambda index: _rows(windows[index], rows)[0])
    return [ordered[first : first + GROUP_WINDOWS] for first in range(0, len(ordered), GROUP_WINDOWS)]


def _chunk(audio: Audio, windows: Sequence[Span]) -> Chunk:
    bounds = [_rows(window, row_count(len(audio.samples))) for window in windows]
    first, last = min(start for start, _ in bounds), max(stop for _, stop in bounds)
    work = {"windows": [[window.start, window.end] for window in windows]}
    stop_sample = (last - 1) * HOP_SAMPLES + FRAME_SAMPLES
    return make_chunk("embedding", audio, first * HOP_SAMPLES, stop_sample, work)


def _batches(features: Iterable[tuple[int, Floats]], size: int) -> Iterator[Batch]:
    """Yield batches of ``size`` windows of one length; the incomplete batches come last."""
    pending: dict[int, Batch] = {}
    for index, own in features:
        batch = pending.setdefault(len(own), Batch())
        batch.windows.append(index)
        batch.features.append(own)
        if len(batch.windows) == size:
            yield pending.pop(len(own))
    for _, batch in sorted(pending.items()):
        yield batch


def _features(
    audio: Audio, bounds: Mapping[int, tuple[int, int]], kind: FilterbankSettings | MelFeatures
) -> Iterator[tuple[int, Floats]]:
    """Yield each window's index and features, (rows, 80), in order of start; filterbanks are shared within a minute."""
    ordered = sorted(bounds, key=lambda index: bounds[index][0])
    if isinstance(kind, MelFeatures):
        for index in ordered:
            samples = audio.part(*(row * HOP_SAMPLES for row in bounds[index]))
            yield index, kind.normalized(np.resize(samples, max(len(samples), round(MIN_WINDOW_S * SAMPLE_RATE))))
        return
    for _, group in groupby(ordered, key=lambda index: bounds[index][0] // BLOCK_ROWS):
        members = list(group)
        first, last = bounds[members[0]][0], max(bounds[index][1] for index in members)
        shared = filterbanks(_row_samples(audio, first, last), kind)
        for index in members:
            own = slice(bounds[index][0] - first, bounds[index][1] - first)
            yield index, shared[own].copy()  # a view would keep the whole minute
