"""Embeddings of the local speakers of the segmentation's windows with WeSpeaker's ResNet34, as in pyannote.audio 4.

The network runs once for each window of ten seconds. The embedding of each of its speakers is pooled over the frames in
which that speaker speaks alone. Wang et al., "WeSpeaker: A research and production oriented speaker embedding learning
toolkit" (ICASSP 2023).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diarist.engines.distributed_chunks import dump_arrays, load_arrays, make_chunk, run_distributed
from diarist.engines.embedded.parallel import map_in_order
from diarist.engines.embedded.segmentation import (
    FRAME_SAMPLES,
    LOCAL_SPEAKERS,
    POWERSET,
    WINDOW_FRAMES,
    WINDOW_SAMPLES,
    Segmentation,
)
from diarist.engines.embedded.speaker_embedding import WESPEAKER, filterbanks, row_count
from diarist.models.resnet34_graph import VALUES, frame_count
from diarist.protocols import Chunk, ScatterChunks
from diarist.types import Audio, Progress

if TYPE_CHECKING:
    import onnxruntime

MIN_SINGLE_FRAMES = 2
"""A local speaker who speaks alone in no more frames of the segmentation is embedded with the overlap."""

CHUNK_WINDOWS = 60
"""The number of windows in one chunk when other machines help: a minute of the recording."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LocalSpeech:
    """The speech in one window of the segmentation."""

    first_sample: int
    stop_sample: int
    weights: NDArray[np.bool_]
    """Whether each local speaker speaks in each frame of the network, (3 speakers, frames)."""


class LocalSpeakerEmbedder:
    """The embedding model over the windows of a segmentation.

    Args:
        session: The ONNX graph that ``diarist.models.resnet34_graph`` builds.
        workers: The number of windows that are processed at once.
    """

    def __init__(self, session: onnxruntime.InferenceSession, workers: int = 1) -> None:
        self._session = session
        self._workers = workers

    def embed(self, audio: Audio, segmentation: Segmentation, progress: Progress) -> Floats:
        """Return one embedding for each local speaker, float32 (windows, 3, 256); zeros for those who do not speak."""
        windows = speaking_windows(segmentation, len(audio.samples))
        speech = [local_speech(segmentation, window, len(audio.samples)) for window in windows]
        embeddings = self._embed(audio, speech, lambda done: progress("embedding", done))
        return _in_place(segmentation, windows, embeddings)

    def distribute(
        self, audio: Audio, segmentation: Segmentation, progress: Progress, scatter: ScatterChunks
    ) -> Floats:
        """Do the same as ``embed`` in chunks that other machines may process."""
        windows = speaking_windows(segmentation, len(audio.samples))
        speech = [local_speech(segmentation, window, len(audio.samples)) for window in windows]
        parts = [speech[first : first + CHUNK_WINDOWS] for first in range(0, len(speech), CHUNK_WINDOWS)]
        if len(parts) < 2:
            return self.embed(audio, segmentation, progress)
        chunks = [_chunk(audio, part) for part in parts]
        embeddings: list[Floats] = []
        with closing(run_distributed(chunks, list(map(len, parts)), scatter, progress)) as results:
            for part, result in zip(parts, results, strict=True):
                own = load_arrays(result)["embeddings"]
                if own.shape != (len(part), LOCAL_SPEAKERS, VALUES) or own.dtype != np.float32:
                    raise ValueError(f"the result of a chunk is {own.dtype} {own.shape}, expected {len(part)} windows")
                embeddings.append(own)
        return _in_place(segmentation, windows, np.concatenate(embeddings))

    def perform(self, audio: Audio, chunk: Chunk, progress: Progress) -> bytes:
        """Embed the speech of a chunk that ``distribute`` made."""
        speech = [_parse(*window) for window in json.loads(chunk.work)["windows"]]
        return dump_arrays(embeddings=self._embed(audio, speech, lambda done: progress("embedding", done)))

    def _embed(self, audio: Audio, speech: Sequence[LocalSpeech], report: Callable[[float], None]) -> Floats:
        """Return the embeddings of windows, (windows, 3, 256)."""

        def run(own: LocalSpeech) -> Floats:
            rows = filterbanks(Audio(audio.part(own.first_sample, own.stop_sample)), WESPEAKER)
            inputs = {"features": (rows - rows.mean(axis=0))[None], "weights": own.weights[None].astype(np.float32)}
            embeddings: Floats = self._session.run(None, inputs)[0][0]
            return embeddings

        embeddings = np.zeros((len(speech), LOCAL_SPEAKERS, VALUES), dtype=np.float32)
        with closing(map_in_order(run, speech, self._workers)) as results:
            for index, own in enumerate(results):
                embeddings[index] = own
                report((index + 1) / len(speech))
        return embeddings


def speaking_windows(segmentation: Segmentation, samples: int) -> list[int]:
    """Return the windows in which anybody speaks, if there are enough samples for a row of filterbanks."""
    speaking = (segmentation.classes > 0).any(axis=1)
    starts = segmentation.starts * FRAME_SAMPLES
    return [int(window) for window in np.flatnonzero(speaking) if row_count(samples - int(starts[window])) > 0]


def local_speech(segmentation: Segmentation, window: int, samples: int) -> LocalSpeech:
    """Return who speaks alone in which frames of the embedding network.

    The last window ends with the recording, so that the silence that the segmentation adds to it does not take part in
    the mean of the features.
    """
    first = int(segmentation.starts[window]) * FRAME_SAMPLES
    stop = min(first + WINDOW_SAMPLES, samples)
    frames = frame_count(row_count(stop - first))
    members = POWERSET[segmentation.classes[window]]  # (589, 3)
    single = members * (members.sum(axis=1, keepdims=True) == 1)
    own = np.where(single.sum(axis=0) > MIN_SINGLE_FRAMES, single, members) > 0
    ratio = WINDOW_FRAMES / frame_count(row_count(WINDOW_SAMPLES))
    weights = own[(np.arange(frames) * ratio).astype(np.int64)].T  # the nearest frame of the segmentation, (3, frames)
    for speaker in np.flatnonzero(own.any(axis=0) & ~weights.any(axis=1)):  # their speech is between those frames
        weights[speaker, np.minimum(np.flatnonzero(own[:, speaker]) / ratio, frames - 1).astype(np.int64)] = True
    return LocalSpeech(first, stop, weights)


def _in_place(segmentation: Segmentation, windows: Sequence[int], embeddings: Floats) -> Floats:
    """Return the embeddings of all windows, (windows, 3, 256), from those of the windows with speech."""
    result = np.zeros((len(segmentation.starts), LOCAL_SPEAKERS, VALUES), dtype=np.float32)
    for window, own in zip(windows, embeddings, strict=True):
        speaks = POWERSET[segmentation.classes[window]].any(axis=0)
        result[window, speaks] = own[speaks]
    return result


def _chunk(audio: Audio, speech: Sequence[LocalSpeech]) -> Chunk:
    windows = [[own.first_sample, own.stop_sample, np.packbits(own.weights).tobytes().hex()] for own in speech]
    first, stop = min(own.first_sample for own in speech), max(own.stop_sample for own in speech)
    return make_chunk("embedding", audio, first, stop, {"windows": windows})


def _parse(first_sample: int, stop_sample: int, weights: str) -> LocalSpeech:
    frames = frame_count(row_count(stop_sample - first_sample))
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(weights), dtype=np.uint8), count=LOCAL_SPEAKERS * frames)
    return LocalSpeech(first_sample, stop_sample, bits.reshape(LOCAL_SPEAKERS, frames).astype(np.bool_))
