"""Diarization with NeMo models that were exported to ONNX: a frame VAD and a speaker model, clustered by our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from diarist.clustering import EmbeddedWindows, Labels, SpeakerBounds, cluster, l2_normalize
from diarist.engines.fusion import Grid
from diarist.engines.multiscale.diarizer import MultiscaleDiarizer, Scale, nearest
from diarist.engines.nemo_yaml.diar_infer_config import read_config
from diarist.engines.onnx.exported_model import Kind, locate
from diarist.engines.onnx.mel_features import Floats, MelFeatures
from diarist.engines.onnx.session import open_graph
from diarist.errors import ModelCorrupt
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Progress, Samples, Seconds, Span

NAME = "onnx"

VAD_KINDS: tuple[Kind, ...] = ("frame_vad",)
VOICE_KINDS: tuple[Kind, ...] = ("speaker",)

GRAPH = "model.onnx"

SHORTEST: Seconds = 0.2
"""A shorter window is filled up by repetition: the network needs some frames for its statistics."""

JOINED: Seconds = 0.01
"""Windows with less than this between them belong to one stretch of speech."""


def load(settings: Settings) -> Loaded[Diarizer]:
    """The exported models of ``ONNX_VAD_MODEL`` and ``ONNX_SPEAKER_MODEL``, set up by ``DIAR_CONFIG``.

    Raises:
        ModelUnavailable: one of them is not there, or of another kind.
        ModelCorrupt: a file of it is not the one that was exported.
        ConfigurationError: the configuration cannot be used.
    """
    config = read_config(settings)
    vad_folder, vad = locate(settings, settings.onnx_vad_model, VAD_KINDS, "ONNX_VAD_MODEL")
    voice_folder, voice = locate(settings, settings.onnx_speaker_model, VOICE_KINDS, "ONNX_SPEAKER_MODEL")
    detector = OnnxSpeechDetector(
        _open(vad_folder, settings.threads), MelFeatures.beside(vad_folder, vad.features), vad.frame_step
    )
    encoder = OnnxSpeakerEncoder(
        _open(voice_folder, settings.threads), MelFeatures.beside(voice_folder, voice.features)
    )
    return Loaded(MultiscaleDiarizer(detector, encoder, OwnClusterer(), config, NAME), (vad.info, voice.info))


def _open(folder: Path, threads: int) -> onnxruntime.InferenceSession:
    try:
        return open_graph(folder / GRAPH, threads)
    except Exception as error:  # the hash is right, so it is of another onnxruntime
        raise ModelCorrupt(
            f"The exported model in {folder} cannot be opened ({error}): export it again with `diarist models export`"
            " of this version of Diarist."
        ) from error


class OnnxSpeechDetector:
    """A frame VAD over a recording of any length.

    Args:
        session: the graph: ``audio_signal`` (1, mels, frames) to scores (1, frames, 2) of no speech and speech.
        features: what it hears.
        step: from one frame of its scores to the next.
        block: frames of scores at a time; bounds the memory.
        context: frames heard before and after a block, which makes the scores those of the whole: more than the network
            sees.
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
        mean, distribute = self._features.statistics(samples)
        frames = -(-rows // self._stride)
        found = np.empty(frames, dtype=np.float32)
        for first in range(0, frames, self._block):
            stop = min(first + self._block, frames)
            start = max(0, first - self._context)
            end = min((stop + self._context) * self._stride, rows)
            heard = (self._features.raw(samples, start * self._stride, end) - mean) / distribute  # (rows, mels)
            scores = self._session.run(None, {"audio_signal": np.ascontiguousarray(heard.T)[None]})[0][0]  # (frames, 2)
            found[first:stop] = _speech(scores[first - start : stop - start])
            progress("segmentation", stop / frames)
        return found


def _speech(scores: Floats) -> Floats:
    """The probability of the second of two classes, (frames,)."""
    likely: Floats = 1 / (1 + np.exp(np.clip(scores[:, 0] - scores[:, 1], -80, 80)))
    return likely


class OnnxSpeakerEncoder:
    """A speaker model over windows of a recording.

    Args:
        session: the graph: ``audio_signal`` (batch, mels, frames) and, in most, ``length`` (batch,) to embeddings
            (batch, values).
        features: what it hears.
        batch: windows of one length at a time.
    """

    def __init__(self, session: onnxruntime.InferenceSession, features: MelFeatures, batch: int = 16) -> None:
        self._session = session
        self._features = features
        self._inputs = {value.name for value in session.get_inputs()}
        self._batch = batch

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> Floats:
        """One embedding a window, float32 (windows, values).

        Each window is heard for itself, as NeMo does. Those of different lengths are never in one batch: the exported
        network hears what is filled up.
        """
        by_frames: dict[int, list[int]] = {}
        for index, window in enumerate(windows):
            by_frames.setdefault(self._features.frames(len(self._cut(audio, window))), []).append(index)
        found = np.zeros((len(windows), self._session.get_outputs()[0].shape[1]), dtype=np.float32)
        done = 0
        for frames, indices in sorted(by_frames.items()):
            for at in range(0, len(indices), self._batch):
                members = indices[at : at + self._batch]
                heard = np.stack([self._features.of(self._cut(audio, windows[i])).T for i in members])
                inputs = {"audio_signal": heard, "length": np.full(len(members), frames)}
                found[members] = self._session.run(None, {name: inputs[name] for name in self._inputs})[0]
                done += len(members)
                progress("embedding", done / len(windows))
        return found

    def _cut(self, audio: Audio, window: Span) -> Samples:
        samples = audio.cut(window).samples
        least = round(SHORTEST * SAMPLE_RATE)
        if len(samples) >= least:
            return samples
        return np.resize(samples, least) if len(samples) else np.zeros(least, dtype=np.float32)


class OwnClusterer:
    """The embedded engine's clustering over voices heard at several scales.

    A window of the base scale gets the weighted mean of its own voice and those of the longer windows around it. What
    it is said to have heard is all that those windows cover, for windows that share sound are alike whoever speaks.
    """

    def label(self, scales: Sequence[Scale], bounds: SpeakerBounds) -> Labels:
        base = scales[-1]
        fused = np.zeros((len(base.unit), base.unit.shape[1]), dtype=np.float32)
        start, end = base.start.copy(), base.end.copy()
        for scale in scales:
            near = nearest(scale, base)
            fused += np.float32(scale.weight) * scale.unit[near]
            start, end = np.minimum(start, scale.start[near]), np.maximum(end, scale.end[near])
        run = np.concatenate([[0], np.cumsum(base.start[1:] > np.maximum.accumulate(base.end)[:-1] + JOINED)])
        return cluster(EmbeddedWindows(l2_normalize(fused), np.maximum.accumulate(start), end, run, None), bounds)
