"""What a voice sounds like: CAM++ embeddings of short windows.

Wang et al., "CAM++: A fast and efficient network for speaker verification using context-aware masking" (2023,
arXiv 2303.00332); the model is 3D-Speaker's ``iic/speech_campplus_sv_zh_en_16k-common_advanced``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from diarist.types import SAMPLE_RATE, Audio, Progress, Seconds, Span

if TYPE_CHECKING:
    import onnxruntime

MELS = 80
SHIFT: Seconds = 0.01
"""Between two rows of filterbanks."""

SHORTEST: Seconds = 0.2
"""A shorter window than this is filled up by repetition: the network needs some frames for its statistics."""

VALUES = 192


def filterbanks(audio: Audio) -> NDArray[np.float32]:
    """Kaldi filterbanks as 3D-Speaker computes them, float32 (rows, 80): 25 ms every 10 ms, Povey window, no dither."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = MELS
    blocks: list[NDArray[np.float32]] = []
    hop, field = round(SHIFT * SAMPLE_RATE), 400
    block_rows = 6_000  # a minute: bounds what the extractor holds
    for first in range(0, max(1, (len(audio.samples) - field) // hop + 1), block_rows):
        piece = audio.samples[first * hop : (first + block_rows - 1) * hop + field]
        extractor = kaldi_native_fbank.OnlineFbank(options)
        extractor.accept_waveform(SAMPLE_RATE, piece)
        extractor.input_finished()
        rows = extractor.num_frames_ready
        if rows:
            blocks.append(np.stack([extractor.get_frame(i) for i in range(rows)]))
    return np.concatenate(blocks) if blocks else np.zeros((0, MELS), dtype=np.float32)


class Embedder:
    """The model over windows of a recording.

    Args:
        session: the ONNX graph: ``features`` (batch, rows, 80) to ``embedding`` (batch, 192).
        batch: windows of one length at a time.
    """

    def __init__(self, session: onnxruntime.InferenceSession, batch: int = 16) -> None:
        self._session = session
        self._batch = batch

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> NDArray[np.float32]:
        """One embedding a window, float32 (windows, 192). The filterbanks are computed once and shared."""
        found = np.zeros((len(windows), VALUES), dtype=np.float32)
        features = filterbanks(audio)
        if len(features) == 0:
            return found
        bounds = [self._rows(window, len(features)) for window in windows]
        by_length: dict[int, list[int]] = {}
        for index, (first, last) in enumerate(bounds):
            by_length.setdefault(last - first, []).append(index)
        done = 0
        for length, indices in sorted(by_length.items()):
            for at in range(0, len(indices), self._batch):
                members = indices[at : at + self._batch]
                batch = np.stack([features[bounds[i][0] : bounds[i][1]] for i in members])  # (batch, rows, 80)
                batch = batch - batch.mean(axis=1, keepdims=True)
                shortest = round(SHORTEST / SHIFT)
                if length < shortest:
                    batch = np.concatenate([batch] * -(-shortest // length), axis=1)
                found[members] = self._session.run(None, {"features": batch})[0]
                done += len(members)
                progress("embedding", done / len(windows))
        return found

    @staticmethod
    def _rows(window: Span, rows: int) -> tuple[int, int]:
        first = min(round(window.start / SHIFT), rows - 1)
        return first, min(max(first + 1, round(window.end / SHIFT)), rows)
