"""Whisper models in CTranslate2's format with random weights, of any shape.

Random decoders repeat one token. In these the encodings of the positions point at the tokens of a given text, and then
at the end of the text, and the layers change little: every window gets this text. Words, loops and the number of tokens
can so be chosen, while each layer and each head takes part in the computation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, TypeAlias

import numpy as np
import tokenizers
from ctranslate2.specs import WhisperSpec
from numpy.typing import NDArray

from diarist.languages import LANGUAGES

MAX_FRAMES, MAX_TOKENS = 1500, 448
"""The positions of the encoder and of the decoder."""

Array: TypeAlias = NDArray[np.floating[Any]]

BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
LANGUAGE_CODES = (*(code for code in dict.fromkeys(LANGUAGES.values()) if code != "yue"), "yue")
"""Cantonese comes last: only the models of the third version have it."""

MAX_ALIGNMENT_HEADS = 20
"""Published models name between 6 and 23 heads, of any number of layers."""

POINTING = 8.0
"""The length of the tokens of the text among the embeddings, relative to that of all others."""


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """The shape of a model."""

    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    bands: int = 80
    version: int = 1
    """3: a vocabulary with Cantonese."""

    multilingual: bool = True

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens in the order of their ids, as in the published models."""
        words = ["Ġ" + "".join(letters) for letters in product(ascii_lowercase, repeat=4)]
        text = (*BYTES, *words)[:50_256] + (("",) if self.multilingual else ())  # CTranslate2 looks for it
        names = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
        codes = LANGUAGE_CODES if self.version == 3 else LANGUAGE_CODES[:-1]
        marks = ("endoftext", "startoftranscript", *codes, *names, *(f"{0.02 * at:.2f}" for at in range(1501)))
        return (*text, *(f"<|{mark}|>" for mark in marks))

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens before the text."""
        return 3 if self.multilingual else 1


TINY = WhisperShape(384, 6, 4, 4)
BASE = WhisperShape(512, 8, 6, 6)
SMALL = WhisperShape(768, 12, 12, 12)
MEDIUM = WhisperShape(1024, 16, 24, 24)
LARGE_V3 = WhisperShape(1280, 20, 32, 32, bands=128, version=3)
LARGE_V3_TURBO = WhisperShape(1280, 20, 32, 4, bands=128, version=3)
DISTIL_SMALL_EN = WhisperShape(768, 12, 12, 4, multilingual=False)
DISTIL_MEDIUM_EN = WhisperShape(1024, 16, 24, 2, multilingual=False)
DISTIL_LARGE_V3 = WhisperShape(1280, 20, 32, 2, bands=128, version=3)
"""The shapes of published models."""


def random_words(count: int, seed: int = 0) -> tuple[str, ...]:
    """Return this number of tokens of ``WhisperShape.vocabulary``, each of them one word."""
    picked = np.random.default_rng(seed).choice(50_000 - len(BYTES), count, replace=False)
    words = [*product(ascii_lowercase, repeat=4)]
    return tuple("Ġ" + "".join(words[at]) for at in picked)


def save_whisper(
    folder: Path, shape: WhisperShape, text: Sequence[str], *, language: str = "de", quantization: str = "float16"
) -> Path:
    """Write a model into ``folder``, with the files of a published one, and return the folder.

    Args:
        folder: It is created if it does not exist.
        shape: The shape of the model.
        text: The tokens that every window gets: words, and timestamps such as ``<|1.00|>``.
        language: The language that the model detects.
        quantization: The precision in which the weights are stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = shape.vocabulary
    _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    if shape.bands != 80:
        config = {"feature_size": shape.bands, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
        (folder / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    dtype = np.float16 if quantization == "float16" else np.float32
    spec = _spec(shape, ["<|0.00|>", *text, "<|endoftext|>"], language, dtype)
    spec.register_vocabulary(vocabulary)
    ids = {token: at for at, token in enumerate(vocabulary)}
    layers = range(shape.decoder_layers // 2, shape.decoder_layers)
    pairs = [[layer, head] for layer in layers for head in range(shape.heads)]
    spec.config.alignment_heads = pairs[:: max(1, len(pairs) // MAX_ALIGNMENT_HEADS)]
    spec.config.lang_ids = [ids[token] for token in vocabulary if token[2:-2] in LANGUAGE_CODES]
    spec.config.suppress_ids = [ids[f"<|{mark}|>"] for mark in ("startoftranscript", "startofprev", "nospeech")]
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.validate()
    spec.optimize(quantization)
    spec.save(str(folder))
    return folder


def _tokenizer(vocabulary: Sequence[str]) -> tokenizers.Tokenizer:
    end = vocabulary.index("<|endoftext|>")
    text = {token: at for at, token in enumerate(vocabulary[:end])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(text, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in vocabulary[end:]])
    return tokenizer


class _Weights:
    """Random arrays of the shapes that a model needs."""

    def __init__(self, d_model: int, dtype: type[np.floating[Any]]) -> None:
        self._random = np.random.default_rng(0)
        self._d_model = d_model
        self._dtype = dtype

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Array:
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale) + np.float32(mean)
        return values.astype(self._dtype)

    def linear(self, layer: Any, inputs: int, outputs: int, gain: float = 0.3) -> None:
        layer.weight = self.normal(outputs, inputs, scale=gain / inputs**0.5)
        layer.bias = self.normal(outputs, scale=0.02)

    def norm(self, layer: Any) -> None:
        layer.gamma = self.normal(self._d_model, scale=0.02, mean=1.0)
        layer.beta = self.normal(self._d_model, scale=0.02)

    def attention(self, layer: Any, *, crossed: bool = False) -> None:
        self.norm(layer.layer_norm)
        sizes = (1, 2, 1) if crossed else (3, 1)
        for linear, size in zip(layer.linear, sizes, strict=True):
            self.linear(linear, self._d_model, size * self._d_model)

    def feed_forward(self, layer: Any) -> None:
        self.norm(layer.layer_norm)
        self.linear(layer.linear_0, self._d_model, 4 * self._d_model)
        self.linear(layer.linear_1, 4 * self._d_model, self._d_model)


def _spec(shape: WhisperShape, text: Sequence[str], language: str, dtype: type[np.floating[Any]]) -> WhisperSpec:
    d_model = shape.d_model
    spec = WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    weights = _Weights(d_model, dtype)
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight = weights.normal(d_model, shape.bands, 3, scale=shape.bands**-0.5)
    encoder.conv2.weight = weights.normal(d_model, d_model, 3, scale=d_model**-0.5)
    for convolution in (encoder.conv1, encoder.conv2):
        convolution.bias = weights.normal(d_model, scale=0.02)
    encoder.position_encodings.encodings = weights.normal(MAX_FRAMES, d_model)
    weights.norm(encoder.layer_norm)
    for layer in encoder.layer:
        weights.attention(layer.self_attention)
        weights.feed_forward(layer.ffn)
    for layer in decoder.layer:
        weights.attention(layer.self_attention)
        weights.attention(layer.attention, crossed=True)
        weights.feed_forward(layer.ffn)
    weights.norm(decoder.layer_norm)
    embeddings, positions = _text_embeddings(weights, shape, text, language)
    decoder.embeddings.weight = decoder.projection.weight = embeddings
    decoder.position_encodings.encodings = positions
    return spec


def _text_embeddings(weights: _Weights, shape: WhisperShape, text: Sequence[str], language: str) -> tuple[Array, Array]:
    """Return the embeddings, (tokens, d_model), and the encodings of the positions, (positions, d_model)."""
    ids = {token: at for at, token in enumerate(shape.vocabulary)}
    embeddings = weights.normal(len(ids), shape.d_model, scale=shape.d_model**-0.5)
    pointed = [ids[f"<|{language}|>"], *(ids[token] for token in text)]
    embeddings[sorted(set(pointed))] *= POINTING
    first = shape.prompt_tokens - 1
    targets = [pointed[0]] * first + pointed[1:]
    targets += [ids["<|endoftext|>"]] * (MAX_TOKENS - len(targets))
    return embeddings, 10 * embeddings[targets]
