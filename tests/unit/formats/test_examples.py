"""Exact examples of every format."""

from __future__ import annotations

import math

import pytest
import webvtt

from diarist.channels import ChannelChoice
from diarist.errors import InvalidOption
from diarist.formats import render, rttm
from diarist.formats.cues import subtitles
from diarist.formats.single_line import one_line
from diarist.formats.timestamps import clock, milliseconds
from diarist.tracks import AudioTracks, Truncation
from diarist.types import Diarization, Span, Timing, Transcript, Turn, Utterance, Word


def utterance(text: str, start: float = 0.0, speaker: str = "SPEAKER_00", step: float = 0.4) -> Utterance:
    """Words of 0.3 s, one every ``step`` seconds."""
    return Utterance(
        tuple(
            Word(f" {word}", Span(start + i * step, start + i * step + 0.3), speaker, 0.9, 0.8)
            for i, word in enumerate(text.split(" "))
        )
    )


def transcript(*utterances: Utterance, turns: tuple[Turn, ...] = (), duration: float = 60.0) -> Transcript:
    return Transcript(
        utterances=utterances,
        diarization=Diarization(turns),
        duration=duration,
        language="en",
        language_probability=0.99,
        engine="embedded",
        timings=(),
    )


CALL = transcript(
    utterance("Hello?", 6.69),
    utterance("Who's there & why?", 7.25004, "SPEAKER_01"),
    turns=(Turn(Span(6.69, 7.12), "SPEAKER_00"), Turn(Span(7.0999, 8.8), "SPEAKER_01")),
)


def test_json():
    assert render(CALL, "json", recording="call") == (
        '{"conversation": [\n'
        '  {"speaker": "SPEAKER_00", "start_time": 6.69, "end_time": 6.99, "text": "Hello?"},\n'
        '  {"speaker": "SPEAKER_01", "start_time": 7.25, "end_time": 8.75, "text": "Who\'s there & why?"}\n'
        "]}\n"
    )


def test_json_words():
    assert render(transcript(utterance("Hello you", 1.0)), "json", recording="call", words=True) == (
        '{"conversation": [\n'
        '  {"speaker": "SPEAKER_00", "start_time": 1.0, "end_time": 1.7, "text": "Hello you", "words": ['
        '{"text": "Hello", "start_time": 1.0, "end_time": 1.3, "confidence": 0.9, "speaker_confidence": 0.8}, '
        '{"text": " you", "start_time": 1.4, "end_time": 1.7, "confidence": 0.9, "speaker_confidence": 0.8}]}\n'
        "]}\n"
    )


def test_json_details():
    done = Transcript(
        utterances=(utterance("Hello?", 6.69),),
        diarization=Diarization(
            (Turn(Span(6.69, 7.12), "SPEAKER_00"), Turn(Span(8, 9), "SPEAKER_01")), diarizer="auto"
        ),
        duration=60.0004,
        language="en",
        language_probability=math.nan,
        engine="nemo",
        timings=(Timing("decode", 0.12345),),
        recognizer='a "model"',
        device="cuda:1 (NVIDIA H200)",
        speakers_confidence=0.9416,
        warnings=("Audio track 1 is silent.",),
        channels=ChannelChoice("auto", "separate", "crosstalk"),
        audio_tracks=AudioTracks((2, 3), 4),
        truncation=Truncation(60.00049, 120.0),
    )
    assert render(done, "json", recording="call", details=True) == (
        '{"conversation": [\n'
        '  {"speaker": "SPEAKER_00", "start_time": 6.69, "end_time": 6.99, "text": "Hello?"}\n'
        "],\n"
        ' "duration": 60.0,\n'
        ' "language": "en",\n'
        ' "language_probability": null,\n'
        ' "speakers": ["SPEAKER_00", "SPEAKER_01"],\n'
        ' "speakers_confidence": 0.942,\n'
        ' "engine": "nemo",\n'
        ' "diarizer": "auto",\n'
        ' "recognizer": "a \\"model\\"",\n'
        ' "device": "cuda:1 (NVIDIA H200)",\n'
        ' "channels": {"requested": "auto", "used": "separate", "reason": "crosstalk"},\n'
        ' "audio_tracks": {"used": [2, 3], "count": 4},\n'
        ' "truncation": {"available": 60.0, "stated": 120.0},\n'
        ' "warnings": ["Audio track 1 is silent."],\n'
        ' "timings": [{"stage": "decode", "seconds": 0.123}]}\n'
    )


def test_json_keeps_letters_as_they_are_and_knows_no_nan():
    word = Word(" 今日は…", Span(0, 1), "SPEAKER_00", math.nan, math.inf)
    written = render(transcript(Utterance((word,))), "json", recording="r", words=True)
    assert '"text": "今日は…"' in written
    assert '"confidence": null, "speaker_confidence": null' in written


def test_txt():
    assert render(CALL, "txt", recording="call") == (
        "[00:00:06.690] SPEAKER_00: Hello?\n[00:00:07.250] SPEAKER_01: Who's there & why?\n"
    )


