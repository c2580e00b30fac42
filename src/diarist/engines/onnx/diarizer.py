"""Diarization with NeMo models that were exported to ONNX: a frame VAD, a speaker model, and Diarist's clustering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from diarist.clustering import EmbeddedWindows, Labels, SpeakerBounds, cluster, l2_normalize
from diarist.engines.device import Device, choose_here
from diarist.engines.memory_limit import MemoryLimit
from diarist.engines.multiscale.diarizer import MultiscaleDiarizer, Scale, nearest
from diarist.engines.nemo_yaml.diar_infer_config import read_config
from diarist.engines.onnx.mel_features import Floats, MelFeatures
from diarist.engines.onnx.model_lookup import locate
from diarist.engines.onnx.session import open_graph
from diarist.engines.speaker_activity import Grid
from diarist.errors import EngineUnavailable, ModelCorrupt
from diarist.models.exported_model import Kind
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Progress, Samples, Seconds, Span

NAME = "onnx"

VAD_KINDS: tuple[Kind, ...] = ("frame_vad",)
SPEAKER_KINDS: tuple[Kind, ...] = ("speaker",)

GRAPH = "model.onnx"

CPU_BATCH = 16
GPU_BATCH = 64
"""The number of windows of the speaker model per batch. It has not been measured on a GPU."""

MIN_WINDOW_S: Seconds = 0.2
"""A shorter window is padded by repetition: the network needs some frames for its statistics."""

MAX_RUN_GAP_S: Seconds = 0.01
"""Windows that are less than this apart belong to the same run of speech."""


def load(settings: Settings) -> Loaded[Diarizer]:
    """Load the exported models of ``ONNX_VAD_MODEL`` and ``ONNX_SPEAKER_MODEL``, configured by ``DIAR_CONFIG``.

    Raises:
        ModelUnavailable: A model does not exist, or has another kind.
        ModelCorrupt: A file of a model is not the one that was exported.
        ConfigurationError: The configuration cannot be used, or the device does not exist.
        EngineUnavailable: The device cannot be used.
    """
    config = read_config(settings)
    vad_folder, vad = locate(settings, settings.onnx_vad_model, VAD_KINDS, "ONNX_VAD_MODEL")
    speaker_folder, speaker = locate(settings, settings.onnx_speaker_model, SPEAKER_KINDS, "ONNX_SPEAKER_MODEL")
    choice = choose_here(settings, "onnxruntime")
    device = choice.device
    detector = OnnxSpeechDetector(
        _open(vad_folder, settings.threads, device), MelFeatures.load(vad_folder, vad.features), vad.frame_step
    )
    encoder = OnnxSpeakerEncoder(
        _open(speaker_folder, settings.threads, device),
        MelFeatures.load(speaker_folder, speaker.features),
        GPU_BATCH if device.kind == "cuda" else CPU_BATCH,
        device.name,
    )
    diarizer = MultiscaleDiarizer(detector, encoder, EmbeddingClusterer(), config, NAME)
    return Loaded(diarizer, (vad.info, speaker.info), device.name, choice.notice)


def _open(folder: Path, threads: int, device: Device) -> onnxruntime.InferenceSession:
    try:
        return open_graph(folder / GRAPH, threads, device)
    except EngineUnavailable:
        raise
    except Exception as error:  # the hash is right, so the onnxruntime version differs
        raise ModelCorrupt(
            f"The exported model in {folder} cannot be opened ({error}). Export it again with the command"
            " `diarist models export` of this version of Diarist."
        ) from error


class OnnxSpeechDetector:
    """A frame VAD over a recording of any length. Blocks of digital silence are not scored: they contain no speech.

    Args:
        session: The graph, from ``audio_signal`` (1, mels, frames) to scores (1, frames, 2) of no speech and speech.
        features: The features of the model.
        step: The time from one frame of its scores to the next.
        block: The number of frames that are scored at once; it limits the memory.
        context: The number of frames that are added before and after a block. It is larger than the network's receptive
            field, so that the scores are the same as without blocks.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        features: MelFeatures,
        step: Seconds,
        block: int = 3_000,
        context: int = 300,
    ) -> None:
        self._session = session
        self._features = features
        self._stride = round(step / features.settings.hop)
        self._grid = Grid(step)
        self._block = block
        self._context = context

    @property
    def grid(self) -> Grid:
        return self._grid

    def probability(self, audio: Audio, progress: Progress) -> Floats:
        samples, hop = audio.samples, self._features.settings.hop_samples
        if len(samples) < hop:
            samples = np.pad(samples, (0, hop - len(samples)))
        rows = self._features.frames(len(samples))
        mean, spread = self._features.statistics(samples)
        frames = -(-rows // self._stride)
        probability = np.empty(frames, dtype=np.float32)
        for first in range(0, frames, self._block):
            stop = min(first + self._block, frames)
            own = samples[first * self._stride * hop : stop * self._stride * hop]
            if len(own) and not own.any():
                probability[first:stop] = 0.0
                progress("segmentation", stop / frames)
                continue
            start = max(0, first - self._context)
            end = min((stop + self._context) * self._stride, rows)
            block = (self._features.raw(samples, start * self._stride, end) - mean) / spread  # (rows, mels)
            scores = self._session.run(None, {"audio_signal": np.ascontiguousarray(block.T)[None]})[0][0]  # (frames, 2)
            probability[first:stop] = _speech_probability(scores[first - start : stop - start])
            progress("segmentation", stop / frames)
        return probability


def _speech_probability(scores: Floats) -> Floats:
    """Return the softmax probability of the second of two classes, (frames,)."""
    probability: Floats = 1 / (1 + np.exp(np.clip(scores[:, 0] - scores[:, 1], -80, 80)))
    return probability


class OnnxSpeakerEncoder:
    """A speaker model over windows of a recording.

    Args:
        session: The graph, from ``audio_signal`` (batch, mels, frames) and, in most models, ``length`` (batch,) to
            embeddings (batch, values).
        features: The features of the model.
        batch: The number of windows of one length per batch.
        device: The name of the device that the model runs on. If its memory runs out, batches are halved.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, features: MelFeatures, batch: int = CPU_BATCH, device: str = "cpu"
    ) -> None:
        self._session = session
        self._features = features
        self._inputs = {value.name for value in session.get_inputs()}
        self._batch = batch
        self._limit = MemoryLimit(batch, device)

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> Floats:
        """Return one embedding per window, float32 (windows, values).

        Features are computed for each window separately, as in NeMo. Windows of different lengths are never in one
        batch, since the exported network does not mask padding.
        """
        by_frames: dict[int, list[int]] = {}
        for index, window in enumerate(windows):
            by_frames.setdefault(self._features.frames(len(self._cut(audio, window))), []).append(index)
        embeddings = np.zeros((len(windows), self._session.get_outputs()[0].shape[1]), dtype=np.float32)
        done = 0
        for _, indices in sorted(by_frames.items()):
            for at in range(0, len(indices), self._batch):
                members = indices[at : at + self._batch]
                features = [self._features.normalized(self._cut(audio, windows[i])).T for i in members]
                embeddings[members] = self._limit.run(features, lambda part: list(self._run(np.stack(part))))
                done += len(members)
                progress("embedding", done / len(windows))
        return embeddings

    def _run(self, features: Floats) -> Floats:
        """Map the features of windows of one length, (windows, mels, frames), to embeddings, (windows, values)."""
        inputs = {"audio_signal": features, "length": np.full(len(features), features.shape[2])}
        embeddings: Floats = self._session.run(None, {name: inputs[name] for name in self._inputs})[0]
        return embeddings

    def _cut(self, audio: Audio, window: Span) -> Samples:
        samples = audio.cut(window).samples
        min_samples = round(MIN_WINDOW_S * SAMPLE_RATE)
        if len(samples) >= min_samples:
            return samples
        return np.resize(samples, min_samples) if len(samples) else np.zeros(min_samples, dtype=np.float32)


class EmbeddingClusterer:
    """The embedded engine's clustering over embeddings of several scales.

    A window of the base scale gets the weighted mean of its own embedding and those of the longer windows around it.
    Its span is extended to all that those windows cover, since windows that share sound are similar whoever speaks.
    """

    def label(self, scales: Sequence[Scale], bounds: SpeakerBounds) -> Labels:
        base = scales[-1]
        fused = np.zeros((len(base.unit), base.unit.shape[1]), dtype=np.float32)
        start, end = base.start.copy(), base.end.copy()
        for scale in scales:
            near = nearest(scale, base)
            fused += np.float32(scale.weight) * scale.unit[near]
            start, end = np.minimum(start, scale.start[near]), np.maximum(end, scale.end[near])
        run = np.concatenate([[0], np.cumsum(base.start[1:] > np.maximum.accumulate(base.end)[:-1] + MAX_RUN_GAP_S)])
        return cluster(EmbeddedWindows(l2_normalize(fused), np.maximum.accumulate(start), end, run, None), bounds)
