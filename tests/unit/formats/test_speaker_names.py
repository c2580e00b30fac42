"""Names of speakers in place of labels, in every format."""

from __future__ import annotations

import json

import pysrt
import pytest
import webvtt

from diarist.errors import InvalidOption
from diarist.formats import FORMATS, Extras, render, rttm
from diarist.formats.speaker_names import parse_speaker_names, unused_names_warning, with_speaker_names
from diarist.types import Diarization, Span, Transcript, Turn, Utterance, Word


def said(speaker: str, start: float, text: str = "Hello.") -> Utterance:
    return Utterance((Word(f" {text}", Span(start, start + 1.0), speaker, 0.9, 0.8),))


CALL = Transcript(
    utterances=(said("SPEAKER_00", 0.0), said("SPEAKER_01", 2.0), said("SPEAKER_00", 4.0)),
    # The third speaker has turns first, but no recognized word.
    diarization=Diarization(
        (
            Turn(Span(0.0, 0.5), "SPEAKER_02"),
            Turn(Span(0.0, 1.0), "SPEAKER_00"),
            Turn(Span(2.0, 3.0), "SPEAKER_01"),
            Turn(Span(4.0, 5.0), "SPEAKER_00"),
        )
    ),
    duration=6.0,
    language="en",
    language_probability=0.9,
    engine="embedded",
    timings=(),
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Anna,Ben", ("Anna", "Ben")),
        (" Anna ,  Ben\t", ("Anna", "Ben")),
        ('"Li, Wei", Ben', ("Li, Wei", "Ben")),
        ('"Ann ""Annie"" Lee"', ('Ann "Annie" Lee',)),
        ("Dr.\u00a0Özil\nMüller,王", ("Dr. Özil Müller", "王")),
        ("Anna,anna", ("Anna", "anna")),
        ("SPEAKER_00,Ben", ("SPEAKER_00", "Ben")),
        (",".join(f"n{i}" for i in range(100)), tuple(f"n{i}" for i in range(100))),
    ],
)
def test_names_are_a_line_of_csv(text, names):
    assert parse_speaker_names(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name 1 is empty"),
        ("Anna,,Ben", "name 2 is empty"),
        ("Anna,", "name 2 is empty"),
        ('Anna," "', "name 2 is empty"),
        ("Anna,Ben, Anna", "'Anna' is given twice"),
        ('"Anna', "separated by commas"),
        ('"Anna"x,Ben', "separated by commas"),
        ("SPEAKER_01,Ben", "label of another speaker"),
        ("x" * 101, "101 characters"),
        (",".join(f"n{i}" for i in range(101)), "101 speaker names"),
    ],
)
def test_invalid_names(text, message):
    with pytest.raises(InvalidOption, match=message):
        parse_speaker_names(text)


def test_names_follow_the_order_in_which_speakers_first_speak():
    named = with_speaker_names(CALL, ("Anna", "Ben", "Carl"))
    assert named.speakers == ("Anna", "Ben", "Carl")
    assert [each.speaker for each in named.utterances] == ["Anna", "Ben", "Anna"]
    assert [word.speaker for word in named.words] == ["Anna", "Ben", "Anna"]
    assert [turn.speaker for turn in named.diarization.turns] == ["Carl", "Anna", "Ben", "Anna"]
    assert named.warnings == ()


def test_speakers_without_a_name_keep_their_labels():
    assert with_speaker_names(CALL, ("Anna",)).speakers == ("Anna", "SPEAKER_01", "SPEAKER_02")
    assert with_speaker_names(CALL, ()) is CALL


def test_names_without_a_speaker_are_a_warning():
    names = ("Anna", "Ben", "Carl", "Dora", "Eve")
    warning = "The recording has 3 speakers, so these speaker names are not used: Dora, Eve."
    assert unused_names_warning(CALL, names) == warning
    assert with_speaker_names(CALL, names).warnings == (warning,)
    assert unused_names_warning(CALL, names[:3]) is None


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_contains_the_names(format_):
    text = render(CALL, format_, recording="call", speaker_names=("Anna Schmidt", "Ben <b> & -->", "Carl"))
    assert "SPEAKER_0" not in text
    assert text == FORMATS[format_].render(
        CALL, "call", Extras(speaker_names=("Anna Schmidt", "Ben <b> & -->", "Carl"))
    )
    match format_:
        case "json":
            assert [each["speaker"] for each in json.loads(text)["conversation"]] == [
                "Anna Schmidt", "Ben <b> & -->", "Anna Schmidt",
            ]  # fmt: skip
        case "txt":
            assert text.splitlines()[0] == "[00:00:00.000] Anna Schmidt: Hello."
        case "srt":
            assert [cue.text for cue in pysrt.from_string(text)][:2] == ["Anna Schmidt: Hello.", "Ben <b> & →: Hello."]
        case "vtt":
            assert next(cue.voice for cue in webvtt.from_string(text)) == "Anna Schmidt"
            assert "<v Ben &lt;b&gt; &amp; --&gt;>Hello." in text
        case "rttm":
            speakers = {turn.speaker for turn in rttm.parse(text)}
            assert speakers == {"Anna_Schmidt", "Ben_<b>_&_-->", "Carl"}
            assert all(len(line.split()) == 10 for line in text.splitlines())


def test_rttm_keeps_names_apart_that_differ_only_in_white_space():
    text = render(CALL, "rttm", recording="call", speaker_names=("Anna Lee", "Anna_Lee"))
    assert {turn.speaker for turn in rttm.parse(text)} == {"Anna_Lee", "Anna_Lee_2", "SPEAKER_02"}
