"""What every ``Recognizer`` must do. A new implementation adds a line to ``LOADERS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import pytest
import soundfile

import recordings
from diarist.attribution import speech_of
from diarist.errors import Cancelled, InvalidOption
from diarist.protocols import Recognizer
from diarist.types import SAMPLE_RATE, Audio, Recognition, Span


def embedded() -> Recognizer:
    from diarist.engines.embedded.recognizer import WhisperRecognizer
    from diarist.models import ModelStore
    from diarist.settings import load_settings

    settings = load_settings()
    return WhisperRecognizer(ModelStore.of(settings).locate(f"whisper-{settings.whisper_model}"), settings.threads)


LOADERS: Mapping[str, Callable[[], Recognizer]] = {"embedded": embedded}

pytestmark = pytest.mark.models


@pytest.fixture(scope="module", params=LOADERS)
def recognizer(request: pytest.FixtureRequest, model_store: object) -> Recognizer:
    return LOADERS[request.param]()


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, rate = soundfile.read(sample_recording, dtype="float32")
    assert rate == SAMPLE_RATE
    return Audio(samples)


@pytest.fixture(scope="module")
def speech(sample_rttm) -> tuple[Span, ...]:
    return speech_of(recordings.read_rttm(sample_rttm))


@pytest.fixture(scope="module")
def recognized(recognizer, call, speech) -> Recognition:
    return run(recognizer, call, speech)


def run(recognizer, audio, speech, language=None, progress=lambda _stage, _done: None) -> Recognition:
    return recognizer.recognize(audio, speech, language, progress)


def check(recognition: Recognition, duration: float) -> None:
    """All that holds for any recording."""
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
    assert len(recognized.words) > 40
    assert "originally from chicago" in text(recognized)


def test_words_lie_where_they_are_said(recognized, speech):
    """Half a second of grace, for the ends of words are soft."""
    grown = [Span(max(span.start - 0.5, 0), span.end + 0.5) for span in speech]
    inside = [any(span.start <= word.span.middle <= span.end for span in grown) for word in recognized.words]
    assert np.mean(inside) > 0.95
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
    assert "sheila" in text(recognition)
    assert "hello" not in text(recognition)
    assert all(word.span.start > 13.5 and word.span.end < 18.8 for word in recognition.words)


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


def test_what_was_taken_for_speech_and_is_none_does_no_harm(recognizer):
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


def test_a_stretch_longer_than_the_model_hears_at_once(recognizer, call):
    audio = Audio(np.concatenate([call.samples[14 * SAMPLE_RATE :], call.samples[14 * SAMPLE_RATE :]]))
    assert audio.duration > 30
    recognition = run(recognizer, audio, (Span(0.0, audio.duration),), "en")
    check(recognition, audio.duration)
    half = audio.duration / 2
    first = sum(word.span.start < half for word in recognition.words)
    assert 0.7 < first / (len(recognition.words) - first) < 1.4
    assert text(recognition).count("yankee") == 2


def test_speech_at_the_very_end_is_kept_within(recognizer, call):
    audio = cut(call, 0, 17.4)  # in the middle of a word
    recognition = run(recognizer, audio, (Span(14.4, audio.duration),), "en")
    check(recognition, audio.duration)
    assert recognition.words


def test_progress_never_falls_and_what_it_raises_goes_through(recognizer, call, speech):
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
