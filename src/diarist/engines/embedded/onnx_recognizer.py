"""Recognition with a NeMo model that was exported to ONNX: NeMo's accuracy on the CPU, without PyTorch."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx_asr.asr import Asr
from onnx_asr.models.nemo import NemoConformerCtc, NemoConformerRnnt, NemoConformerTdt
from onnx_asr.onnx import OnnxSessionOptions

from diarist.engines.chunks import pack
from diarist.engines.embedded.exported import Exported, Kind, locate
from diarist.engines.embedded.onnx_features import Floats, MelFeatures
from diarist.engines.embedded.runtime import session_options
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


@dataclass(frozen=True, slots=True)
class Chunking:
    """How speech is cut for the model."""

    longest: Seconds = 24.0
    """Longest chunk: about what NeMo's models are trained on; the cost of attention grows with its square."""

    pause: Seconds = 4.0
    """A longer pause always ends a chunk."""

    margin: Seconds = 0.2
    """What is heard before and after a chunk's speech."""

    shortest: Seconds = 1.0
    """A shorter chunk is filled up with silence: the features are normalised over it."""


LINGER: Seconds = 0.32
"""A token lasts until the next one, but no longer: these are the four frames that TDT models know."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a word as the model gives it."""

    text: str
    """With a space before it where a word starts."""

    time: Seconds
    """Where it starts."""

    probability: float


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


def files_of(folder: Path, exported: Exported) -> dict[str, Path]:
    """The files of an exported recogniser by what onnx-asr calls them."""
    suffix = f".{exported.quantization}.onnx" if exported.quantization else ".onnx"
    graphs = (
        {"model": "model"}
        if exported.kind == "ctc"
        else {"encoder": "encoder-model", "decoder_joint": "decoder_joint-model"}
    )
    others = {"vocab": "vocab.txt", "config": "config.json"}
    return {
        **{part: folder / f"{name}{suffix}" for part, name in graphs.items()},
        **{part: folder / name for part, name in others.items()},
    }


class OnnxRecognizer:
    """A CTC, RNN-T or TDT model in onnxruntime. Keeps no state between calls.

    Args:
        folder: of the model, checked.
        exported: what it says of itself.
        threads: for the model.
        chunking: how speech is cut.
    """

    def __init__(self, folder: Path, exported: Exported, threads: int, chunking: Chunking = Chunking()) -> None:
        self._languages = tuple(sorted(exported.languages))
        self._chunking = chunking
        heard = NemoFeatures(MelFeatures.beside(folder, exported.features))
        options: OnnxSessionOptions = {"sess_options": session_options(threads), "providers": ["CPUExecutionProvider"]}
        try:
            self._model = MODELS[exported.kind](files_of(folder, exported), lambda _name: heard, options)
        except Exception as error:  # the hashes are right, so it is of another onnxruntime or onnx-asr
            raise ModelCorrupt(
                f"The exported model in {folder} cannot be opened ({error}): export it again with `diarist models"
                " export` of this version of Diarist."
            ) from error

    @property
    def languages(self) -> tuple[str, ...]:
        return self._languages

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        if not speech:
            return Recognition()
        known = self._languages
        if language is not None and known and language not in known:
            raise InvalidOption(f"language {language!r} is not one that this model knows: {', '.join(known)}")
        progress("recognition", 0.0)
        chunks = pack(speech, self._chunking.longest, self._chunking.pause)
        words: list[RecognizedWord] = []
        for number, (piece, own) in enumerate(pieces(chunks, self._chunking.margin, audio.duration), 1):
            tokens = self._read(audio.cut(piece).samples, piece.start)
            words += [word for word in words_of(tokens, piece) if own.start <= word.span.start < own.end]
            progress("recognition", number / len(chunks))
        if not words:
            return Recognition()
        # a model does not say which of its languages it heard
        said = language or (known[0] if len(known) == 1 else None)
        ordered = tuple(sorted(words, key=lambda word: (word.span.start, word.span.end)))
        return Recognition(ordered, said, None if said is None else 1.0)

    def _read(self, samples: Samples, start: Seconds) -> list[Token]:
        missing = round(self._chunking.shortest * SAMPLE_RATE) - len(samples)
        filled = np.pad(samples, (0, missing)) if missing > 0 else samples
        (result,) = self._model.recognize_batch(filled[None], np.array([len(filled)]), need_logprobs="yes")
        return [
            Token(text, start + float(time), float(np.exp(min(0.0, logprob))))
            for text, time, logprob in zip(
                result.tokens or (), result.timestamps or (), result.logprobs or (), strict=True
            )
        ]


def pieces(chunks: Sequence[Span], margin: Seconds, duration: Seconds) -> list[tuple[Span, Span]]:
    """What is heard for each chunk, and the part of it whose words count: a word at a cut is heard twice."""
    middles = [(before.end + after.start) / 2 for before, after in pairwise(chunks)]
    firsts, lasts = [-np.inf, *middles], [*middles, np.inf]
    found: list[tuple[Span, Span]] = []
    for chunk, first, last in zip(chunks, firsts, lasts, strict=True):
        heard = Span(chunk.start - margin, chunk.end + margin).clamp(0.0, duration)
        # the last one's words may start where it ends
        own = Span(max(heard.start, first), min(heard.end, last) if last < heard.end else heard.end + 1.0)
        found.append((heard, own))
    return found


def words_of(tokens: Sequence[Token], within: Span) -> list[RecognizedWord]:
    """Tokens joined to words, with the white space before each but none within.

    A token that is a mark of the model's own, as ``<unk>``, is no word's. In scripts without spaces
    between words each token is a word.
    """
    said = _spoken(tokens)
    ends = [min(max(after.time, token.time), token.time + LINGER) for token, after in pairwise(said)]
    words: list[list[tuple[Token, Seconds]]] = []
    for token, end in zip(said, [*ends, *(token.time + LINGER for token in said[-1:])], strict=True):
        if not words or token.text[0].isspace() or _is_ideographic(token.text[0]):
            words.append([])
        words[-1].append((token, end))
    return [_word(word, within) for word in words]


def _spoken(tokens: Sequence[Token]) -> list[Token]:
    """Tokens with text, each with the white space before it: where that is a token of its own the next one has it."""
    spoken: list[Token] = []
    space = True  # also before the first, which goes on after the words of another chunk
    for token in tokens:
        text = token.text.strip()
        if _is_mark(text):
            continue
        space = space or token.text[:1].isspace()
        if text:
            bare = _is_closing(text) if spoken else _is_ideographic(text[0])
            spaced = space and not bare
            spoken.append(Token(f" {text}" if spaced else text, token.time, token.probability))
            space = token.text[-1].isspace()
    return spoken


def _word(parts: Sequence[tuple[Token, Seconds]], within: Span) -> RecognizedWord:
    text = "".join(token.text for token, _ in parts)
    span = Span(parts[0][0].time, max(end for _, end in parts)).clamp(within.start, within.end)
    return RecognizedWord(text, span, min(1.0, float(np.mean([token.probability for token, _ in parts]))))


def _is_mark(text: str) -> bool:
    return text.startswith("<") and text.endswith(">")


def _is_closing(text: str) -> bool:
    """Whether it is punctuation that belongs to the word before it, whatever space the model gives between."""
    kinds = {unicodedata.category(character) for character in text}
    return kinds <= {"Pe", "Pf", "Po", "Pd", "Pc"} and text[0] not in "¿¡'’"


def _is_ideographic(character: str) -> bool:
    """Whether it is of a script that has no spaces between words."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))