def test_srt():
    assert render(CALL, "srt", recording="call") == (
        "1\n00:00:06,690 --> 00:00:07,170\nSPEAKER_00: Hello?\n\n"
        "2\n00:00:07,250 --> 00:00:08,750\nSPEAKER_01: Who's there & why?\n\n"
    )


def test_vtt():
    assert render(CALL, "vtt", recording="call") == (
        "WEBVTT\n\n"
        "00:00:06.690 --> 00:00:07.170\n<v SPEAKER_00>Hello?\n\n"
        "00:00:07.250 --> 00:00:08.750\n<v SPEAKER_01>Who's there &amp; why?\n"
    )


def test_rttm_has_the_overlap():
    assert render(CALL, "rttm", recording="call") == (
        "SPEAKER call 1 6.690 0.430 <NA> <NA> SPEAKER_00 <NA> <NA>\n"
        "SPEAKER call 1 7.100 1.700 <NA> <NA> SPEAKER_01 <NA> <NA>\n"
    )


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("two words", "two_words"),
        ("a\nSPEAKER b 1 0 9", "a_SPEAKER_b_1_0_9"),
        ("tab\tand\x00nul\x1b[31m", "tab_andnul[31m"),
        ("\u2028no\u00a0break", "no_break"),
        ("\udcff broken", "broken"),
        ("", "_"),
        (" ", "_"),
        ("наша встреча", "наша_встреча"),
    ],
)
def test_rttm_makes_the_recordings_name_one_field(name, field):
    lines = render(CALL, "rttm", recording=name).splitlines()
    assert len(lines) == 2
    assert [line.split()[1] for line in lines] == [field, field]
    assert all(len(line.split()) == 10 for line in lines)


def test_rttm_keeps_speakers_apart_whose_names_hold_white_space():
    turns = tuple(Turn(Span(i, i + 1), name) for i, name in enumerate(("Anna B", "Anna_B", "Anna\tB", "")))
    read = rttm.parse(rttm.render(transcript(turns=turns), "r"))
    assert [turn.speaker for turn in read] == ["Anna_B_2", "Anna_B", "Anna_B_3", "_"]


def test_rttm_of_others_is_read():
    text = (
        ";; a comment\n"
        "SPKR-INFO meeting 1 <NA> <NA> <NA> unknown A <NA> <NA>\n\n"
        "SPEAKER meeting 1 6.69 0.1 <NA> <NA> B <NA>\r\n"
        "SPEAKER  meeting  1  0.0000 2.12345  <NA> <NA>  A  <NA>  <NA>\n"
    )
    assert rttm.parse(text) == (Turn(Span(0.0, 2.12345), "A"), Turn(Span(6.69, 6.79), "B"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\nSPEAKER r 1 0.0 1.0\n", "line 2 .* 5 fields"),
        ("SPEAKER r 1 0.0 -1.0 <NA> <NA> A <NA> <NA>", "line 1 .* '-1.0'"),
        ("SPEAKER r 1 zero 1.0 <NA> <NA> A <NA> <NA>", "line 1 .* 'zero'"),
        ("SPEAKER r 1 nan 1.0 <NA> <NA> A <NA> <NA>", "line 1 .* 'nan'"),
        ("SPEAKER r 1 0 inf <NA> <NA> A <NA> <NA>", "line 1 .* 'inf'"),
    ],
)
def test_rttm_that_cannot_be_read_is_refused_by_line(text, words):
    with pytest.raises(InvalidOption, match=words):
        rttm.parse(text)


def test_rttm_of_several_recordings_needs_a_choice():
    text = "SPEAKER a 1 0 1 <NA> <NA> X <NA> <NA>\nSPEAKER b 1 2 1 <NA> <NA> Y <NA> <NA>\n"
    with pytest.raises(InvalidOption, match="choose one of a, b"):
        rttm.parse(text)
    assert rttm.parse(text, "b") == (Turn(Span(2, 3), "Y"),)
    assert rttm.parse(text, "c") == ()


@pytest.mark.shared
def test_real_rttm_comes_back_letter_by_letter(shared_data):
    files = sorted(shared_data.glob("ami/*.rttm"))
    assert files
    for file in files:
        written = rttm.render(transcript(turns=rttm.parse(file.read_text())), file.stem)
        assert sorted(written.split("\n")) == sorted(file.read_text().split("\n"))


def test_vtt_cannot_be_broken_out_of():
    text = "--> <b>bold</b> & </v><v OTHER>x &lt; \n\nSTYLE\n::cue{}"
    word = Word(text, Span(1, 2), "A <b>&\n\nB", 0.9, 0.9)
    written = render(transcript(Utterance((word,))), "vtt", recording="r")
    assert written == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:03.550\n<v A &lt;b&gt;&amp; B>"
        "--&gt; &lt;b&gt;bold&lt;/b&gt; &amp; &lt;/v&gt;&lt;v\nOTHER&gt;x &amp;lt; STYLE ::cue{}\n"
    )
    assert len(webvtt.from_string(written).captions) == 1


