"""Tests of the whole way from a recording to words with speakers, with models of all shapes and random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits
from diarist.engines.embedded import load_diarizer, load_recognizer
from diarist.engines.embedded.whisper import DecodingOptions, WhisperRecognizer
from diarist.engines.embedded.whisper_model import MAX_DECODED_TOKENS
from diarist.errors import InvalidOption
from diarist.languages import WHISPER_LANGUAGES, WHISPER_V3_LANGUAGES
from diarist.pipeline.transcription import transcribe
from diarist.protocols import Diarizer, Engine
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, Audio, Recognition, Span, TranscribeOptions
from support import random_whisper_models as models
from support.transcript_invariants import violations

WORDS = models.random_words(14)
TEXT = (*WORDS[:8], "<|4.00|>", "<|4.00|>", *WORDS[8:])
SPOKEN = [word.replace("Ġ", " ") for word in WORDS]
"""What every window says."""

SPEECH = (Span(0.4, 2.8), Span(3.1, 5.6))

ONE_PASS = DecodingOptions(min_uncovered=math.inf)
"""A random model aligns words anywhere, so a second pass would find the same words again in the gaps."""


@dataclass(frozen=True, slots=True)
class Size:
    """The layers, heads, bands and languages of a published model, with heads of few values."""

    shape: models.WhisperShape
    languages: Sequence[str] = WHISPER_LANGUAGES
    quantization: str = "int8"


V3 = WHISPER_V3_LANGUAGES
SIZES = {
    "tiny": Size(models.WhisperShape(64, 4, 2, 2)),
    "tiny.en": Size(models.WhisperShape(96, 6, 4, 4, multilingual=False), ["en"], "float16"),
    "small": Size(models.WhisperShape(48, 12, 12, 12)),
    "distil-small.en": Size(models.WhisperShape(48, 12, 12, 4, multilingual=False), ["en"]),
    "medium": Size(models.WhisperShape(64, 16, 24, 24)),
    "large-v3": Size(models.WhisperShape(80, 20, 32, 32, bands=128, version=3), V3),
    "large-v3-turbo": Size(models.WhisperShape(80, 20, 32, 4, bands=128, version=3), V3, "float16"),
    "distil-large-v3.5": Size(models.WhisperShape(80, 20, 32, 2, bands=128, version=3), ["en"]),
}


@pytest.fixture(scope="module", params=SIZES)
def size(request) -> Size:
    return SIZES[request.param]


@pytest.fixture(scope="module")
def folder(size, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("whisper"), size)


@pytest.fixture(scope="module")
def diarizer(model_store) -> Diarizer:
    return load_diarizer(load_settings(engine="embedded", cpu_threads=2)).part


def save(folder: Path, size: Size, text: Sequence[str] = TEXT, language: str = "de") -> Path:
    return models.save_whisper(folder, size.shape, text, language=language, quantization=size.quantization)


def load(folder: Path, size: Size, options: DecodingOptions = ONE_PASS) -> WhisperRecognizer:
    return WhisperRecognizer(folder, 2, options, languages=size.languages)


def run(recognizer: WhisperRecognizer, language: str | None = "en") -> Recognition:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 6 * SAMPLE_RATE).astype(np.float32)
    return recognizer.recognize(Audio(noise), SPEECH, language, lambda *_: None)


def texts(recognition: Recognition) -> list[str]:
    return [word.text for word in recognition.words]


def test_words_have_times_whatever_the_shape_of_the_model(folder, size):
    recognition = run(load(folder, size), None)
    assert texts(recognition) == SPOKEN
    assert all(0.0 <= word.span.start < word.span.end <= 6.0 for word in recognition.words)
    assert all(a.span.end <= b.span.start for a, b in pairwise(recognition.words))
    assert recognition.language == ("en" if len(size.languages) == 1 else "de")


@pytest.mark.models
def test_a_transcript_has_speakers_whatever_the_shape_of_the_model(folder, size, diarizer, sample_recording, tmp_path):
    samples, rate = soundfile.read(sample_recording)
    path = tmp_path / "call.wav"
    soundfile.write(path, samples[8 * rate : 17 * rate], rate)
    engine = Engine("embedded", diarizer, load(folder, size, DecodingOptions()), ())
    transcript = transcribe(path, engine, TranscribeOptions(language="en"), lambda *_: None, DecodeLimits())
    assert violations(transcript) == []
    assert {word.text for word in transcript.words} == set(SPOKEN)
    assert {word.speaker for word in transcript.words} == {"SPEAKER_00", "SPEAKER_01"}


def test_an_english_model_with_a_multilingual_vocabulary_is_told_that_it_is_english(tmp_path):
    recognizer = load(save(tmp_path / "model", SIZES["distil-large-v3.5"]), SIZES["distil-large-v3.5"])
    prompts: list[list[int]] = []
    generate = recognizer._model.model.generate

    class Model:
        """Records the prompts."""

        def __getattr__(self, name):
            return getattr(model, name)

        def generate(self, encoded, given, **options):
            prompts.extend(given)
            return generate(encoded, given, **options)

    model, recognizer._model.model = recognizer._model.model, Model()
    assert run(recognizer, None).language == "en"
    token = recognizer._model.hf_tokenizer.token_to_id
    assert prompts == [[token("<|startoftranscript|>"), token("<|en|>"), token("<|transcribe|>")]]
    with pytest.raises(InvalidOption, match="'de'; it supports en"):
        run(recognizer, "de")


def test_no_language_is_detected_that_the_model_lacks(tmp_path):
    shape = models.WhisperShape(64, 4, 2, 2, bands=128, version=3)
    folder = save(tmp_path / "model", Size(shape), language="yue")
    assert run(load(folder, Size(shape, V3)), None).language == "yue"
    recognizer = load(folder, Size(shape, WHISPER_LANGUAGES))
    assert run(recognizer, None).language in WHISPER_LANGUAGES
    with pytest.raises(InvalidOption, match="yue"):
        run(recognizer, "yue")


@pytest.mark.models
def test_the_languages_of_a_model_are_those_of_the_catalog(model_store):
    recognizer = load_recognizer(load_settings(whisper_model="base")).part
    assert recognizer.languages == WHISPER_LANGUAGES
    with pytest.raises(InvalidOption, match="'yue'; it supports af, "):
        run(recognizer, "yue")


@pytest.mark.parametrize("name", ["tiny", "large-v3-turbo"])
def test_a_loop_ends_whatever_the_shape_of_the_model(tmp_path, name):
    """The second attempt forbids the repetition; without an end of the text, it ends after half of all positions."""
    recognizer = load(save(tmp_path / "model", SIZES[name], [WORDS[0]] * models.MAX_TOKENS), SIZES[name])
    said = texts(run(recognizer))
    assert 0 < len(said) <= MAX_DECODED_TOKENS
    assert said.count(SPOKEN[0]) < 0.75 * MAX_DECODED_TOKENS
