"""Recognition with a NeMo model in ONNX format, exported or published: NeMo's accuracy without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx_asr.asr import Asr
from onnx_asr.models.nemo import NemoConformerCtc, NemoConformerRnnt, NemoConformerTdt
from onnx_asr.onnx import OnnxSessionOptions

from diarist.engines.device import CPU, Choice, Device, choose_here
from diarist.engines.memory_limit import does_not_fit, is_out_of_memory
from diarist.engines.onnx.mel_features import Floats, MelFeatures
from diarist.engines.onnx.model_lookup import locate
from diarist.engines.onnx.session import providers, session_options
from diarist.engines.recognition_windows import windows
from diarist.engines.word_timestamps import LETTER_DURATION_S, Token, Vocabulary
from diarist.errors import EngineUnavailable, InvalidOption, ModelCorrupt
from diarist.models import ModelStore, exported_model, select_recognizer
from diarist.models.exported_model import ExportedModel, Kind
from diarist.protocols import Loaded, Recognizer
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Progress, Recognition, RecognizedWord, Samples, Seconds, Span

KINDS: tuple[Kind, ...] = ("ctc", "rnnt", "tdt")

MODELS: Mapping[Kind, Callable[..., Asr]] = {
    "ctc": NemoConformerCtc,
    "rnnt": NemoConformerRnnt,
    "tdt": NemoConformerTdt,
}
"""The decoder of each kind. They also work with NeMo's other encoders."""

MIN_WINDOW_S: Seconds = 1.0
"""A shorter window is padded with silence: the features are normalized over the window."""

VOCABULARY = "vocab.txt"
BLANK = "<blk>"
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's marker for the space before a word; in the vocabulary file it represents every space."""


def load(settings: Settings) -> Loaded[Recognizer]:
    """Load the recognizer of ``MODEL`` or ``ONNX_ASR_MODEL``: one of the catalog or an exported one.

    Nothing is downloaded.

    Raises:
        ConfigurationError: There is no model of the name in ``MODEL``, or the device does not exist.
        ModelUnavailable: It is missing, or is not a recognizer.
        ModelCorrupt: One of its files is not the one that was published or exported.
        EngineUnavailable: The device cannot be used.
    """
    selected = select_recognizer(settings)
    if selected.cataloged:
        folder = ModelStore.of(settings).locate(selected.model)
        described = exported_model.read(folder)
    else:
        folder, described = locate(settings, selected.model, KINDS, selected.setting)
    choice = device_for(settings, described)
    recognizer = OnnxRecognizer(folder, described, settings.threads, choice.device)
    return Loaded(recognizer, (described.info,), choice.device.name, choice.notice)


def device_for(settings: Settings, exported: ExportedModel) -> Choice:
    """Return the device for a model: the CPU for int8, since ONNX Runtime quantizes activations on the CPU alone.

    Raises:
        ConfigurationError: The device does not exist.
        EngineUnavailable: The device cannot be used.
    """
    choice = choose_here(settings, "onnxruntime")
    if exported.quantization is None or choice.device.kind != "cuda":
        return choice
    reason = f"ONNX Runtime quantizes on the CPU alone, and {exported.name} is in int8. Use the model in fp32"
    if settings.device != "auto":
        raise EngineUnavailable(f"DEVICE={settings.device}: {reason}, or set DEVICE to auto or cpu.")
    return Choice(CPU, f"{exported.name} runs on the CPU: {reason} to use {choice.device.name}.")


