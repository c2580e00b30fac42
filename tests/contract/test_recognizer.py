"""What every ``Recognizer`` must do. A new implementation adds a row to ``IMPLEMENTATIONS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from diarist.engines.distributed_chunks import parse_recognition, perform, recognition_chunk
from diarist.errors import Cancelled, InvalidOption
from diarist.models import ModelStore, exported_model, load_catalog
from diarist.pipeline.speech import merged_speech
from diarist.protocols import Engine, Recognizer
from diarist.settings import load_settings
from diarist.types import SAMPLE_RATE, Audio, Recognition, Span
from support import published_tdt, recordings


def whisper(request: pytest.FixtureRequest) -> Recognizer:
    from diarist.engines.registry import load_recognizer

    request.getfixturevalue("model_store")
    return load_recognizer("whisper", load_settings()).part


def on_nemo(model: str) -> Callable[[pytest.FixtureRequest], Recognizer]:
    def load(request: pytest.FixtureRequest) -> Recognizer:
        from diarist.engines.registry import load_recognizer

        path = request.getfixturevalue("nemo_models")[model]
        settings = request.getfixturevalue("nemo_settings")
        return load_recognizer("nemo", settings.model_copy(update={"nemo_asr_model": str(path)})).part

    return load


def on_onnx(model: str) -> Callable[[pytest.FixtureRequest], Recognizer]:
    def load(request: pytest.FixtureRequest) -> Recognizer:
        from diarist.engines.registry import load_recognizer

        settings = request.getfixturevalue("exported_settings")
        return load_recognizer("onnx", settings.model_copy(update={"onnx_asr_model": model})).part

    return load


def published(model: str) -> Callable[[pytest.FixtureRequest], Recognizer]:
    def load(request: pytest.FixtureRequest) -> Recognizer:
        from diarist.engines.onnx.recognizer import OnnxRecognizer

        folder = request.getfixturevalue("tmp_path_factory").mktemp("published")
        files = published_tdt.repository()
        entry = published_tdt.with_these_files(load_catalog()[model], files)
        (folder / "source" / model).mkdir(parents=True)
        for file in entry.files:
            (folder / "source" / model / file.name).write_bytes(files[file.name])
        path = ModelStore(folder / "models", folder / "source", models={model: entry}).pull(model, offline=True)
        return OnnxRecognizer(path, exported_model.read(path), 1)

    return load


@dataclass(frozen=True, slots=True)
class Implementation:
    load: Callable[[pytest.FixtureRequest], Recognizer]
    trained: bool = False
    """Whether its output has a meaning: models that the tests make have random weights."""


IMPLEMENTATIONS: Mapping[str, Implementation] = {
    "whisper": Implementation(whisper, trained=True),
    **{model: Implementation(on_nemo(model)) for model in ("ctc", "character_ctc", "rnnt", "tdt", "hybrid")},
    **{f"onnx {model}": Implementation(on_onnx(model)) for model in ("ctc", "tdt")},
    **{model: Implementation(published(model)) for model in ("parakeet-tdt-0.6b-v3", "parakeet-tdt-0.6b-v2-fp32")},
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            name, marks=pytest.mark.models if name == "whisper" else () if "parakeet" in name else pytest.mark.nemo
        )
        for name in IMPLEMENTATIONS
    ],
)
def chosen(request: pytest.FixtureRequest) -> Implementation:
    return IMPLEMENTATIONS[request.param]


@pytest.fixture(scope="module")
def recognizer(request: pytest.FixtureRequest, chosen: Implementation) -> Recognizer:
    return chosen.load(request)


@pytest.fixture
def trained(chosen: Implementation) -> None:
    if not chosen.trained:
        pytest.skip("its weights are random, so its output has no meaning")


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, rate = soundfile.read(sample_recording, dtype="float32")
    assert rate == SAMPLE_RATE
    return Audio(samples)


@pytest.fixture(scope="module")
def speech(sample_rttm) -> tuple[Span, ...]:
    return merged_speech(turn.span for turn in recordings.read_rttm(sample_rttm))


@pytest.fixture(scope="module")
def recognized(recognizer, call, speech) -> Recognition:
    return run(recognizer, call, speech)


def run(recognizer, audio, speech, language=None, progress=lambda _stage, _done: None) -> Recognition:
    return recognizer.recognize(audio, speech, language, progress)


def check(recognition: Recognition, duration: float) -> None:
    """Check what holds for any recording."""
    words = recognition.words
    assert all(0 <= word.span.start <= word.span.end <= duration for word in words)
    assert {type(edge) for word in words for edge in (word.span.start, word.span.end, word.confidence)} <= {float}
    assert all(before.span.start <= after.span.start for before, after in pairwise(words))
    assert all(0 <= word.confidence <= 1 for word in words)
    assert all(word.text.strip() for word in words)
    if recognition.language_probability is not None:
        assert 0 <= recognition.language_probability <= 1


def text(recognition: Recognition) -> str:
    return "".join(word.text for word in recognition.words).strip().lower()


def cut(audio: Audio, start: float, end: float) -> Audio:
    return audio.cut(Span(start, end))


def test_words_are_in_order_and_within(recognized, call):
    check(recognized, call.duration)
    assert len(recognized.words) > 10


@pytest.mark.usefixtures("trained")
def test_words_are_those_that_are_said(recognized):
    assert len(recognized.words) > 40
    assert "originally from chicago" in text(recognized)


def test_words_lie_where_they_are_said(recognized, speech):
    """There is a tolerance of half a second, since the ends of words are not exact."""
    grown = [Span(max(span.start - 0.5, 0), span.end + 0.5) for span in speech]
    inside = [any(span.start <= word.span.middle <= span.end for span in grown) for word in recognized.words]
    assert np.mean(inside) > 0.95


@pytest.mark.usefixtures("trained")
def test_a_word_lies_where_it_is_said(recognized):
    chicago = next(word for word in recognized.words if "chicago" in word.text.lower())
    assert 16.0 < chicago.span.middle < 18.5


def test_no_speech_gives_no_words(recognizer, call):
    assert run(recognizer, call, ()) == Recognition()
    assert run(recognizer, call, (), "en").words == ()


def test_two_runs_are_identical(recognizer, call, speech, recognized):
    run(recognizer, cut(call, 20, 24), (Span(0, 4),))  # nothing is left over from another recording
    assert run(recognizer, call, speech) == recognized


def test_only_the_speech_is_read(recognizer, call):
    recognition = run(recognizer, call, (Span(14.4, 17.9),), "en")
    check(recognition, call.duration)
    assert recognition.words
    assert all(word.span.start > 13.5 and word.span.end < 18.8 for word in recognition.words)


@pytest.mark.usefixtures("trained")
def test_the_language_is_detected(recognized):
    assert recognized.language == "en"
    assert recognized.language_probability is not None
    assert recognized.language_probability > 0.5


def test_the_language_is_the_one_asked_for(recognizer, call):
    assert run(recognizer, call, (Span(14.4, 17.9),), "en").language == "en"


def test_an_unknown_language_is_refused_with_those_that_are_known(recognizer, call):
    for language in ("xx", "english", "EN ", ""):
        with pytest.raises(InvalidOption, match=r"en.*"):
            run(recognizer, call, (Span(14, 18),), language)


def test_speech_spans_without_speech_do_no_harm(recognizer):
    rng = np.random.default_rng(0)
    time = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    music = sum(np.sin(2 * np.pi * hertz * time) * (np.sin(2 * np.pi * 2 * time) > 0) for hertz in (220, 277, 330)) / 4
    hiss = 0.2 * rng.standard_normal(len(time)).clip(-4, 4)
    for samples in (np.zeros_like(time), music, hiss, np.ones_like(time)):
        audio = Audio(samples.astype(np.float32))
        recognition = run(recognizer, audio, (Span(0.0, audio.duration),), "en")
        check(recognition, audio.duration)
        assert len(recognition.words) < 60  # no endless loop


@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.05, 0.2])
def test_the_shortest_recordings_are_read(recognizer, call, seconds):
    audio = cut(call, 16.0, 16.0 + seconds)
    check(run(recognizer, audio, (Span(0.0, audio.duration),), "en"), audio.duration)


def test_speech_longer_than_the_models_window(recognizer, chosen, call):
    audio = Audio(np.concatenate([call.samples[14 * SAMPLE_RATE :], call.samples[14 * SAMPLE_RATE :]]))
    assert audio.duration > 30
    recognition = run(recognizer, audio, (Span(0.0, audio.duration),), "en")
    check(recognition, audio.duration)
    half = audio.duration / 2
    first = sum(word.span.start < half for word in recognition.words)
    assert 0 < first < len(recognition.words)
    if chosen.trained:
        assert 0.7 < first / (len(recognition.words) - first) < 1.4
        assert text(recognition).count("yankee") == 2


def test_speech_at_the_very_end_is_kept_within(recognizer, call):
    audio = cut(call, 0, 17.4)  # in the middle of a word
    recognition = run(recognizer, audio, (Span(14.4, audio.duration),), "en")
    check(recognition, audio.duration)
    assert recognition.words


def test_progress_never_falls_and_its_exceptions_are_propagated(recognizer, call, speech):
    reports: list[tuple[str, float]] = []
    run(recognizer, call, speech, "en", lambda *report: reports.append(report))
    assert {stage for stage, _ in reports} == {"recognition"}
    done = [fraction for _, fraction in reports]
    assert done == sorted(done)
    assert 0 <= done[0] <= done[-1] == 1.0

    def stop(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        run(recognizer, call, speech, "en", stop)


def test_it_says_which_languages_it_knows(recognizer, call, speech):
    assert "en" in recognizer.languages
    assert list(recognizer.languages) == sorted(recognizer.languages)
    assert run(recognizer, call, speech[:1], language=recognizer.languages[0]).language == recognizer.languages[0]


@pytest.fixture(scope="module")
def another(request: pytest.FixtureRequest, chosen: Implementation) -> Recognizer:
    """Load the same implementation again, as another machine does."""
    return chosen.load(request)


def test_a_chunk_that_another_machine_recognizes_is_the_same(recognizer, another, call, speech):
    """No samples are read further from the speech than ``RECOGNITION_REACH``."""
    middle = speech[len(speech) // 3 : -1]
    chunk = recognition_chunk(call, middle, "en")
    assert chunk.first_sample > SAMPLE_RATE
    assert chunk.stop_sample < len(call.samples)
    piece = Audio(call.samples[chunk.first_sample : chunk.stop_sample].copy())
    reports: list[tuple[str, float]] = []
    found = perform(Engine("contract", Mute(), another, ()), piece, chunk, lambda *report: reports.append(report))
    assert parse_recognition(found) == run(recognizer, call, middle, "en")
    assert reports[-1] == ("recognition", 1.0)


class Mute:
    """A diarizer that is never called: an engine needs one."""

    def diarize(self, audio, hints, progress):
        raise NotImplementedError
