"""Sortformer: one network from audio to who speaks in every frame, overlap included.

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

from diarist.engines.fusion import Floats
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import LoadedModel, load_model
from diarist.engines.nemo.mel_features import MelReader
from diarist.engines.nemo.sortformer_turns import TurnFinder
from diarist.engines.nemo_yaml.sortformer import SortformerConfig, StreamingConfig, read_config
from diarist.errors import AudioTooLong, ConfigurationError, InvalidOption, ModelError
from diarist.protocols import Diarizer, Loaded
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Diarization, Progress, Samples, Seconds, SpeakerHints

NAME = "sortformer"

LONGEST_WHOLE: Seconds = 300.0
"""The longest recording of a model that hears it as a whole: its memory grows with the square of the length,
to 3 GB here and 12 GB at twice the length with a model of the published size."""

SHORTEST_WHOLE_SAMPLES = SAMPLE_RATE // 10
"""Shorter recordings are filled up with silence for such a model, which normalises and needs some frames for that."""


class Hearing(Protocol):
    """A Sortformer model, whichever way it hears a recording."""

    @property
    def longest(self) -> Seconds | None:
        """The longest recording that it takes, or None where there is no limit."""
        ...

    def probability(self, samples: Samples, done: Callable[[float], None]) -> Floats:
        """How probable each speaker is in each frame, float32 (frames, speakers), 0..1.

        Raises:
            EngineUnavailable: the device has too little memory.
        """
        ...


class StreamedHearing:
    """Chunk by chunk, with a memory of the speakers: any length in the same memory.

    What NeMo's ``forward`` does in streaming mode, but for features and results, which it holds for the whole recording
    (and joins anew with every chunk).
    """

    longest: Seconds | None = None

    def __init__(self, model: Any, runtime: Runtime, config: StreamingConfig, name: str) -> None:
        modules = model.sortformer_modules
        least = (1 + modules.spkcache_sil_frames_per_spk) * modules.n_spk
        if config.spkcache_len < least:
            message = f"SORTFORMER_CONFIG: spkcache_len is {config.spkcache_len}, but {name} needs at least {least}."
            raise ConfigurationError(message)
        for key, value in asdict(config).items():
            setattr(modules, key, value)
        self._model = model
        self._runtime = runtime
        self._reader = MelReader(model.preprocessor, runtime)
        factor = modules.subsampling_factor
        self._chunk = config.chunk_len * factor
        self._left, self._right = config.chunk_left_context * factor, config.chunk_right_context * factor

    def probability(self, samples: Samples, done: Callable[[float], None]) -> Floats:
        modules = self._model.sortformer_modules
        device = self._runtime.device
        with self._runtime.using():
            frames = self._reader.frames(samples)
            normalised = self._reader.normaliser(samples)
            state = modules.init_streaming_state(1, async_streaming=self._model.async_streaming, device=device)
            nothing = torch.zeros((1, 0, modules.n_spk), device=device)

            def hear(chunk: Sequence[int]) -> list[Floats]:
                nonlocal state
                (first,) = chunk
                stop = min(first + self._chunk, frames)
                left, right = min(self._left, first), min(self._right, frames - stop)
                features = normalised(self._reader.read(samples, first - left, stop + right)).transpose(1, 2)
                state, heard = self._model.forward_streaming_step(
                    processed_signal=features,
                    processed_signal_length=torch.tensor([features.shape[1]], device=device),
                    streaming_state=state,
                    total_preds=nothing,
                    left_offset=left,
                    right_offset=right,
                )
                return [heard[0].float().cpu().numpy()]

            parts = self._runtime.in_batches(range(0, frames, self._chunk), hear, 1, done)
        return np.concatenate([np.zeros((0, modules.n_spk), dtype=np.float32), *parts])


class WholeHearing:
    """All at once, as models do that are not trained for streaming; a cut would lose who is who."""

    longest: Seconds | None = LONGEST_WHOLE

    def __init__(self, model: Any, runtime: Runtime) -> None:
        self._model = model
        self._runtime = runtime

    def probability(self, samples: Samples, done: Callable[[float], None]) -> Floats:
        padded = np.pad(samples, (0, max(0, SHORTEST_WHOLE_SAMPLES - len(samples))))

        def hear(recordings: Sequence[Samples]) -> list[Floats]:
            (recording,) = recordings
            signal = self._runtime.tensor(recording)[None]
            length = torch.tensor([len(recording)], device=signal.device)
            return [self._model.forward(audio_signal=signal, audio_signal_length=length)[0].float().cpu().numpy()]

        with self._runtime.using():
            (heard,) = self._runtime.in_batches([padded], hear, 1, done)
        return heard


class SortformerDiarizer:
    """Diarization by Sortformer, for as many speakers as its model has outputs. Keeps no state between calls."""

    def __init__(self, loaded: LoadedModel, runtime: Runtime, config: SortformerConfig) -> None:
        model = loaded.model
        featurizer = model.preprocessor.featurizer
        if featurizer.sample_rate != SAMPLE_RATE:
            message = f"SORTFORMER_MODEL: {loaded.name} is for {featurizer.sample_rate} Hz; one for 16000 Hz is needed."
            raise ConfigurationError(message)
        self.speakers: int = model.sortformer_modules.n_spk
        self._step: Seconds = model.encoder.subsampling_factor * featurizer.hop_length / SAMPLE_RATE
        self._hearing: Hearing = (
            StreamedHearing(model, runtime, config.streaming, loaded.name)
            if model.streaming_mode
            else WholeHearing(model, runtime)
        )
        self._rule = config.rule
        self.info = loaded.info
        self._name = loaded.name
        self._precision = runtime.precision

    @property
    def longest(self) -> Seconds | None:
        """The longest recording that it takes, or None where there is no limit."""
        return self._hearing.longest

    def diarize(self, audio: Audio, hints: SpeakerHints, progress: Progress) -> Diarization:
        """See ``Diarizer``.

        Raises:
            InvalidOption: more speakers are asked for than the model can tell apart.
            AudioTooLong: the model hears a recording as a whole, and this one is too long for that.
        """
        least, most = hints.bounds()
        self._check(audio, least)
        progress("segmentation", 0.0)
        if not any(audio.part(at, at + SAMPLE_RATE).any() for at in range(0, len(audio.samples), SAMPLE_RATE)):
            progress("segmentation", 1.0)
            return Diarization(diarizer=NAME)
        heard = self._hearing.probability(audio.samples, lambda done: progress("segmentation", done))
        if not np.isfinite(heard).all():
            raise ModelError(
                f"{self._name} gives results that are no numbers, computing in {self._precision}: set NEMO_PRECISION to"
                " fp32, or SORTFORMER_MODEL to another model."
            )
        progress("segmentation", 1.0)
        heard = heard[: int(np.ceil(audio.duration / self._step))]
        finder = TurnFinder(self._step, self._rule, audio.duration)
        return finder.find(heard, least, self.speakers if most is None else min(most, self.speakers), NAME)

    def _check(self, audio: Audio, least: int) -> None:
        if least > self.speakers:
            raise InvalidOption(
                f"{self._name} tells at most {self.speakers} speakers apart, not {least}: ask for fewer, or set"
                " DIARIZER to auto or clustering, which know no such limit."
            )
        if self.longest is not None and audio.duration > self.longest:
            raise AudioTooLong(
                f"{self._name} hears a recording as a whole, and {audio.duration:.0f} s are too long for that (at most"
                f" {self.longest:.0f} s): set SORTFORMER_MODEL to a streaming model, or DIARIZER to auto or clustering."
            )


def load(settings: Settings) -> Loaded[Diarizer]:
    """Sortformer and its configuration, as set.

    Raises:
        ModelError: the model could not be had, or is damaged.
        ConfigurationError: the configuration, or the model for it, cannot be used.
    """
    diarizer = load_sortformer(settings)
    return Loaded(diarizer, (diarizer.info,), Runtime.of(settings).name)


def load_sortformer(settings: Settings) -> SortformerDiarizer:
    """The same, with what it can do; see ``load``."""
    runtime = Runtime.of(settings)
    config = read_config(settings)
    loaded = load_model(settings.sortformer_model, "diarization", settings, runtime, "SORTFORMER_MODEL")
    return SortformerDiarizer(loaded, runtime, config)