@dataclass(frozen=True, slots=True)
class NemoFeatures:
    """The features of the model in the interface of onnx-asr, whose own support only two of NeMo's settings."""

    mel: MelFeatures

    def __call__(self, waveforms: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """Return the features of one window, float32 (1, mels, frames), and the number of frames, int64 (1,)."""
        ((samples,), (length,)) = waveforms, lengths
        features = self.mel.normalized(samples[:length])
        return np.ascontiguousarray(features.T)[None], np.array([len(features)])


class OnnxRecognizer:
    """A CTC, RNN-T or TDT model in ONNX Runtime. It keeps no state between calls.

    Args:
        folder: The folder of the model, whose files have been compared with their hashes.
        exported: The description of the model.
        threads: The number of threads of the model.
        device: The device that the model runs on.

    Raises:
        ModelCorrupt: The model cannot be opened.
        EngineUnavailable: The memory of the device is too small.
    """

    def __init__(self, folder: Path, exported: ExportedModel, threads: int, device: Device = CPU) -> None:
        self._languages = tuple(sorted(exported.languages))
        self._frame_step = exported.frame_step
        features = NemoFeatures(MelFeatures.load(folder, exported.features))
        options: OnnxSessionOptions = {"sess_options": session_options(threads), "providers": providers(device)}
        try:
            tokens = read_vocabulary(folder / VOCABULARY)
            self._model = MODELS[exported.kind](model_files(folder, exported), lambda _name: features, options)
        except Exception as error:  # the hashes are right, so the version of onnxruntime or onnx-asr differs
            if is_out_of_memory(error):
                raise does_not_fit(exported.name, device.name) from error
            raise ModelCorrupt(
                f"The model in {folder} cannot be opened ({error}). Run `diarist models pull`, or export it again with"
                " the command `diarist models export` of this version of Diarist."
            ) from error
        self._vocabulary = Vocabulary(tokens)
        self._token_ids = {token.replace(WORD_START, " "): number for number, token in enumerate(tokens)}

    @property
    def languages(self) -> tuple[str, ...]:
        return self._languages

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        supported = self._languages
        if language is not None and supported and language not in supported:
            raise InvalidOption(
                f"This model does not support the language {language!r}; it supports {', '.join(supported)}."
            )
        spans = windows(audio, speech)
        if not spans:
            return Recognition()
        progress("recognition", 0.0)
        words: list[RecognizedWord] = []
        for number, window in enumerate(spans, 1):
            tokens = self._read(audio.cut(window).samples)
            words += self._vocabulary.words(tokens, window, self._frame_step, LETTER_DURATION_S)
            progress("recognition", number / len(spans))
        # These models do not report which of their languages they recognized.
        spoken = language or (supported[0] if len(supported) == 1 else None)
        return Recognition(tuple(words), spoken, None if spoken is None else 1.0)

    def _read(self, samples: Samples) -> list[Token]:
        """Return the tokens of a window in order; onnx-asr gives the start of a token, but not its end."""
        missing = round(MIN_WINDOW_S * SAMPLE_RATE) - len(samples)
        padded = np.pad(samples, (0, missing)) if missing > 0 else samples
        (result,) = self._model.recognize_batch(padded[None], np.array([len(padded)]), need_logprobs="yes")
        return [
            Token(self._token_ids[text], start, start + self._frame_step, float(np.exp(min(0.0, logprob))))
            for text, start, logprob in zip(
                result.tokens or (), result.timestamps or (), result.logprobs or (), strict=True
            )
        ]


def model_files(folder: Path, exported: ExportedModel) -> dict[str, Path]:
    """Return the files of an exported recognizer by the names that onnx-asr has for them."""
    suffix = f".{exported.quantization}.onnx" if exported.quantization else ".onnx"
    transducer = {"encoder": f"encoder-model{suffix}", "decoder_joint": f"decoder_joint-model{suffix}"}
    graphs = {"model": f"model{suffix}"} if exported.kind == "ctc" else transducer
    names = {**graphs, "vocab": VOCABULARY, "config": "config.json"}
    return {part: folder / name for part, name in names.items()}


def read_vocabulary(path: Path) -> list[str]:
    """Return the tokens in order of their number, without the blank.

    In a vocabulary of single characters, SentencePiece's marker of a space is replaced by a space.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a list of numbered tokens.
    """
    with path.open(encoding="utf-8") as lines:
        numbered = [line.rstrip("\n").rpartition(" ") for line in lines]
    tokens = [token for token, _, number in sorted(numbered, key=lambda line: int(line[2])) if token != BLANK]
    characters = all(len(token) == 1 for token in tokens)
    return [" " if characters and token == WORD_START else token for token in tokens]
