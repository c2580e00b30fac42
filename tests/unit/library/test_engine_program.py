from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from diarist.errors import Cancelled, CorruptAudio, EngineUnavailable, InvalidOption
from diarist.library import loading
from diarist.library.engine_program import EngineProgram, _Forwarder, portable
from diarist.library.messages import Diarize, Ended, Failed, Load, LoadedModel, Logged, Message, Progressed, Transcribe
from diarist.protocols import Engine, Loaded
from diarist.settings import load_settings
from diarist.types import Diarization, ModelInfo, Recognition, RecognizedWord, Span, SpeakerHints, TranscribeOptions
from diarist.types import Turn as TurnOf
from support.audio_files import tone

MODELS = (ModelInfo("fake", "recognition", "MIT"),)


class FakeDiarizer:
    def diarize(self, audio, hints, progress):
        progress("segmentation", 0.5)
        return Diarization((TurnOf(Span(0.0, 1.0), "SPEAKER_00"),), np.ones((1, 2), dtype=np.float32), diarizer="fake")


class FakeRecognizer:
    languages = ("en",)

    def recognize(self, audio, speech, language, progress):
        progress("recognition", 0.5)
        return Recognition((RecognizedWord(" Hello.", Span(0.1, 0.9), 0.9),), "en", 1.0)


@pytest.fixture
def path(tmp_path) -> Path:
    import soundfile

    soundfile.write(tmp_path / "tone.wav", tone(2.0, 16_000), 16_000)
    return tmp_path / "tone.wav"


@pytest.fixture
def sent() -> list[Message]:
    return []


@pytest.fixture
def program(sent, monkeypatch) -> EngineProgram:
    engine = Engine("fake", FakeDiarizer(), FakeRecognizer(), MODELS)
    monkeypatch.setattr(loading, "load_engine", lambda *_, **__: engine)
    monkeypatch.setattr(loading, "load_diarizer", lambda *_, **__: Loaded(FakeDiarizer(), MODELS))
    made = EngineProgram(sent.append)
    made.perform(1, Load(load_settings(), offline=True, recognizes=True, log_level=logging.INFO))
    assert isinstance(sent[-1], Ended)
    assert sent[-1].result == LoadedModel(MODELS, "cpu", ("en",))
    sent.clear()
    return made


def test_a_request_is_answered_by_progress_utterances_and_a_result(program, sent, path):
    program.perform(2, Transcribe(path, TranscribeOptions()))
    kinds = [type(message).__name__ for message in sent]
    assert kinds.count("Ended") == 1
    assert kinds[-1] == "Ended"
    assert {"Progressed", "Finalized"} <= set(kinds)
    result = sent[-1].result
    assert [utterance.text for utterance in result.utterances] == ["Hello."]
    assert pickle.loads(pickle.dumps(sent[-1])).result.utterances == result.utterances


def test_turns_come_without_words(program, sent, path):
    program.perform(2, Diarize(path, SpeakerHints()))
    assert isinstance(sent[-1], Ended)
    assert sent[-1].result.duration == 2.0
    assert [message.done for message in sent if isinstance(message, Progressed)][-1] == 1.0


def test_a_request_is_canceled_by_its_number_only(program, sent, path):
    program.cancel(2)
    program.perform(3, Diarize(path, SpeakerHints()))
    assert isinstance(sent[-1], Ended)
    program.cancel(4)
    program.perform(4, Diarize(path, SpeakerHints()))
    assert isinstance(sent[-1], Failed)
    assert isinstance(sent[-1].error, Cancelled)
    program.perform(5, Diarize(path, SpeakerHints()))
    assert isinstance(sent[-1], Ended)


def test_an_error_is_an_answer(program, sent, tmp_path):
    program.perform(2, Diarize(tmp_path / "none.wav", SpeakerHints()))
    assert isinstance(sent[-1], Failed)
    assert isinstance(sent[-1].error, FileNotFoundError)


def test_a_diarizer_alone_is_enough_for_turns(monkeypatch, sent, path):
    monkeypatch.setattr(loading, "load_diarizer", lambda *_, **__: Loaded(FakeDiarizer(), MODELS, "cuda:0"))
    program = EngineProgram(sent.append)
    program.perform(1, Load(load_settings(), offline=True, recognizes=False, log_level=logging.INFO))
    assert sent[-1].result == LoadedModel(MODELS, "cuda:0", ())
    program.perform(2, Diarize(path, SpeakerHints()))
    assert isinstance(sent[-1], Ended)


class Unpicklable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


@pytest.mark.parametrize(
    "error",
    [
        CorruptAudio("it ends after 2 s"),
        InvalidOption("language"),
        EngineUnavailable("no memory in /opt/models", public="no memory"),
        FileNotFoundError(2, "No such file or directory", "meeting.wav"),
        KeyError("lost"),
    ],
)
def test_errors_keep_their_type_and_message(error):
    received = pickle.loads(pickle.dumps(portable(error)))
    assert type(received) is type(error)
    assert str(received) == str(error)
    assert getattr(received, "public_message", None) == getattr(error, "public_message", None)


def test_an_unexpected_error_carries_its_traceback():
    with pytest.raises(ZeroDivisionError) as raised:
        1 / 0  # noqa: B018
    (note,) = pickle.loads(pickle.dumps(portable(raised.value))).__notes__
    assert "test_engine_program.py" in note
    assert not getattr(portable(CorruptAudio("expected")), "__notes__", [])


def test_an_error_that_cannot_be_pickled_is_described():
    received = portable(Unpicklable(1, 2))
    assert isinstance(received, RuntimeError)
    assert str(received) == "Unpicklable: 1 and 2"
    assert received.__notes__


def test_log_records_are_passed_on(sent):
    logger, handler = logging.getLogger("diarist.test"), _Forwarder(sent.append)
    logger.addHandler(handler)
    try:
        int("inner")
    except ValueError:
        logger.exception("%d of %s", 3, Path("a"), extra={"job": "j1", "thing": object()})
    finally:
        logger.removeHandler(handler)
    (message,) = sent
    assert isinstance(message, Logged)
    record = logging.makeLogRecord(pickle.loads(pickle.dumps(message)).record)
    assert (record.getMessage(), record.levelno, record.name) == ("3 of a", logging.ERROR, "diarist.test")
    assert "ValueError: invalid literal" in record.exc_text
    assert record.job == "j1"
