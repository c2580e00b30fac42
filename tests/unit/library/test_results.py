from __future__ import annotations

import json

import numpy as np
import pytest

from diarist import Diarization, Transcript
from diarist.errors import InvalidOption
from diarist.formats import FORMATS, render, rttm
from diarist.pipeline.diarization import DiarizedRecording
from diarist.types import Diarization as Turns
from diarist.types import Span, Timing, Turn, Utterance, Word
from diarist.types import Transcript as PlainTranscript

WORDS = (
    Word(" Hello", Span(1.0, 1.4), "SPEAKER_00", 0.9, 0.8),
    Word(" there.", Span(1.5, 2.0), "SPEAKER_00", 0.7, 0.8),
    Word(" Grüß Gott!", Span(3.0, 3.5), "SPEAKER_01", 0.5, 0.8),
)
TURNS = (Turn(Span(0.9, 2.1), "SPEAKER_00"), Turn(Span(2.9, 3.6), "SPEAKER_01"))
PLAIN = PlainTranscript(
    utterances=(Utterance(WORDS[:2]), Utterance(WORDS[2:])),
    diarization=Turns(TURNS, np.ones((2, 3), dtype=np.float32), diarizer="guess"),
    duration=4.0,
    language="en",
    language_probability=0.9,
    engine="fake",
    timings=(Timing("decode", 0.1),),
    warnings=("The recording is short.",),
)
TRANSCRIPT = Transcript.of(PLAIN)
DIARIZATION = Diarization.of(DiarizedRecording(PLAIN.diarization, 4.0, ("The recording is short.",)))


def test_a_transcript_has_what_users_ask_for():
    first, second = TRANSCRIPT.utterances
    assert (first.speaker, first.start, first.end, first.text) == ("SPEAKER_00", 1.0, 2.0, "Hello there.")
    assert first.confidence == pytest.approx(0.8)
    assert (second.words[0].start, second.words[0].end, second.words[0].speaker) == (3.0, 3.5, "SPEAKER_01")
    assert TRANSCRIPT.text == "Hello there.\nGrüß Gott!"
    assert TRANSCRIPT.words == WORDS
    assert TRANSCRIPT.turns == TURNS
    assert (TRANSCRIPT.turns[0].start, TRANSCRIPT.turns[0].end) == (0.9, 2.1)
    assert TRANSCRIPT.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert (TRANSCRIPT.duration, TRANSCRIPT.language) == (4.0, "en")
    assert TRANSCRIPT.warnings == ("The recording is short.",)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_what_the_service_writes(name, tmp_path):
    expected = render(PLAIN, name, recording="meeting")
    assert TRANSCRIPT.render(name, recording="meeting") == expected
    TRANSCRIPT.save(tmp_path / f"meeting.{name.upper()}")
    assert (tmp_path / f"meeting.{name.upper()}").read_bytes() == expected.encode()
    TRANSCRIPT.save(str(tmp_path / "meeting"), name)
    assert (tmp_path / "meeting").read_bytes() == expected.encode()


def test_each_format_has_a_method():
    assert TRANSCRIPT.to_json() == TRANSCRIPT.render("json")
    assert TRANSCRIPT.to_json(words=True, details=True) == render(PLAIN, "json", recording="", words=True, details=True)
    assert TRANSCRIPT.to_dict(words=True) == json.loads(TRANSCRIPT.to_json(words=True))
    assert TRANSCRIPT.to_txt() == TRANSCRIPT.render("txt")
    assert TRANSCRIPT.to_srt(subtitle_preset="bbc") == TRANSCRIPT.render("srt", subtitle_preset="bbc")
    assert TRANSCRIPT.to_vtt() == TRANSCRIPT.render("vtt")
    assert rttm.parse(TRANSCRIPT.to_rttm("meeting"), "meeting") == TURNS


def test_names_and_subtitle_options_are_those_of_the_command_line():
    text = TRANSCRIPT.to_txt(speaker_names=["Anna", "Ben"])
    assert text == "[00:00:01.000] Anna: Hello there.\n[00:00:03.000] Ben: Grüß Gott!\n"
    assert "SPEAKER_01 <NA>" in TRANSCRIPT.to_rttm(speaker_names=("Anna",))
    assert "Anna" not in TRANSCRIPT.render("srt", speaker_names=["Anna"], subtitle_options={"labels": "never"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "docx"}, "format must be one of"),
        ({"format": "srt", "subtitle_preset": "imax"}, "subtitle_preset"),
        ({"format": "srt", "subtitle_options": {"max_chars": 3}}, "subtitle_max_chars"),
        ({"format": "srt", "subtitle_options": {"color": "red"}}, "color"),
        ({"format": "txt", "speaker_names": "Anna,Ben"}, "list of names"),
        ({"format": "txt", "speaker_names": ["Anna", "Anna"]}, "twice"),
        ({"format": "txt", "speaker_names": ["Anna", ""]}, "empty"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    with pytest.raises(InvalidOption, match=message):
        TRANSCRIPT.render(**arguments)


@pytest.mark.parametrize("name", ["meeting", "meeting.docx", ".srt", "meeting."])
def test_an_extension_that_is_no_format_is_refused(name, tmp_path):
    with pytest.raises(InvalidOption, match="extension"):
        TRANSCRIPT.save(tmp_path / name)
    with pytest.raises(InvalidOption, match="extension"):
        DIARIZATION.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_diarization_has_turns_and_no_words(tmp_path):
    assert DIARIZATION.turns == TURNS
    assert DIARIZATION.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert (DIARIZATION.duration, DIARIZATION.diarizer, DIARIZATION.embeddings.shape) == (4.0, "guess", (2, 3))
    assert rttm.parse(DIARIZATION.to_rttm()) == TURNS
    assert DIARIZATION.to_dict() == json.loads(DIARIZATION.to_json())
    assert DIARIZATION.to_dict()["turns"][1] == {"speaker": "SPEAKER_01", "start_time": 2.9, "end_time": 3.6}
    DIARIZATION.save(tmp_path / "meeting.rttm")
    assert (tmp_path / "meeting.rttm").read_text() == DIARIZATION.to_rttm("meeting")
    DIARIZATION.save(tmp_path / "turns", "json")
    assert json.loads((tmp_path / "turns").read_text()) == DIARIZATION.to_dict()
    with pytest.raises(InvalidOption, match="rttm or json"):
        DIARIZATION.save(tmp_path / "meeting.srt", "srt")
