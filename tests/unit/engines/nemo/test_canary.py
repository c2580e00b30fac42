"""Canary: times that are written between the words.

Random weights write one piece for ever; where words are needed, the writing is replaced and all else is real.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import soundfile

from diarist.engines.word_timestamps import Token
from diarist.errors import ConfigurationError, InvalidOption
from diarist.types import Audio, Span

pytestmark = pytest.mark.nemo

TIMES = {100 + frame: frame * 0.08 for frame in range(50)}


def between(*pieces):
    from diarist.engines.nemo.canary import assign_timestamps

    return assign_timestamps(pieces, [0.5] * len(pieces), TIMES, 0.08)


def test_pieces_get_the_times_around_them():
    assert between(110, 1, 2, 115, 120, 3, 121) == [
        Token(1, 0.8, 1.2, 0.5),
        Token(2, 0.8, 1.2, 0.5),
        Token(3, 1.6, pytest.approx(1.68), 0.5),
    ]


def test_a_time_that_is_missing():
    assert between(1, 110, 2) == [Token(1, 0.0, 0.8, 0.5), Token(2, 0.8, pytest.approx(0.88), 0.5)]
    assert between(1) == [Token(1, 0.0, 0.08, 0.5)]
    assert between() == []
    assert between(110, 120) == []


def test_times_never_fall():
    found = between(120, 1, 110, 105, 2, 130)
    assert [token.start for token in found] == [1.6, 1.6]
    assert [token.end for token in found] == pytest.approx([1.68, 2.4])


@pytest.fixture(scope="module")
def recognizer(nemo_models, nemo_settings):
    from diarist.engines.nemo.recognizer import load

    settings = nemo_settings.model_copy(update={"nemo_asr_model": str(nemo_models["canary"]), "cpu_threads": 1})
    return load(settings).part


@pytest.fixture(scope="module")
def call(sample_recording) -> Audio:
    samples, _ = soundfile.read(sample_recording, dtype="float32")
    return Audio(samples)


def run(recognizer, audio, speech, language=None):
    return recognizer.recognize(audio, speech, language, lambda *_: None)


WRITTEN = "<|4|>the<|7|><|7|>cat<|12|><|25|>sat<|31|>"


@pytest.fixture
def writing(recognizer, monkeypatch):
    """The model writes ``WRITTEN`` to every window; gives what it was asked."""
    import torch

    model = recognizer._decoder._model
    tokenizer = model.tokenizer
    pieces = []
    for time, word in re.findall(r"(<\|\d+\|>)(\w*)", WRITTEN):
        pieces += [tokenizer.special_tokens[time], *tokenizer.text_to_ids(word, "en")]
    asked = []

    def write(*, encoder_hidden_states, encoder_input_mask, decoder_input_ids):
        assert encoder_hidden_states.shape[:2] == encoder_input_mask.shape
        asked.extend(tokenizer.ids_to_tokens(row.tolist()) for row in decoder_input_ids)
        sure = torch.linspace(0.5, 1.0, len(pieces))
        return ([SimpleNamespace(y_sequence=torch.tensor(pieces), token_confidence=sure) for _ in decoder_input_ids],)

    monkeypatch.setattr(model.decoding, "decoding", write)
    return SimpleNamespace(pieces=pieces, asked=asked)


def test_words_have_the_times_that_are_written(recognizer, writing, call):
    words = run(recognizer, call, (Span(2.3, 6.0), Span(14.3, 18.0))).words
    assert [word.text for word in words] == [" the", " cat", " sat"] * 2
    times = [at + start * 0.08 for at in (2.0, 14.0) for start in (4, 7, 25)]
    assert [word.span.start for word in words] == pytest.approx(times)
    times = [at + end * 0.08 for at in (2.0, 14.0) for end in (7, 12, 31)]
    assert [word.span.end for word in words] == pytest.approx(times)
    assert all(0.5 < word.confidence < 1.0 for word in words)


def test_they_are_those_that_nemo_reads(recognizer, writing, call):
    from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
    from nemo.collections.asr.parts.utils.timestamp_utils import process_aed_timestamp_outputs

    text = recognizer._decoder._model.tokenizer.ids_to_text(writing.pieces)
    (hypothesis,) = process_aed_timestamp_outputs([Hypothesis(0.0, writing.pieces, text=text)], 8, 0.01)
    expected = hypothesis.timestamp["word"]
    words = run(recognizer, call.cut(Span(14.0, 18.0)), (Span(0.0, 4.0),)).words
    assert [word.text.strip() for word in words] == [word["word"] for word in expected]
    assert [word.span.start for word in words] == pytest.approx([word["start"] for word in expected])
    assert [word.span.end for word in words] == pytest.approx([word["end"] for word in expected])


def test_the_model_is_told_the_language_and_asked_for_times(recognizer, writing, call):
    assert recognizer.languages == ("en",)
    recognition = run(recognizer, call, (Span(14.3, 18.0),))
    assert recognition.language == "en"
    (asked,) = writing.asked
    assert asked.count("<|en|>") == 2  # that of the speech and that of the text: no translation
    assert "<|timestamp|>" in asked
    with pytest.raises(InvalidOption, match="en"):
        run(recognizer, call, (Span(14.3, 18.0),), "de")


def test_real_writing_ends_and_leaves_the_model_as_it_was(recognizer, call):
    model = recognizer._decoder._model
    speech = (Span(2.0, 4.0), Span(14.0, 18.0))
    first = run(recognizer, call, speech)
    assert not any(module.training for module in model.modules())
    assert run(recognizer, call, speech) == first
    assert all(0.0 <= word.span.start < word.span.end <= call.duration for word in first.words)


def test_a_model_without_times_is_refused_when_it_is_loaded(nemo_models):
    from nemo.collections.asr.models import EncDecMultiTaskModel

    from diarist.engines.nemo.decoders import decoder_for

    model = EncDecMultiTaskModel.restore_from(str(nemo_models["canary"]), map_location="cpu")
    model.prompt_format = "canary"
    with pytest.raises(ConfigurationError, match=r"canary-1b does not output word timestamps.*parakeet"):
        decoder_for(model, "canary-1b")
