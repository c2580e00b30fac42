"""Voice activity detection with NeMo's MarbleNet models, which classify frames or windows.

Jia et al., "MarbleNet: deep 1D time-channel separable convolutional neural network for voice activity detection"
(2021, arXiv 2010.13886).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diarist.engines.multiscale.diarizer import SpeechDetector
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import LoadedModel
from diarist.engines.nemo_yaml.diar_infer_config import Smoothing, VadConfig
from diarist.engines.speaker_activity import Floats, Grid
from diarist.errors import ConfigurationError
from diarist.types import SAMPLE_RATE, Audio, Progress, Seconds

BLOCK_FRAMES = 3_000
"""The number of frames of 20 ms, one minute, that a frame model classifies at once, to limit the memory."""

SMOOTHED_FRAME_STEP: Seconds = 0.01
"""The interval of frames after smoothing, whatever the shift of the windows, as in NeMo."""

MIN_WINDOW: Seconds = 0.05
"""The minimum duration of a window; a shorter one has no usable spectrum."""


def speech_detector(loaded: LoadedModel, runtime: Runtime, config: VadConfig, batch_size: int) -> SpeechDetector:
    """Return the speech detector for the class of this model.

    Args:
        loaded: A model for the role ``vad``.
        runtime: The device.
        config: The parameters for models that classify windows.
        batch_size: The batch size in windows.

    Raises:
        ConfigurationError: If the model does not have two classes, or classifies windows that are too short.
    """
    from nemo.collections.asr.models.classification_models import EncDecFrameClassificationModel

    if len(loaded.model.cfg.labels) != 2:
        message = (
            f"{loaded.name} has {len(loaded.model.cfg.labels)} classes, but a VAD model has two: name a VAD model."
        )
        raise ConfigurationError(message)
    if isinstance(loaded.model, EncDecFrameClassificationModel):
        return FrameVad(loaded.model, runtime, batch_size)
    if config.window < MIN_WINDOW:
        raise ConfigurationError(
            f"{loaded.name} classifies windows of diarizer.vad.parameters.window_length_in_sec, which is"
            f" {config.window:g}: set it to at least {MIN_WINDOW} (0.63 is usual), or use a model that classifies"
            " frames."
        )
    return WindowVad(loaded.model, runtime, config, batch_size)


class FrameVad:
    """Detects speech with a model that classifies frames, in blocks of the recording with context on either side.

    Blocks of digital silence are skipped.

    Args:
        model: An ``EncDecFrameClassificationModel`` in evaluation mode, on the device of ``runtime``.
        runtime: The device.
        batch_size: The batch size in windows; a block counts as 16 of them.
        block_frames: The number of frames that are classified at once.
    """

    def __init__(self, model: Any, runtime: Runtime, batch_size: int, block_frames: int = BLOCK_FRAMES) -> None:
        self._model = model
        self._runtime = runtime
        self._batch_size = max(1, batch_size // 16)
        self._block = block_frames
        layers = model.cfg.encoder.jasper
        stride = math.prod(int(layer.stride[0]) for layer in layers)
        self._hop = round(float(model.cfg.preprocessor.window_stride) * SAMPLE_RATE) * stride
        self._context = _context_frames(layers, stride)
        self.grid = Grid(self._hop / SAMPLE_RATE)

    def probability(self, audio: Audio, progress: Progress) -> Floats:
        """Return the probability of speech in each frame, float32 (frames,), as for the whole recording at once."""
        frames = len(audio.samples) // self._hop + 1
        every = [(first, min(first + self._block, frames)) for first in range(0, frames, self._block)]
        # Digital silence is not speech, whatever the model takes it for.
        blocks = [block for block in every if not _is_silence(audio.part(block[0] * self._hop, block[1] * self._hop))]
        complete = [block for block in blocks if block[1] < frames]

        def run(part: Sequence[tuple[int, int]]) -> Sequence[Floats]:
            return self._classify_batch(audio, part)

        found: list[Floats] = []
        # The last block is shorter, and nothing follows it, so it is not in a batch with others.
        for group in (complete, blocks[len(complete) :]):
            before = len(found)

            def report(share: float, before: int = before, size: int = len(group)) -> None:
                progress("segmentation", (before + share * size) / len(blocks))

            found += self._runtime.in_batches(group, run, self._batch_size, report)
        probability = np.zeros(frames, dtype=np.float32)
        for (first, stop), speech in zip(blocks, found, strict=True):
            probability[first:stop] = speech
        return probability

    def _classify_batch(self, audio: Audio, blocks: Sequence[tuple[int, int]]) -> Sequence[Floats]:
        starts = [max(first - self._context, 0) for first, _ in blocks]
        signals = [
            audio.part(start * self._hop, (stop + self._context) * self._hop)
            for start, (_, stop) in zip(starts, blocks, strict=True)
        ]
        lengths = np.array([max(len(samples), 1) for samples in signals], dtype=np.int64)
        batch = np.zeros((len(signals), int(lengths.max())), dtype=np.float32)
        for row, samples in zip(batch, signals, strict=True):
            row[: len(samples)] = samples
        with self._runtime.inference(exact=True):
            signal, length = self._runtime.tensor(batch), self._runtime.tensor(lengths)
            logits = self._model.forward(input_signal=signal, input_signal_length=length)  # (blocks, frames, 2)
            speech: Floats = torch.softmax(logits.to(torch.float32), dim=-1)[..., 1].cpu().numpy()
        return [
            row[first - start : stop - start] for row, start, (first, stop) in zip(speech, starts, blocks, strict=True)
        ]


def _is_silence(samples: Floats) -> bool:
    """Return whether samples are all zero. Without samples, a frame lies after the end of the recording."""
    return len(samples) > 0 and not samples.any()


def _context_frames(layers: Any, stride: int) -> int:
    """Return the number of frames on either side that affect a frame, including a few for the spectrum."""
    context, step = 0, 1
    for layer in layers:
        step *= int(layer.stride[0])
        context += (int(layer.kernel[0]) // 2) * int(layer.dilation[0]) * int(layer.repeat) * step
    return math.ceil(context / stride) + 8


class WindowVad:
    """Detects speech with a model that classifies windows.

    The probability of a frame is that of the window centered on it, or a combination of all windows that cover it. Of
    the windows of digital silence only one is classified, since their probabilities are the same.

    Args:
        model: An ``EncDecClassificationModel`` in evaluation mode, on the device of ``runtime``.
        runtime: The device.
        config: The length and shift of the windows, and how overlapping windows are combined.
        batch_size: The batch size in windows of speaker embeddings; windows of the VAD are shorter, and 8 times as many
            are in a batch.
    """

    def __init__(self, model: Any, runtime: Runtime, config: VadConfig, batch_size: int) -> None:
        self._model = model
        self._runtime = runtime
        self._config = config
        self._batch_size = batch_size * 8
        self._shift = max(1, int(config.shift * SAMPLE_RATE))
        self._window = int(config.window * SAMPLE_RATE)
        self.grid = Grid(SMOOTHED_FRAME_STEP if config.smoothing else self._shift / SAMPLE_RATE)

    def probability(self, audio: Audio, progress: Progress) -> Floats:
        """Return the probability of speech in each frame, float32 (frames,)."""
        count = max(1, len(audio.samples) // self._shift)
        edge = np.zeros(self._window, dtype=np.float32)
        padded = np.concatenate([edge[: self._window // 2], audio.samples, edge])
        views = np.lib.stride_tricks.sliding_window_view(padded, self._window)[:: self._shift]  # (windows, samples)

        sounding = np.concatenate([[0], np.cumsum(padded != 0)])
        first = np.arange(count) * self._shift
        silent = sounding[first + self._window] == sounding[first]
        kept = np.flatnonzero(~silent | (np.cumsum(silent) == 1))

        def run(rows: Sequence[int]) -> Sequence[np.float32]:
            return self._classify_batch(views[np.array(rows)])

        found = self._runtime.in_batches(
            kept.tolist(), run, self._batch_size, lambda share: progress("segmentation", share)
        )
        window_probabilities = np.empty(count, dtype=np.float32)
        window_probabilities[kept] = found
        if silent.any():
            window_probabilities[silent] = window_probabilities[silent.argmax()]
        return smooth(window_probabilities, self._config) if self._config.smoothing else window_probabilities

    def _classify_batch(self, windows: NDArray[np.float32]) -> Sequence[np.float32]:
        lengths = np.full(len(windows), windows.shape[1], dtype=np.int64)
        with self._runtime.inference(exact=True):
            signal, length = self._runtime.tensor(windows), self._runtime.tensor(lengths)
            logits = self._model.forward(input_signal=signal, input_signal_length=length)  # (windows, 2)
            return list(torch.softmax(logits.to(torch.float32), dim=-1)[:, 1].cpu().numpy())


def smooth(window_probabilities: Floats, config: VadConfig) -> Floats:
    """Combine all windows that cover a frame of 10 ms, and return one probability per frame, float32 (frames,).

    This is NeMo's ``generate_overlap_vad_seq_per_tensor``. It treats a window as the audio that follows the frame that
    it represents, not as centered on it; the padding values in NeMo's configurations are tuned to that.

    Args:
        window_probabilities: The probability of speech in each window, float32 (windows,).
        config: The length, shift and overlap of the windows, and whether to use their median or mean.
    """
    shift = max(1, round(config.shift / SMOOTHED_FRAME_STEP))
    length = round(config.window / SMOOTHED_FRAME_STEP) + 1
    stride = max(1, int(length * (1 - config.overlap)) // shift)
    kept = window_probabilities[::stride]
    spacing = stride * shift
    frame = np.arange(len(window_probabilities) * shift)
    probabilities = np.full((len(frame), -(-length // spacing)), np.nan, dtype=np.float32)
    for back in range(probabilities.shape[1]):
        window = frame // spacing - back
        covers = (window >= 0) & (window < len(kept)) & (frame - window * spacing < length)
        probabilities[covers, back] = kept[window[covers]]
    aggregate: dict[Smoothing, Any] = {"median": np.nanmedian, "mean": np.nanmean}
    assert config.smoothing is not None
    result: Floats = aggregate[config.smoothing](probabilities, axis=1).astype(np.float32)
    return result
