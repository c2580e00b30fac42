"""Subtitles are read by programs that people use: pysubs2, ffmpeg, pysrt and webvtt-py."""

from __future__ import annotations

import io
from html import unescape
from itertools import pairwise, product

import av
import pysrt
import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from diarist.formats import render
from diarist.formats.cues import subtitles
from diarist.formats.subtitle_options import DEFAULT, PRESETS, SubtitleOptions
from diarist.types import Transcript
from support.strategies import patient, transcripts
from unit.formats.conversations import JAPANESE, LONG_TEXT, THAI, exchanges, overlapping_channels, transcript, utterance

OPTIONS = {
    "default": DEFAULT,
    **PRESETS,
    **{
        f"{labels}-{dashes}": SubtitleOptions(labels=labels, dashes=dashes)
        for labels, dashes in product(("changes", "never"), ("none", "hyphen", "dash"))
    },
    "narrow": SubtitleOptions(max_chars=20, max_lines=1),
}

CONVERSATION = transcript(
    utterance("SPEAKER_00", 0.5, LONG_TEXT),
    utterance("SPEAKER_01", 3.2, "Right."),
    utterance("SPEAKER_02", 5.0, "I don't think so & you <know> it -->"),
    utterance("SPEAKER_01", 14.0, JAPANESE, 0.15),
    utterance("SPEAKER_02", 15.0, "はい。"),
    utterance("SPEAKER_02", 23.0, THAI),
    utterance("SPEAKER_00", 24.0, "ใช่"),
    utterance("SPEAKER_00", 30.0, "Is it far?"),
    utterance("SPEAKER_01", 30.8, "{No} it's *not*, <i>really</i>."),
)

CONVERSATIONS = {"made": CONVERSATION, "real": overlapping_channels()}

any_options = st.sampled_from(tuple(OPTIONS.values()))


def shown(said: Transcript, name: str, options: SubtitleOptions) -> list[tuple[int, int, str]]:
    """Return the start, the end and the text of each cue, which readers have to find."""
    label = None if name == "vtt" else "{}:".format
    cues = subtitles(said, options, label=label, overlap=name == "vtt")
    return [(cue.start_ms, cue.end_ms, "\n".join(cue.lines)) for cue in cues]


def written(said: Transcript, name: str, options: SubtitleOptions) -> str:
    return render(said, name, recording="r", subtitles=options)


def by_pysubs2(text: str, name: str) -> list[tuple[int, int, str]]:
    events = pysubs2.SSAFile.from_string(text, format_=name, keep_unknown_html_tags=True)
    return [(event.start, event.end, event.plaintext) for event in events]


def by_ffmpeg(text: str, name: str) -> list[tuple[int, int, str]]:
    """Return what the demuxer of ffmpeg finds. Its unit of time is a millisecond in both formats."""
    with av.open(io.BytesIO(text.encode()), format={"srt": "srt", "vtt": "webvtt"}[name]) as container:
        (stream,) = container.streams.subtitles
        assert stream.time_base * 1000 == 1
        return [
            (packet.pts, packet.pts + packet.duration, bytes(packet).decode())
            for packet in container.demux(stream)
            if packet.size
        ]


@pytest.mark.parametrize("said", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_srt_is_read_alike_by_all(options, said):
    expected = shown(said, "srt", options)
    text = written(said, "srt", options)
    without_arrow = [(start, end, each.replace("-->", "→")) for start, end, each in expected]
    assert by_ffmpeg(text, "srt") == without_arrow
    items = pysrt.from_string(text, error_handling=pysrt.ERROR_RAISE)
    assert [(item.start.ordinal, item.end.ordinal, item.text) for item in items] == without_arrow
    # pysubs2 takes tags for styles, so only the times and what has none can be compared.
    found = by_pysubs2(text, "srt")
    assert [each[:2] for each in found] == [each[:2] for each in expected]
    plain = [
        (before, after)
        for before, (_, _, after) in zip(found, without_arrow, strict=True)
        if not set(after) & set("<{")
    ]
    assert [before[2] for before, _ in plain] == [after for _, after in plain]
    assert all(before[1] <= after[0] for before, after in pairwise(found))


@pytest.mark.parametrize("said", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_vtt_is_read_alike_by_all(options, said):
    expected = shown(said, "vtt", options)
    text = written(said, "vtt", options)
    captions = webvtt.from_string(text).captions
    assert [
        (each.start_time.in_milliseconds(), each.end_time.in_milliseconds(), unescape(each.text)) for each in captions
    ] == expected
    assert [each[:2] for each in by_ffmpeg(text, "vtt")] == [each[:2] for each in expected]
    assert [each[:2] for each in by_pysubs2(text, "vtt")] == [each[:2] for each in expected]
    voices = [part for each in by_ffmpeg(text, "vtt") for part in each[2].split("<v ")[1:]]
    assert (voices == []) == (options.labels == "never")
    for start, end, body in by_ffmpeg(text, "vtt"):
        speakers = [voice.partition(">")[0] for voice in body.split("<v ")[1:]]
        assert len(speakers) in {0, 1, 2}, (start, end)
        assert len(set(speakers)) == len(speakers)


@patient
@given(transcripts() | exchanges(), any_options)
def test_the_demuxers_of_ffmpeg_find_every_cue(said, options):
    for name in ("srt", "vtt"):
        expected = shown(said, name, options)
        if not expected:  # ffmpeg does not recognize an empty file
            continue
        found = by_ffmpeg(written(said, name, options), name)
        assert [each[:2] for each in found] == [each[:2] for each in expected]


@patient
@given(exchanges(), any_options)  # not any text, since pysubs2 takes each line with two times for a time line
def test_pysubs2_finds_every_cue(said, options):
    for name in ("srt", "vtt"):
        found = by_pysubs2(written(said, name, options), name)
        assert [each[:2] for each in found] == [each[:2] for each in shown(said, name, options)]
