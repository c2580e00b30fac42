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

SHORTEST: Seconds = 1.0
"""Shorter windows are padded with silence at their end, as in NeMo, because normalization needs several frames."""

BATCH_ON_CPU = 4
"""The batch size on a CPU. Larger batches need more memory and save no time."""

LARGEST_BATCH = 64
"""The maximum batch size on a GPU. Larger batches are not faster."""

BYTES_A_WINDOW = 600 * 2**20
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
    with runtime.using(exact=True):
        decoder = decoder_for(loaded.model, loaded.name)
    recognizer = NemoRecognizer(decoder, loaded.languages or decoder.languages, runtime, settings.nemo_batch)
    return Loaded(recognizer, (loaded.info,), runtime.name)


class NemoRecognizer:
    """Recognizes speech with a NeMo model. Keeps no state between calls.

    Args:
        decoder: The model and its decoding method.
        languages: The languages of the model, ISO 639-1; empty if they are unknown.
        runtime: The device.
        batch: The batch size in windows; 0 chooses it by the free memory.
    """

    def __init__(self, decoder: Decoder, languages: Sequence[str], runtime: Runtime, batch: int = 0) -> None:
        self._decoder = decoder
        self._languages = tuple(sorted(languages))
        self._runtime = runtime
        self._batch = batch

    @property
    def languages(self) -> tuple[str, ...]:
        return self._languages

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        self._check(language)
        heard = windows(audio, speech)
        if not heard:
            return Recognition()
        progress("recognition", 0.0)
        assumed = language or self._decoder.default_language
        words = self._read(audio, heard, assumed, lambda done: progress("recognition", done))
        if language is None and len(self._languages) == 1:
            language = self._languages[0]
        return Recognition(words, language or assumed, None if language is None else 1.0)

    def _check(self, language: str | None) -> None:
        """Raise InvalidOption if the model does not support the language; accept any if its languages are unknown."""
        if language is not None and self._languages and language not in self._languages:
            known = ", ".join(self._languages)
            raise InvalidOption(f"This model does not support the language {language!r}; it supports {known}.")

    def _read(
        self, audio: Audio, heard: Sequence[Span], language: str | None, report: Callable[[float], None]
    ) -> tuple[RecognizedWord, ...]:
        """Return the words of all windows, in order."""

        def decode(part: Sequence[int]) -> list[list[Token]]:
            return self._decode([audio.cut(heard[number]).samples for number in part], language)

        # Windows of similar length form a batch. The longest come first, so that memory runs out at once or never.
        order = sorted(range(len(heard)), key=lambda number: (-heard[number].duration, number))
        batch = self._batch or self._fitting()
        said = dict(zip(order, self._runtime.in_batches(order, decode, batch, report), strict=True))
        decoder = self._decoder
        return tuple(
            word
            for number, window in enumerate(heard)
            for word in decoder.vocabulary.words(said[number], window, decoder.frame, decoder.letter)
        )

    def _decode(self, pieces: Sequence[Samples], language: str | None) -> list[list[Token]]:
        least = round(SHORTEST * SAMPLE_RATE)
        lengths = np.array([max(len(piece), least) for piece in pieces], dtype=np.int64)
        signal = np.zeros((len(pieces), int(lengths.max())), dtype=np.float32)
        for row, piece in zip(signal, pieces, strict=True):
            row[: len(piece)] = piece
        with self._runtime.using():
            return self._decoder.decode(self._runtime.tensor(signal), self._runtime.tensor(lengths), language)

    def _fitting(self) -> int:
        """Return the number of windows that fit into the free memory of the device."""
        device = self._runtime.device
        if device.type == "cpu":
            return BATCH_ON_CPU
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(1, min(LARGEST_BATCH, int((free + kept) * 0.8) // BYTES_A_WINDOW))
