"""The times of cues, also where the words of several speakers overlap."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, zip_longest

import pysrt
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from diarist.formats import render
from diarist.formats.cue_timing import MIN_SHOWN_MS, Cue
from diarist.formats.cues import subtitles
from diarist.formats.subtitle_options import DEFAULT, PRESETS
from diarist.formats.timestamps import milliseconds
from diarist.types import Diarization, Span, Transcript, Utterance, Word
from support.strategies import patient

ORDINARY_WORDS = ("Yes.", "well", "I", "think,", "internationalization", "no?", "リモコン", "です。")


def transcript(*utterances: Utterance, duration: float = 60.0) -> Transcript:
    return Transcript(
        utterances=tuple(sorted(utterances, key=lambda each: each.span.start)),
        diarization=Diarization(),
        duration=duration,
        language="en",
        language_probability=0.99,
        engine="embedded",
        timings=(),
    )


def utterance(speaker: str, *words: tuple[str, float, float]) -> Utterance:
    return Utterance(tuple(Word(f" {text}", Span(start, end), speaker, 0.9, 0.9) for text, start, end in words))


@st.composite
def overlapping_transcripts(draw: st.DrawFn) -> Transcript:
    """Draw utterances whose words overlap each other, those of other utterances and those of other speakers."""
    said = []
    for _ in range(draw(st.integers(1, 6))):
        speaker = draw(st.sampled_from("ABC"))
        start = draw(st.floats(0, 20))
        words = []
        for _ in range(draw(st.integers(1, 12))):
            start += draw(st.sampled_from((0.0, 0.2, 0.4, 2.0)) | st.floats(0, 3))
            end = start + draw(st.sampled_from((0.0, 0.3)) | st.floats(0, 5))
            words.append((draw(st.sampled_from(ORDINARY_WORDS)), start, end))
        said.append(utterance(speaker, *words))
    duration = max(each.span.end for each in said) + draw(st.floats(0, 3))
    return transcript(*said, duration=duration)


def shown(cues: tuple[Cue, ...]) -> list[tuple[str, int, int]]:
    return [(" ".join(cue.lines), cue.start_ms, cue.end_ms) for cue in cues]


@patient
@given(overlapping_transcripts())
def test_no_cue_of_srt_overlaps_the_next(transcript):
    items = pysrt.from_string(render(transcript, "srt", recording="r"), error_handling=pysrt.ERROR_RAISE)
    assert len(items) > 0
    assert all(item.start.ordinal < item.end.ordinal for item in items)
    assert all(before.end.ordinal <= after.start.ordinal for before, after in pairwise(items))


@patient
@given(overlapping_transcripts())
def test_no_cue_of_vtt_overlaps_the_next_of_its_speaker(transcript):
    captions = webvtt.from_string(render(transcript, "vtt", recording="r")).captions
    for speaker in {caption.voice for caption in captions}:
        times = [
            (each.start_time.in_milliseconds(), each.end_time.in_milliseconds())
            for each in captions
            if each.voice == speaker
        ]
        assert all(start_ms < end_ms for start_ms, end_ms in times)
        assert all(before[1] <= after[0] for before, after in pairwise(times))


@pytest.mark.parametrize("overlap", [True, False])
@patient
@given(transcript=overlapping_transcripts())
def test_cues_are_shown_for_a_while_and_no_later_than_that_takes(overlap, transcript):
    cues = subtitles(transcript, overlap=overlap)
    last_ms, gap_ms = milliseconds(transcript.duration), milliseconds(DEFAULT.gap)
    spoken = {milliseconds(word.span.start) for word in transcript.words}
    for speaker in sorted({cue.parts[0].speaker for cue in cues}) if overlap else ("",):
        track = [cue for cue in cues if cue.parts[0].speaker == speaker or not overlap]
        for position, cue in enumerate(track):
            crowded_end = cue.start_ms + MIN_SHOWN_MS + len(track) > last_ms
            assert crowded_end or cue.end_ms - cue.start_ms >= MIN_SHOWN_MS
            if cue.start_ms not in spoken:
                # Only a cue that is crowded by the one before it is delayed.
                before = track[position - 1]
                assert position
                assert (
                    overlap or before.end_ms >= cue.start_ms - gap_ms or cue.start_ms - before.start_ms <= MIN_SHOWN_MS
                )


@patient
@given(overlapping_transcripts())
def test_a_cue_can_be_read_if_the_pause_after_it_allows_that(transcript):
    items = pysrt.from_string(render(transcript, "srt", recording="r"))
    last_ms = milliseconds(transcript.duration)
    for item, following in zip_longest(items, items[1:]):
        pause_end_ms = min(following.start.ordinal - milliseconds(DEFAULT.gap), last_ms) if following else last_ms
        assert (
            item.characters_per_second <= DEFAULT.reading_speed
            or item.duration.ordinal >= milliseconds(DEFAULT.max_duration)
            or item.end.ordinal >= pause_end_ms
        )


@patient
@given(overlapping_transcripts())
def test_no_cue_is_shown_beyond_its_words_until_less_than_the_gap_before_the_next(transcript):
    cues = subtitles(transcript, overlap=False)
    ends = {milliseconds(word.span.end) for word in transcript.words}
    for before, after in pairwise(cues):
        spoken_to_the_end = before.end_ms in ends or before.end_ms == after.start_ms
        shortest = before.end_ms == before.start_ms + MIN_SHOWN_MS
        assert spoken_to_the_end or shortest or before.end_ms <= after.start_ms - milliseconds(DEFAULT.gap)


LONG = ("internationalization", 1.0, 1.5), ("of", 1.5, 1.6), ("the", 1.6, 1.7), ("telecommunications.", 1.7, 2.2)


@pytest.mark.parametrize(
    ("pause_end", "end_ms"),
    [(2.2, 2200), (2.25, 2200), (2.5, 2420), (3.3, 3220), (3.43, 3350), (60.0, 3350)],
)
def test_a_fast_cue_is_shown_into_the_pause_after_it(pause_end, end_ms):
    said = transcript(utterance("A", *LONG), utterance("B", ("Pardon?", pause_end, pause_end + 1)), duration=100.0)
    cue = subtitles(said, overlap=False)[0]
    assert len("\n".join(cue.lines)) == 47
    assert (cue.start_ms, cue.end_ms) == (1000, end_ms)


def test_a_short_cue_that_is_interrupted_in_srt_is_read_first_and_that_of_vtt_goes_on():
    said = transcript(
        utterance("A", ("We", 1.0, 1.4), ("need", 1.4, 1.9), ("more", 1.9, 2.3), ("time.", 2.3, 3.0)),
        utterance("B", ("Right.", 2.0, 2.4)),
    )
    assert shown(subtitles(said, overlap=False)) == [("We need more time.", 1000, 2500), ("Right.", 2500, 3500)]
    assert shown(subtitles(said, overlap=True)) == [("We need more time.", 1000, 3000), ("Right.", 2000, 3000)]


def test_of_two_that_begin_together_one_is_shown_a_little_later_in_srt():
    said = transcript(utterance("A", ("Hello.", 1.0, 1.5)), utterance("B", ("Good", 1.0, 1.4), ("morning.", 1.4, 2.4)))
    assert shown(subtitles(said, overlap=False)) == [("Hello.", 1000, 1720), ("Good morning.", 1800, 2800)]
    assert shown(subtitles(said, overlap=True)) == [("Hello.", 1000, 2000), ("Good morning.", 1000, 2400)]


def test_overlapping_utterances_of_one_speaker_give_cues_one_after_the_other():
    said = transcript(utterance("A", ("First.", 1.0, 4.0)), utterance("A", ("Second.", 3.0, 5.0)))
    for overlap in (True, False):
        assert shown(subtitles(said, overlap=overlap)) == [("First.", 1000, 3500), ("Second.", 3500, 5000)]


def test_a_short_pause_between_cues_is_closed():
    said = transcript(*(utterance("A", (text, start, start + 0.5)) for text, start in (("One.", 1.0), ("Two.", 2.3))))
    assert shown(subtitles(said)) == [("One.", 1000, 2220), ("Two.", 2300, 3300)]
    assert shown(subtitles(said, PRESETS["bbc"])) == [("One.", 1000, 2220), ("Two.", 2300, 3300)]
    assert shown(subtitles(said, replace(DEFAULT, closed_pause=0.2))) == [("One.", 1000, 2000), ("Two.", 2300, 3300)]


def test_no_cue_but_the_last_lasts_beyond_the_recording():
    said = transcript(utterance("A", ("No.", 60.0, 60.0)), utterance("B", ("Yes.", 60.0, 60.0)))
    assert shown(subtitles(said, overlap=False)) == [("No.", 60_000, 60_001), ("Yes.", 60_001, 60_002)]
