"""Properties of every format for any transcript."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from html import unescape
from itertools import pairwise

import pysrt
import pytest
import webvtt
from hypothesis import given

from diarist.errors import InvalidOption
from diarist.formats import FORMATS, render, rttm
from diarist.formats.cue_division import PAUSE_MS
from diarist.formats.cue_timing import MIN_SHOWN_MS
from diarist.formats.cues import subtitles
from diarist.formats.line_breaking import Break, columns, line_break
from diarist.formats.single_line import one_line
from diarist.formats.subtitle_options import DEFAULT
from diarist.formats.timestamps import milliseconds
from diarist.types import Diarization, Transcript, Utterance, Word
from support.strategies import patient, transcripts

EMPTY = Transcript(
    utterances=(),
    diarization=Diarization(),
    duration=3.0,
    language=None,
    language_probability=None,
    engine="embedded",
    timings=(),
)


def spoken(transcript: Transcript) -> dict[str, str]:
    """All that each speaker says, as it can be shown, without white space."""
    texts: dict[str, str] = defaultdict(str)
    for utterance in transcript.utterances:
        for word in utterance.words:
            texts[utterance.speaker] += one_line(word.text).replace(" ", "")
    return {speaker: text for speaker, text in texts.items() if text}


def runs(utterance: Utterance, joining: set[Break]) -> list[list[Word]]:
    """The words that show anything, in runs within which the kind of each break is one of ``joining``."""
    found: list[list[Word]] = []
    spaced = False
    for word in utterance.words:
        spaced = spaced or word.text[:1].isspace()
        if text := one_line(word.text):
            if found and line_break(one_line(found[-1][-1].text), text, spaced=spaced) in joining:
                found[-1].append(word)
            else:
                found.append([word])
            spaced = word.text[-1].isspace()
    return found


def ends(run: list[Word]) -> float:
    return max(word.span.end for word in run)


def srt_arrow(texts: dict[str, str]) -> dict[str, str]:
    """SubRip alone cannot carry the arrow of its time lines; where it breaks lines is not known here."""
    return {speaker: re.sub(r"-->|→", "", text) for speaker, text in texts.items()}


@patient
@given(transcripts())
def test_json_keeps_everything(transcript):
    conversation = json.loads(render(transcript, "json", recording="r", words=True), parse_constant=pytest.fail)
    segments = conversation["conversation"]
    assert len(segments) == len(transcript.utterances)
    assert [each["start_time"] for each in segments] == sorted(each["start_time"] for each in segments)
    for segment, utterance in zip(segments, transcript.utterances, strict=True):
        assert segment["speaker"] == utterance.speaker
        assert segment["text"] == utterance.text == "".join(word["text"] for word in segment["words"])
        assert segment["start_time"] == pytest.approx(utterance.span.start, abs=0.0005001)
        assert segment["end_time"] == pytest.approx(utterance.span.end, abs=0.0005001)
        assert 0 <= segment["start_time"] <= segment["end_time"] <= transcript.duration + 0.1
        edges = [edge for word in segment["words"] for edge in (word["start_time"], word["end_time"])]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (segment["start_time"], segment["end_time"])
        assert all(len(str(edge).partition(".")[2]) <= 3 for edge in edges)


@patient
@given(transcripts())
def test_json_has_four_keys_and_no_more_unless_asked(transcript):
    for segment in json.loads(render(transcript, "json", recording="r"))["conversation"]:
        assert list(segment) == ["speaker", "start_time", "end_time", "text"]
    for segment in json.loads(render(transcript, "json", recording="r", words=True))["conversation"]:
        assert list(segment) == ["speaker", "start_time", "end_time", "text", "words"]
        for word in segment["words"]:
            assert list(word) == ["text", "start_time", "end_time", "confidence", "speaker_confidence"]


@patient
@given(transcripts())
def test_json_details_add_to_the_conversation_and_change_nothing_of_it(transcript):
    plain = json.loads(render(transcript, "json", recording="r", words=True))
    written = render(transcript, "json", recording="r", words=True, details=True)
    detailed = json.loads(written, parse_constant=pytest.fail)
    assert {"conversation": detailed.pop("conversation")} == plain
    assert list(detailed) == [
        "duration", "language", "language_probability", "speakers", "speakers_confidence", "engine",
        "diarizer", "recognizer", "device", "channels", "audio_tracks", "truncation",
        "warnings", "timings",
    ]  # fmt: skip
    assert detailed["duration"] == pytest.approx(transcript.duration, abs=0.0005001)
    assert detailed["speakers"] == list(transcript.speakers)
    assert {segment["speaker"] for segment in plain["conversation"]} <= set(detailed["speakers"])
    if transcript.speakers_confidence is None:
        assert detailed["speakers_confidence"] is None
    else:
        assert detailed["speakers_confidence"] == pytest.approx(transcript.speakers_confidence, abs=0.0005001)
    assert detailed["diarizer"] == (transcript.diarization.diarizer or None)
    assert (detailed["recognizer"], detailed["device"]) == (transcript.recognizer or None, transcript.device)
    assert detailed["warnings"] == list(transcript.warnings)
    assert (detailed["audio_tracks"] is None) == (transcript.audio_tracks is None)
    assert (detailed["truncation"] is None) == (transcript.truncation is None)
    assert [each["stage"] for each in detailed["timings"]] == [timing.stage for timing in transcript.timings]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
@patient
@given(transcripts())
def test_formats_without_a_place_for_extras_leave_them_out(name, transcript):
    plain = render(transcript, name, recording="r")
    assert render(transcript, name, recording="r", words=True, details=True) == plain


@patient
@given(transcripts())
def test_txt_has_one_line_per_utterance(transcript):
    lines = render(transcript, "txt", recording="r").splitlines()
    shown = [utterance for utterance in transcript.utterances if one_line(utterance.text)]
    assert len(lines) == len(shown)
    starts = []
    for line, utterance in zip(lines, shown, strict=True):
        match = re.fullmatch(r"\[(\d\d):(\d\d):(\d\d)\.(\d{3})\] (SPEAKER_\d\d): (.+)", line)
        assert match, line
        hours, minutes, seconds, thousandths = (int(match[i]) for i in range(1, 5))
        starts.append(((hours * 60 + minutes) * 60 + seconds) * 1000 + thousandths)
        assert starts[-1] == milliseconds(utterance.span.start)
        assert (match[5], match[6]) == (utterance.speaker, one_line(utterance.text))
    assert starts == sorted(starts)


@patient
@given(transcripts())
def test_srt_is_read_back_by_pysrt(transcript):
    items = pysrt.from_string(render(transcript, "srt", recording="r"), error_handling=pysrt.ERROR_RAISE)
    texts: dict[str, str] = defaultdict(str)
    for number, item in enumerate(items, start=1):
        assert item.index == number
        speaker, text = re.split(r":\s", item.text, maxsplit=1)
        texts[speaker] += "".join(text.split())
        assert 0 <= item.start.ordinal < item.end.ordinal <= transcript.duration * 1000 + 100
    assert [item.start.ordinal for item in items] == sorted(item.start.ordinal for item in items)
    assert srt_arrow(texts) == {k: v for k, v in srt_arrow(spoken(transcript)).items() if v or k in texts}


@patient
@given(transcripts())
def test_vtt_is_read_back_by_webvtt(transcript):
    texts: dict[str, str] = defaultdict(str)
    captions = webvtt.from_string(render(transcript, "vtt", recording="r")).captions
    times = [(each.start_time.in_milliseconds(), each.end_time.in_milliseconds()) for each in captions]
    for caption, (start_ms, end_ms) in zip(captions, times, strict=True):
        assert 0 <= start_ms < end_ms <= transcript.duration * 1000 + 100
        texts[caption.voice] += "".join(unescape(caption.text).split())
    assert times == sorted(times, key=lambda each: each[0])
    assert texts == spoken(transcript)


@patient
@given(transcripts())
def test_rttm_is_read_back_to_the_millisecond(transcript):
    written = render(transcript, "rttm", recording="two words\nSPEAKER x 1 0 1 <NA> <NA> forged <NA> <NA>")
    exact = sorted(
        (milliseconds(turn.span.start), milliseconds(turn.span.end), turn.speaker)
        for turn in transcript.diarization.turns
    )
    read = rttm.parse(written)
    assert sorted((milliseconds(t.span.start), milliseconds(t.span.end), t.speaker) for t in read) == exact
    assert all(turn.span.start == milliseconds(turn.span.start) / 1000 for turn in read)
    assert all(turn.span.end == milliseconds(turn.span.end) / 1000 for turn in read)
    assert {turn.speaker for turn in read} == set(transcript.diarization.speakers)
    again = Transcript(
        utterances=(),
        diarization=Diarization(read),
        duration=transcript.duration,
        language=None,
        language_probability=None,
        engine="embedded",
        timings=(),
    )
    assert rttm.parse(rttm.render(again, "r")) == read


@patient
@given(transcripts())
def test_cues_can_be_read(transcript):
    cues = subtitles(transcript)
    starts = [cue.start_ms for cue in cues]
    unbroken = [run for each in transcript.utterances for run in runs(each, {Break.NEVER, Break.WITHIN_WORD})]
    for position, cue in enumerate(cues):
        assert 1 <= len(cue.lines) <= 2
        assert all(line and line == line.strip() for line in cue.lines)
        one_word = any(
            milliseconds(run[0].span.start) <= cue.start_ms and milliseconds(ends(run)) >= cue.end_ms
            for run in unbroken
        )
        assert cue.end_ms - cue.start_ms <= milliseconds(DEFAULT.max_duration) or one_word
        following = starts[position + 1 :]
        if cue.end_ms - cue.start_ms < milliseconds(DEFAULT.min_duration):
            pauses = [start - milliseconds(DEFAULT.gap) for start in following if start > cue.start_ms]
            room = min([*pauses, milliseconds(transcript.duration)])
            assert cue.end_ms >= room
    characters = [run for each in transcript.utterances for run in runs(each, {Break.NEVER})]
    longest = max((columns(one_line("".join(word.text for word in run))) for run in characters), default=0)
    assert all(columns(line) <= max(DEFAULT.max_chars, longest) for cue in cues for line in cue.lines)
    for before, after in pairwise(unbroken):
        if before[0].speaker == after[0].speaker and after[0].span.start - ends(before) > PAUSE_MS / 1000 + 0.002:
            assert any(0 <= start - milliseconds(after[0].span.start) <= len(cues) * MIN_SHOWN_MS for start in starts)


@patient
@given(transcripts())
def test_rendering_twice_gives_the_same(transcript):
    for name in FORMATS:
        assert render(transcript, name, recording="r") == render(transcript, name, recording="r")


@pytest.mark.parametrize(
    ("name", "text"), [("json", '{"conversation": []}\n'), ("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n"), ("rttm", "")]
)
def test_an_empty_transcript_is_an_empty_document(name, text):
    assert render(EMPTY, name, recording="r") == text


def test_every_format_is_known_by_its_own_name():
    assert list(FORMATS) == ["json", "txt", "srt", "vtt", "rttm"]
    assert all(name == each.name for name, each in FORMATS.items())
    assert all("/" in each.media_type and each.extension.isalnum() for each in FORMATS.values())


def test_an_unknown_format_is_refused_with_the_list():
    with pytest.raises(InvalidOption, match="json, txt, srt, vtt, rttm, not 'docx'"):
        render(EMPTY, "docx", recording="r")
