"""Subtitles keep to the limits that are given."""

from __future__ import annotations

import math
from itertools import pairwise

import pysrt
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from diarist.errors import InvalidOption
from diarist.formats import render
from diarist.formats.cues import subtitles
from diarist.formats.line_breaking import columns
from diarist.formats.subtitle_options import DEFAULT, PRESETS, SubtitleOptions, subtitle_options
from diarist.types import Diarization, Span, Transcript, Utterance, Word
from support.strategies import patient

WORDS = (
    "Yes.",
    "well",
    "I",
    "think,",
    "the",
    "proposal",
    "of",
    "last",
    "Tuesday",
    "is",
    "fine.",
    "日本",
    "です。",
    "กขค",
)

options_of_subtitles = st.builds(
    SubtitleOptions,
    max_chars=st.integers(20, 80),
    max_lines=st.integers(1, 4),
    min_duration=st.floats(0.1, 2),
    max_duration=st.floats(2, 10),
    reading_speed=st.floats(5, 30),
    gap=st.floats(0, 0.5),
) | st.sampled_from(tuple(PRESETS.values()))


@st.composite
def speeches(draw: st.DrawFn) -> Transcript:
    """Draw utterances of short words, with pauses, one after the other."""
    said = []
    start = 0.0
    for _ in range(draw(st.integers(1, 4))):
        speaker = draw(st.sampled_from("AB"))
        words = []
        for text in draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30)):
            start += draw(st.sampled_from((0.0, 0.05, 0.5, 3.0)))
            end = start + draw(st.sampled_from((0.1, 0.3, 0.8)))
            words.append(Word(f" {text}", Span(start, end), speaker, 0.9, 0.9))
            start = end
        said.append(Utterance(tuple(words)))
    return Transcript(
        utterances=tuple(said),
        diarization=Diarization(),
        duration=start + draw(st.sampled_from((0.0, 5.0))),
        language=None,
        language_probability=None,
        engine="embedded",
        timings=(),
    )


@patient
@given(speeches(), options_of_subtitles)
def test_every_cue_keeps_to_the_limits(transcript, options):
    cues = subtitles(transcript, options, overlap=False)
    assert "".join("".join(cue.lines) for cue in cues).replace(" ", "") == "".join(
        word.text.strip() for word in transcript.words
    )
    for cue in cues:
        assert 1 <= len(cue.lines) <= options.max_lines
        assert all(columns(line) <= options.max_chars for line in cue.lines)
        assert cue.end_ms - cue.start_ms <= options.max_duration * 1000 + 1


@patient
@given(speeches(), options_of_subtitles)
def test_every_cue_is_shown_as_long_as_the_pause_allows(transcript, options):
    cues = subtitles(transcript, options, overlap=False)
    following = [*(cue.start_ms - options.gap * 1000 for cue in cues[1:]), transcript.duration * 1000]
    for cue, pause_end_ms in zip(cues, following, strict=True):
        reading_ms = len("\n".join(cue.lines)) * 1000 / options.reading_speed
        wanted_ms = max(options.min_duration * 1000, min(reading_ms, options.max_duration * 1000))
        assert cue.end_ms + 1 >= min(cue.start_ms + wanted_ms, pause_end_ms)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_presets_are_read_back(preset, name):
    words = [
        "The",
        "committee",
        "will",
        "discuss",
        "this",
        "proposal",
        "on",
        "Tuesday",
        "afternoon,",
        "if",
        "nobody",
        "minds",
        "the",
        "delay.",
    ]
    said = tuple(Word(f" {text}", Span(i * 0.2, i * 0.2 + 0.2), "A", 0.9, 0.9) for i, text in enumerate(words))
    spoken = Transcript(
        utterances=(Utterance(said),),
        diarization=Diarization(),
        duration=30.0,
        language="en",
        language_probability=0.9,
        engine="embedded",
        timings=(),
    )
    written = render(spoken, name, recording="r", subtitles=PRESETS[preset])
    if name == "srt":
        items = pysrt.from_string(written, error_handling=pysrt.ERROR_RAISE)
        texts = [item.text for item in items]
        assert items[-1].characters_per_second <= PRESETS[preset].reading_speed
        assert all(before.end.ordinal <= after.start.ordinal for before, after in pairwise(items))
    else:
        texts = [caption.text for caption in webvtt.from_string(written).captions]
    lines = [line for text in texts for line in text.split("\n")]
    assert " ".join(line.removeprefix("A: ") for line in lines) == " ".join(words)
    assert max(len(line) for line in lines) <= PRESETS[preset].max_chars


def test_lines_are_as_few_as_fit_and_of_similar_length():
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    said = tuple(Word(f" {text}", Span(i * 0.3, i * 0.3 + 0.3), "A", 0.9, 0.9) for i, text in enumerate(words))
    spoken = Transcript(
        utterances=(Utterance(said),),
        diarization=Diarization(),
        duration=5.0,
        language="en",
        language_probability=0.9,
        engine="embedded",
        timings=(),
    )
    assert [cue.lines for cue in subtitles(spoken, SubtitleOptions(max_chars=26, max_lines=4))] == [
        ("one two three four", "five six seven eight", "nine ten eleven twelve")
    ]
    assert [cue.lines for cue in subtitles(spoken, SubtitleOptions(max_chars=80))] == [(" ".join(words),)]


def test_given_values_replace_those_of_the_preset():
    assert subtitle_options() == DEFAULT
    assert subtitle_options("bbc") == PRESETS["bbc"]
    changed = subtitle_options("bbc", max_chars=30, max_lines=3)
    assert (changed.max_chars, changed.max_lines) == (30, 3)
    assert changed.reading_speed == PRESETS["bbc"].reading_speed


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_chars": 19}, "subtitle_max_chars must be a whole number from 20 to 200, not 19"),
        ({"max_chars": 30.5}, "subtitle_max_chars"),
        ({"max_lines": 5}, "subtitle_max_lines must be a whole number from 1 to 4, not 5"),
        ({"min_duration": 0.0}, "minimum duration"),
        ({"min_duration": 8.0}, "minimum duration"),
        ({"max_duration": math.nan}, "minimum duration"),
        ({"reading_speed": 0.0}, "reading speed"),
        ({"gap": -0.1}, "gap"),
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(InvalidOption, match=says):
        SubtitleOptions(**wrong)


def test_an_unknown_preset_is_refused_with_the_list():
    with pytest.raises(InvalidOption, match="netflix, bbc, not 'arte'"):
        subtitle_options("arte")