def test_srt_has_no_arrow_and_no_blank_line_within_a_cue():
    word = Word("a\n\n2\n00:00:01,000 --> 00:00:02,000\r\n\r\nforged", Span(1, 2), "S\n\nT", 0.9, 0.9)
    written = render(transcript(Utterance((word,))), "srt", recording="r")
    assert written == ("1\n00:00:01,000 --> 00:00:03,250\nS T: a 2 00:00:01,000\n→ 00:00:02,000 forged\n\n")


def test_an_arrow_made_of_two_words_is_escaped_too():
    said = Utterance((Word(" --", Span(0, 1), "A", 1, 1), Word(">", Span(1, 2), "A", 1, 1)))
    assert render(transcript(said), "srt", recording="r").endswith("\nA: →\n\n")


def test_words_that_show_nothing_leave_no_cue_and_no_line():
    blank = Utterance((Word(" \n", Span(0, 1), "SPEAKER_00", 1, 1), Word("\x00\u202e", Span(1, 2), "SPEAKER_00", 1, 1)))
    assert render(transcript(blank), "srt", recording="r") == ""
    assert render(transcript(blank), "txt", recording="r") == ""
    assert render(transcript(blank), "vtt", recording="r") == "WEBVTT\n"


def test_cues_break_at_the_ends_of_sentences():
    said = utterance(
        "Good morning everyone, and thank you for coming to this meeting. As you know, we're here to talk about "
        "the new remote control, which should be original, trendy and user-friendly. Yes.",
        step=0.35,
    )
    assert [cue.lines for cue in subtitles(transcript(said), label=lambda speaker: f"{speaker}:")] == [
        ("SPEAKER_00: Good morning everyone,", "and thank you for coming to this meeting."),
        ("SPEAKER_00: As you know, we're here", "to talk about the new remote control,"),
        ("SPEAKER_00: which should be original,", "trendy and user-friendly. Yes."),
    ]


def test_a_long_pause_parts_cues():
    words = (*utterance("So the price is", 0).words, *utterance("twenty five euros.", 9.0).words)
    cues = subtitles(transcript(Utterance(words)))
    assert [(cue.start_ms, cue.end_ms, cue.lines) for cue in cues] == [
        (0, 1500, ("So the price is",)),
        (9000, 10100, ("twenty five euros.",)),
    ]


def test_slow_speech_is_divided_by_time():
    cues = subtitles(transcript(utterance("one two three four five six seven eight nine ten", step=1.3)))
    assert [cue.lines for cue in cues] == [("one two three four five six",), ("seven eight nine ten",)]
    assert all(cue.end_ms - cue.start_ms <= 7000 for cue in cues)


def test_a_word_without_duration_is_shown_long_enough_but_not_past_the_next_cue_or_the_end():
    def word(at: float, speaker: str) -> Utterance:
        return Utterance((Word(" Yes.", Span(at, at), speaker, 1, 1),))

    cues = subtitles(transcript(word(1, "A"), word(5, "B"), word(5.4, "A"), word(59.8, "B"), word(60, "A")))
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [
        (1000, 2000), (5000, 5320), (5400, 6400), (59800, 60000), (60000, 60001),
    ]  # fmt: skip


def test_wide_letters_take_two_columns_and_need_no_spaces():
    text = (
        "私たちは新しいリモコンについて話し合うためにここに集まりました。最初に自己紹介をして、それから計画を話します。"
    )
    words = tuple(Word(c, Span(i * 0.15, i * 0.15 + 0.15), "S", 1, 1) for i, c in enumerate(text))
    cues = subtitles(transcript(Utterance(words)))
    assert "".join(line for cue in cues for line in cue.lines) == text
    assert cues[0].lines[-1].endswith("ました。")
    assert all(len(line) <= 21 for cue in cues for line in cue.lines)


def test_overlapping_utterances_give_cues_in_order_of_start():
    long = utterance(" ".join(["word,"] * 40), 0.0, "A")
    cues = subtitles(transcript(long, utterance("Stop.", 3.0, "B")))
    starts = [cue.start_ms for cue in cues]
    assert starts == sorted(starts)
    assert {cue.parts[0].speaker for cue in cues} == {"A", "B"}


@pytest.mark.parametrize(
    ("time", "expected"), [(0.0, 0), (-0.0001, 0), (1.0004, 1000), (1.0006, 1001), (3599.9996, 3_600_000)]
)
def test_milliseconds(time, expected):
    assert milliseconds(time) == expected


@pytest.mark.parametrize(
    ("time_ms", "shown"),
    [(0, "00:00:00.000"), (3_599_999, "00:59:59.999"), (3_600_000, "01:00:00.000"), (360_000_001, "100:00:00.001")],
)
def test_clock(time_ms, shown):
    assert clock(time_ms) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  two\r\n\r\nlines ", "two lines"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\u202etxt.exe", "txt.exe"),
        ("نمی‌خواهم", "نمی‌خواهم"),
        ("👩‍💻", "👩‍💻"),
        ("\ufeff", ""),
    ],
)
def test_one_line(text, shown):
    assert one_line(text) == shown
