"""Recognition with a NeMo model that was exported to ONNX: NeMo's accuracy on the CPU, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx_asr.asr import Asr
from onnx_asr.models.nemo import NemoConformerCtc, NemoConformerRnnt, NemoConformerTdt
from onnx_asr.onnx import OnnxSessionOptions

from diarist.engines.onnx.exported_model import Exported, Kind, locate
from diarist.engines.onnx.mel_features import Floats, MelFeatures
from diarist.engines.onnx.session import session_options
from diarist.engines.recognition_windows import windows
from diarist.engines.word_timestamps import LETTER, Token, Vocabulary
from diarist.errors import InvalidOption, ModelCorrupt
from diarist.protocols import Loaded, Recognizer
from diarist.settings import Settings
from diarist.types import SAMPLE_RATE, Audio, Progress, Recognition, RecognizedWord, Samples, Seconds, Span

KINDS: tuple[Kind, ...] = ("ctc", "rnnt", "tdt")

MODELS: Mapping[Kind, Callable[..., Asr]] = {
    "ctc": NemoConformerCtc,
    "rnnt": NemoConformerRnnt,
    "tdt": NemoConformerTdt,
}
"""What decodes each kind. They serve NeMo's other encoders as well."""

SHORTEST: Seconds = 1.0
"""A shorter window is filled up with silence: the features are normalised over it."""

VOCABULARY = "vocab.txt"
BLANK = "<blk>"
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's mark for the space before a word; in the file it stands for every space."""


def load(settings: Settings) -> Loaded[Recognizer]:
    """The exported recogniser of ``ONNX_ASR_MODEL``. Nothing is fetched.

    Raises:
        ModelUnavailable: it is not there, or no recogniser.
        ModelCorrupt: a file of it is not the one that was exported.
    """
    folder, exported = locate(settings, settings.onnx_asr_model, KINDS, "ONNX_ASR_MODEL")
    return Loaded(OnnxRecognizer(folder, exported, settings.threads), (exported.info,))


@dataclass(frozen=True, slots=True)
class NemoFeatures:
    """What the model hears, as onnx-asr asks for it. Its own is for two of NeMo's settings, and less exact."""

    mel: MelFeatures

    def __call__(self, waveforms: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """Features of one recording, float32 (1, mels, frames), and how many frames there are, int64 (1,)."""
        ((samples,), (length,)) = waveforms, lengths
        features = self.mel.of(samples[:length])
        return np.ascontiguousarray(features.T)[None], np.array([len(features)])


class OnnxRecognizer:
    """A CTC, RNN-T or TDT model in onnxruntime. Keeps no state between calls.

    Args:
        folder: of the model, its files compared with their hashes.
        exported: what it says of itself.
        threads: for the model.

    Raises:
        ModelCorrupt: it cannot be opened all the same.
    """

    def __init__(self, folder: Path, exported: Exported, threads: int) -> None:
        self._languages = tuple(sorted(exported.languages))
        self._frame = exported.frame_step
        heard = NemoFeatures(MelFeatures.beside(folder, exported.features))
        options: OnnxSessionOptions = {"sess_options": session_options(threads), "providers": ["CPUExecutionProvider"]}
        try:
            pieces = read_vocabulary(folder / VOCABULARY)
            self._model = MODELS[exported.kind](files_of(folder, exported), lambda _name: heard, options)
        except Exception as error:  # the hashes are right, so it is of another onnxruntime or onnx-asr
            raise ModelCorrupt(
                f"The exported model in {folder} cannot be opened ({error}): export it again with `diarist models"
                " export` of this version of Diarist."
            ) from error
        self._vocabulary = Vocabulary(pieces)
        self._numbers = {piece.replace(WORD_START, " "): number for number, piece in enumerate(pieces)}

    @property
    def languages(self) -> tuple[str, ...]:
        return self._languages

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        known = self._languages
        if language is not None and known and language not in known:
            raise InvalidOption(f"language {language!r} is not one that this model knows: {', '.join(known)}")
        heard = windows(audio, speech)
        if not heard:
            return Recognition()
        progress("recognition", 0.0)
        words: list[RecognizedWord] = []
        for number, window in enumerate(heard, 1):
            tokens = self._read(audio.cut(window).samples)
            words += self._vocabulary.words(tokens, window, self._frame, LETTER)
            progress("recognition", number / len(heard))
        # a model does not say which of its languages it heard
        said = language or (known[0] if len(known) == 1 else None)
        return Recognition(tuple(words), said, None if said is None else 1.0)

    def _read(self, samples: Samples) -> list[Token]:
        """What is said in a window, in order; onnx-asr tells when a token starts, and not for how long it lasts."""
        missing = round(SHORTEST * SAMPLE_RATE) - len(samples)
        filled = np.pad(samples, (0, missing)) if missing > 0 else samples
        (said,) = self._model.recognize_batch(filled[None], np.array([len(filled)]), need_logprobs="yes")
        return [
            Token(self._numbers[text], start, start + self._frame, float(np.exp(min(0.0, logprob))))
            for text, start, logprob in zip(said.tokens or (), said.timestamps or (), said.logprobs or (), strict=True)
        ]


def files_of(folder: Path, exported: Exported) -> dict[str, Path]:
    """The files of an exported recogniser by what onnx-asr calls them."""
    suffix = f".{exported.quantization}.onnx" if exported.quantization else ".onnx"
    transducer = {"encoder": f"encoder-model{suffix}", "decoder_joint": f"decoder_joint-model{suffix}"}
    graphs = {"model": f"model{suffix}"} if exported.kind == "ctc" else transducer
    names = {**graphs, "vocab": VOCABULARY, "config": "config.json"}
    return {part: folder / name for part, name in names.items()}


def read_vocabulary(path: Path) -> list[str]:
    """The tokens by their number, without the blank; single characters have a space where SentencePiece has a mark.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no list of numbered tokens.
    """
    with path.open(encoding="utf-8") as lines:
        numbered = [line.rstrip("\n").rpartition(" ") for line in lines]
    pieces = [piece for piece, _, number in sorted(numbered, key=lambda line: int(line[2])) if piece != BLANK]
    characters = all(len(piece) == 1 for piece in pieces)
    return [" " if characters and piece == WORD_START else piece for piece in pieces]
