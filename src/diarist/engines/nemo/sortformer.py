"""The diarizer ``sortformer``: one network that predicts which speakers are active in every frame, overlap included.

Park et al., "Sortformer: seamless integration of speaker diarization and ASR by bridging timestamps and tokens" (2024,
arXiv 2409.06656); Medennikov et al., "Streaming Sortformer: speaker cache-based online speaker diarization with
arrival-time ordering" (2025, arXiv 2507.18446).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch

from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import LoadedModel, load_model
from diarist.engines.nemo.mel_features import MelReader
from diarist.engines.nemo.sortformer_turns import TurnFinder
from diarist.engines.nemo_yaml.sortformer_config import SortformerConfig, StreamingConfig, read_config
from diarist.engines.speaker_activity import Floats
from diarist.errors import AudioTooLong, ConfigurationError, InvalidOption, ModelError
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Diarization, Progress, Samples, Seconds, SpeakerHints

NAME = "sortformer"

MAX_OFFLINE_DURATION: Seconds = 300.0
"""The maximum duration for a model that processes the whole recording at once. Its memory grows with the square of
the duration: a model of the published size needs 3 GB for this duration and 12 GB for twice as much."""

MIN_OFFLINE_SAMPLES = SAMPLE_RATE // 10
"""Shorter recordings are padded with silence for such a model, because its normalization needs several frames."""


class Inference(Protocol):
    """Inference with a Sortformer model, either streaming or over the whole recording."""

    @property
    def max_duration(self) -> Seconds | None:
        """The maximum duration of a recording, or None if there is no limit."""
        ...

    def probability(self, samples: Samples, report: Callable[[float], None]) -> Floats:
        """Return the probability of each speaker in each frame, float32 (frames, speakers), 0..1.

        Args:
            samples: The recording, float32 (samples,).
            report: Called with the share of the recording that has been processed, 0..1.

        Raises:
            EngineUnavailable: If the device has too little memory.
        """
        ...


class StreamingInference:
    """Processes a recording chunk by chunk with a speaker cache, so that memory does not depend on its duration.

    It computes what NeMo's ``forward`` computes in streaming mode. NeMo, however, holds the features and the results of
    the whole recording in memory and concatenates the results anew with every chunk.
    """

    max_duration: Seconds | None = None

    def __init__(self, model: Any, runtime: Runtime, config: StreamingConfig, name: str) -> None:
        modules = model.sortformer_modules
        min_cache_len = (1 + modules.spkcache_sil_frames_per_spk) * modules.n_spk
        if config.spkcache_len < min_cache_len:
            message = (
                f"SORTFORMER_CONFIG: spkcache_len is {config.spkcache_len}, but {name} needs at least {min_cache_len}."
            )
            raise ConfigurationError(message)
        for key, value in asdict(config).items():
            setattr(modules, key, value)
        self._model = model
        self._runtime = runtime
        self._reader = MelReader(model.preprocessor, runtime)
        factor = modules.subsampling_factor
        self._chunk = config.chunk_len * factor
        self._left, self._right = config.chunk_left_context * factor, config.chunk_right_context * factor

    def probability(self, samples: Samples, report: Callable[[float], None]) -> Floats:
        modules = self._model.sortformer_modules
        device = self._runtime.device
        with self._runtime.inference():
            frames = self._reader.frame_count(samples)
            normalize = self._reader.normalizer(samples)
            state = modules.init_streaming_state(1, async_streaming=self._model.async_streaming, device=device)
            no_predictions = torch.zeros((1, 0, modules.n_spk), device=device)

            def run(chunk: Sequence[int]) -> list[Floats]:
                nonlocal state
                (first,) = chunk
                stop = min(first + self._chunk, frames)
                left, right = min(self._left, first), min(self._right, frames - stop)
                features = normalize(self._reader.read(samples, first - left, stop + right)).transpose(1, 2)
                state, probability = self._model.forward_streaming_step(
                    processed_signal=features,
                    processed_signal_length=torch.tensor([features.shape[1]], device=device),
                    streaming_state=state,
                    total_preds=no_predictions,
                    left_offset=left,
                    right_offset=right,
                )
                return [probability[0].float().cpu().numpy()]

            parts = self._runtime.in_batches(range(0, frames, self._chunk), run, 1, report)
        return np.concatenate([np.zeros((0, modules.n_spk), dtype=np.float32), *parts])


class OfflineInference:
    """Processes the whole recording at once, for models that are not trained for streaming.

    Such a model cannot process chunks, since its speaker labels would not match between them.
    """

    max_duration: Seconds | None = MAX_OFFLINE_DURATION

    def __init__(self, model: Any, runtime: Runtime) -> None:
        self._model = model
        self._runtime = runtime

    def probability(self, samples: Samples, report: Callable[[float], None]) -> Floats:
        padded = np.pad(samples, (0, max(0, MIN_OFFLINE_SAMPLES - len(samples))))

        def run(recordings: Sequence[Samples]) -> list[Floats]:
            (recording,) = recordings
            signal = self._runtime.tensor(recording)[None]
            length = torch.tensor([len(recording)], device=signal.device)
            return [self._model.forward(audio_signal=signal, audio_signal_length=length)[0].float().cpu().numpy()]

        with self._runtime.inference():
            (probability,) = self._runtime.in_batches([padded], run, 1, report)
        return probability


class SortformerDiarizer:
    """Diarizes with Sortformer, for at most as many speakers as its model has outputs. Keeps no state between calls."""

    def __init__(self, loaded: LoadedModel, runtime: Runtime, config: SortformerConfig) -> None:
        model = loaded.model
        featurizer = model.preprocessor.featurizer
        if featurizer.sample_rate != SAMPLE_RATE:
            message = f"SORTFORMER_MODEL: {loaded.name} is for {featurizer.sample_rate} Hz; it must be for 16000 Hz."
            raise ConfigurationError(message)
        self.max_speakers: int = model.sortformer_modules.n_spk
        self._frame_step: Seconds = model.encoder.subsampling_factor * featurizer.hop_length / SAMPLE_RATE
        self._inference: Inference = (
            StreamingInference(model, runtime, config.streaming, loaded.name)
            if model.streaming_mode
            else OfflineInference(model, runtime)
        )
        self._binarization = config.binarization
        self.info = loaded.info
        self._name = loaded.name
        self._precision = runtime.precision

    @property
    def max_duration(self) -> Seconds | None:
        """The maximum duration of a recording, or None if there is no limit."""
        return self._inference.max_duration

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        """Diarize a recording; see ``Diarizer``.

        Raises:
            InvalidOption: If more speakers are requested than the model can distinguish.
            AudioTooLong: If the model processes the whole recording at once, and this one is too long for that.
            ModelError: If the output of the model is not finite.
        """
        min_speakers, max_speakers = hints.bounds()
        self._check(audio, min_speakers)
        progress("segmentation", 0.0)
        if not any(audio.part(at, at + SAMPLE_RATE).any() for at in range(0, len(audio.samples), SAMPLE_RATE)):
            progress("segmentation", 1.0)
            return Diarization(diarizer=NAME)
        probability = self._inference.probability(audio.samples, lambda share: progress("segmentation", share))
        if not np.isfinite(probability).all():
            raise ModelError(
                f"The output of {self._name} in {self._precision} contains values that are not finite: set"
                " NEMO_PRECISION to fp32, or SORTFORMER_MODEL to another model."
            )
        progress("segmentation", 1.0)
        probability = probability[: int(np.ceil(audio.duration / self._frame_step))]
        finder = TurnFinder(self._frame_step, self._binarization, audio.duration)
        limit = self.max_speakers if max_speakers is None else min(max_speakers, self.max_speakers)
        return finder.find(probability, min_speakers, limit, NAME)

    def _check(self, audio: Audio, min_speakers: int) -> None:
        if min_speakers > self.max_speakers:
            raise InvalidOption(
                f"{self._name} can distinguish at most {self.max_speakers} speakers, not {min_speakers}: request fewer"
                " speakers, or set DIARIZER to auto or clustering, which have no such limit."
            )
        if self.max_duration is not None and audio.duration > self.max_duration:
            raise AudioTooLong(
                f"{self._name} processes a recording as a whole, which is limited to {self.max_duration:.0f} s, but"
                f" this one has {audio.duration:.0f} s: set SORTFORMER_MODEL to a streaming model, or DIARIZER to auto"
                " or clustering."
            )


def load(settings: Settings) -> Loaded[Diarizer]:
    """Load the diarizer ``sortformer`` with its configuration.

    Raises:
        ModelError: If the model is unavailable or damaged.
        ConfigurationError: If the configuration, or the model that it names, cannot be used.
    """
    diarizer = load_sortformer(settings)
    return Loaded(diarizer, (diarizer.info,), Runtime.of(settings).name)


def load_sortformer(settings: Settings) -> SortformerDiarizer:
    """Load Sortformer as a ``SortformerDiarizer``, which has its limits as properties; raises what ``load`` raises."""
    runtime = Runtime.of(settings)
    config = read_config(settings)
    loaded = load_model(settings.sortformer_model, "diarization", settings, runtime, "SORTFORMER_MODEL")
    return SortformerDiarizer(loaded, runtime, config)
