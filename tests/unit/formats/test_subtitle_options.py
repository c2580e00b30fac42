"""Subtitles keep to the limits that are given."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pysrt
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from diarist.errors import InvalidOption
from diarist.formats import FORMATS, render
from diarist.formats.cues import subtitles
from diarist.formats.line_breaking import columns
from diarist.formats.subtitle_options import (
    DEFAULT,
    PRESETS,
    RANGES,
    SUBTITLE_FORMATS,
    PresetName,
    SubtitleOptions,
    subtitle_options,
)
from diarist.types import Diarization, Span, Transcript, Utterance, Word
from support.strategies import patient
from unit.formats.conversations import overlapping_channels

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
) | st.sampled_from(tuple(replace(preset, dashes="none") for preset in PRESETS.values()))


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
    changed = subtitle_options("bbc", {"max_chars": 30, "max_lines": 3, "gap": None})
    assert (changed.max_chars, changed.max_lines) == (30, 3)
    assert changed.reading_speed == PRESETS["bbc"].reading_speed


@pytest.mark.parametrize(("name", "allowed"), RANGES.items())
def test_values_out_of_range_are_refused_with_the_range(name, allowed):
    edges = {"min_duration": 10, "max_duration": 60} if "duration" in name else {}
    SubtitleOptions(**{**edges, name: allowed.maximum})
    with pytest.raises(InvalidOption, match=f"subtitle_{name} must be a .*number from .* to {allowed.maximum}, not "):
        SubtitleOptions(**{name: allowed.maximum + 1})
    for wrong in (allowed.minimum - 1, math.nan, math.inf, None, "30"):
        with pytest.raises(InvalidOption, match=f"subtitle_{name} must be {allowed}, not "):
            SubtitleOptions(**{name: wrong})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_chars": 19}, "subtitle_max_chars must be a whole number from 20 to 200, not 19"),
        ({"max_chars": 30.5}, "subtitle_max_chars must be a whole number from 20 to 200, not 30.5"),
        ({"min_duration": 0}, "subtitle_min_duration must be a number from 0.1 to 10, not 0"),
        ({"min_duration": 8.0}, r"subtitle_min_duration \(8\) is above subtitle_max_duration \(7\)"),
        ({"labels": "sometimes"}, "subtitle_labels must be one of always, changes, never, not 'sometimes'"),
        ({"dashes": "yes"}, "subtitle_dashes must be one of none, hyphen, dash, not 'yes'"),
    ],
)
def test_wrong_values_are_refused(wrong, says):
    with pytest.raises(InvalidOption, match=says):
        SubtitleOptions(**wrong)


def test_an_unknown_preset_is_refused_with_the_list():
    with pytest.raises(InvalidOption, match="netflix, bbc, not 'arte'"):
        subtitle_options("arte")


def test_presets_are_those_that_callers_may_name():
    assert get_args(PresetName) == tuple(PRESETS)


def test_options_are_for_formats_that_exist_and_change_no_other_one():
    said = overlapping_channels()
    for name in FORMATS:
        plain = render(said, name, recording="r")
        changed = render(said, name, recording="r", subtitles=SubtitleOptions(max_chars=20, labels="never"))
        assert (plain != changed) == (name in SUBTITLE_FORMATS)
