"""The NeMo recognizer: any model with word timestamps, applied to windows of speech in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from diarist.engines.nemo.decoders import Decoder, decoder_for
from diarist.engines.nemo.device import Runtime
from diarist.engines.nemo.loading import load_model
from diarist.engines.nemo_yaml.diar_infer_config import recognizer_model
from diarist.engines.recognition_windows import windows
from diarist.engines.word_timestamps import Token
from diarist.errors import InvalidOption
from diarist.protocols import Loaded, Recognizer
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Progress, Recognition, RecognizedWord, Samples, Seconds, Span

MIN_WINDOW: Seconds = 1.0
"""Shorter windows are padded with silence at their end, as in NeMo, because normalization needs several frames."""

CPU_BATCH_SIZE = 4
"""The batch size on a CPU. Larger batches need more memory and save no time."""

MAX_BATCH_SIZE = 64
"""The maximum batch size on a GPU. Larger batches are not faster."""

BYTES_PER_WINDOW = 600 * 2**20
"""The memory to reserve per window: twice what a window of 30 s takes in float32 with the architecture of
parakeet-tdt-0.6b-v3 (0.29 GB, measured on a CPU as the increase of the peak by the second window of a batch), because
there are models of twice its size."""


def load(settings: Settings) -> Loaded[Recognizer]:
    """Load the recognizer that the settings name, or otherwise the one that the diarizer's configuration names.

    Raises:
        ModelError: If the model is unavailable or damaged.
        ConfigurationError: If the model is not a recognizer or does not output word timestamps, or if the
            configuration cannot be used.
    """
    runtime = Runtime.of(settings)
    reference, named_by = recognizer_model(settings)
    loaded = load_model(reference, "recognition", settings, runtime, named_by)
    with runtime.inference(exact=True):
        decoder = decoder_for(loaded.model, loaded.name)
    recognizer = NemoRecognizer(decoder, loaded.languages or decoder.languages, runtime, settings.nemo_batch)
    return Loaded(recognizer, (loaded.info,), runtime.name)


class NemoRecognizer:
    """Recognizes speech with a NeMo model. Keeps no state between calls.

    Args:
        decoder: The model and its decoding method.
        languages: The languages of the model, ISO 639-1; empty if they are unknown.
        runtime: The device.
        batch_size: The batch size in windows; 0 chooses it by the free memory.
    """

    def __init__(self, decoder: Decoder, languages: Sequence[str], runtime: Runtime, batch_size: int = 0) -> None:
        self._decoder = decoder
        self._languages = tuple(sorted(languages))
        self._runtime = runtime
        self._batch_size = batch_size

    @property
    def languages(self) -> tuple[str, ...]:
        return self._languages

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        self._check_language(language)
        speech_windows = windows(audio, speech)
        if not speech_windows:
            return Recognition()
        progress("recognition", 0.0)
        effective_language = language or self._decoder.default_language
        words = self._recognize_windows(
            audio, speech_windows, effective_language, lambda done: progress("recognition", done)
        )
        if language is None and len(self._languages) == 1:
            language = self._languages[0]
        return Recognition(words, language or effective_language, None if language is None else 1.0)

    def _check_language(self, language: str | None) -> None:
        """Raise InvalidOption if the model does not support the language; accept any if its languages are unknown."""
        if language is not None and self._languages and language not in self._languages:
            supported = ", ".join(self._languages)
            raise InvalidOption(f"This model does not support the language {language!r}; it supports {supported}.")

    def _recognize_windows(
        self, audio: Audio, speech_windows: Sequence[Span], language: str | None, report: Callable[[float], None]
    ) -> tuple[RecognizedWord, ...]:
        """Return the words of all windows, in order."""

        def decode(indices: Sequence[int]) -> list[list[Token]]:
            return self._decode([audio.cut(speech_windows[index]).samples for index in indices], language)

        # Windows of similar length form a batch. The longest come first, so that memory runs out at once or never.
        order = sorted(range(len(speech_windows)), key=lambda index: (-speech_windows[index].duration, index))
        batch_size = self._batch_size or self._choose_batch_size()
        tokens = dict(zip(order, self._runtime.in_batches(order, decode, batch_size, report), strict=True))
        decoder = self._decoder
        return tuple(
            word
            for index, window in enumerate(speech_windows)
            for word in decoder.vocabulary.words(tokens[index], window, decoder.frame_step, decoder.letter_duration)
        )

    def _decode(self, signals: Sequence[Samples], language: str | None) -> list[list[Token]]:
        min_samples = round(MIN_WINDOW * SAMPLE_RATE)
        lengths = np.array([max(len(signal), min_samples) for signal in signals], dtype=np.int64)
        batch = np.zeros((len(signals), int(lengths.max())), dtype=np.float32)
        for row, signal in zip(batch, signals, strict=True):
            row[: len(signal)] = signal
        with self._runtime.inference():
            return self._decoder.decode(self._runtime.tensor(batch), self._runtime.tensor(lengths), language)

    def _choose_batch_size(self) -> int:
        """Return the number of windows that fit into the free memory of the device."""
        device = self._runtime.device
        if device.type == "cpu":
            return CPU_BATCH_SIZE
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(1, min(MAX_BATCH_SIZE, int((free + cached) * 0.8) // BYTES_PER_WINDOW))
