"""Subtitles where one speaker interrupts another one: every word is shown when it is spoken or shortly after."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.formats.cue_timing import MAX_DELAY_MS, MIN_SHOWN_MS, Cue, wanted_ms
from diarist.formats.cues import subtitles
from diarist.formats.line_breaking import columns
from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions
from diarist.formats.timestamps import milliseconds
from diarist.types import Transcript, Word
from support.strategies import patient
from unit.formats.conversations import exchanges, interrupted_speech, overlapping_channels, transcript, utterance

options_of_subtitles = st.builds(
    SubtitleOptions,
    max_chars=st.integers(20, 60),
    max_lines=st.integers(2, 4),
    labels=st.sampled_from(("always", "changes", "never")),
    dashes=st.sampled_from(("none", "hyphen", "dash")),
)


def label(speaker: str) -> str:
    return f"{speaker}:"


def shown(cues: tuple[Cue, ...]) -> list[tuple[float, float, str]]:
    return [(cue.start_ms / 1000, cue.end_ms / 1000, "\n".join(cue.lines)) for cue in cues]


def letters(cue_text: str) -> str:
    """Return a text without labels, dashes and white space."""
    for speaker in ("SPEAKER_00:", "SPEAKER_01:", "SPEAKER_02:"):
        cue_text = cue_text.replace(speaker, "")
    return "".join(cue_text.removeprefix("-").removeprefix("–").split())


def spoken(said: Transcript) -> dict[str, str]:
    texts: dict[str, str] = defaultdict(str)
    for each in said.utterances:
        texts[each.speaker] += "".join(each.text.split())
    return texts


def check(said: Transcript, options: SubtitleOptions, cues: tuple[Cue, ...]) -> None:
    texts: dict[str, str] = defaultdict(str)
    for cue in cues:
        assert cue.start_ms < cue.end_ms
        assert 1 <= len(cue.lines) <= options.max_lines
        assert all(line == line.strip() != "" for line in cue.lines)
        assert all(columns(line) <= options.max_chars for line in cue.lines)
        assert len({part.speaker for part in cue.parts}) == len(cue.parts) <= (1 if options.dashes == "none" else 2)
        for part in cue.parts:
            texts[part.speaker] += letters("\n".join(part.lines))
    assert texts == spoken(said)


@patient
@given(exchanges(), options_of_subtitles)
def test_cues_that_may_not_overlap_keep_to_the_limits(said, options):
    cues = subtitles(said, options, label=label, overlap=False)
    check(said, options, cues)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(cues))
    for cue, following in pairwise(cues):
        characters = len("\n".join(cue.lines))
        pause_end_ms = following.start_ms - milliseconds(options.gap)
        read = characters * 1000 <= options.reading_speed * (cue.end_ms - cue.start_ms)
        assert read or cue.end_ms >= pause_end_ms or columns("".join(cue.lines)) > characters


@patient
@given(exchanges(), options_of_subtitles)
def test_cues_that_may_overlap_keep_to_the_limits(said, options):
    cues = subtitles(said, options)
    check(said, options, cues)
    for speaker in said.speakers:
        own = [cue for cue in cues if speaker in {part.speaker for part in cue.parts}]
        assert all(before.end_ms <= after.start_ms for before, after in pairwise(own))
    if options.dashes != "none":
        assert all(before.end_ms <= after.start_ms for before, after in pairwise(cues))


def words_with_cues(said: Transcript, cues: tuple[Cue, ...]) -> Iterator[tuple[Word, Cue]]:
    """Yield each word with the cue that contains its last letter."""
    for speaker in said.speakers:
        parts = [(part, cue) for cue in cues for part in cue.parts if part.speaker == speaker]
        ends = list(accumulate(len(letters("\n".join(part.lines))) for part, _ in parts))
        position = 0
        for word in (word for each in said.utterances if each.speaker == speaker for word in each.words):
            position += len(word.text.strip())
            yield word, parts[bisect_left(ends, position)][1]


@patient
@given(interrupted_speech(), st.sampled_from(("none", "hyphen")))
def test_every_word_is_shown_while_it_is_spoken_or_shortly_after(said, dashes):
    cues = subtitles(said, SubtitleOptions(dashes=dashes), label=label, overlap=False)
    for word, cue in words_with_cues(said, cues):
        assert cue.start_ms <= milliseconds(word.span.start) + MAX_DELAY_MS
        assert cue.end_ms >= milliseconds(word.span.start) - 1000


@patient
@given(interrupted_speech())
def test_no_cue_is_cut_to_much_less_than_the_time_to_read_or_to_say_it(said):
    cues = subtitles(said, label=label, overlap=False)
    words: dict[Cue, list[Word]] = defaultdict(list)
    for word, cue in words_with_cues(said, cues):
        words[cue].append(word)
    for cue in cues:
        shown_ms = cue.end_ms - cue.start_ms
        spoken_ms = milliseconds(words[cue][-1].span.end - words[cue][0].span.start)
        assert shown_ms >= MIN_SHOWN_MS
        assert shown_ms >= min(wanted_ms(cue, DEFAULT), spoken_ms) / 2


def test_a_long_cue_is_divided_where_somebody_interrupts():
    said = transcript(
        utterance("SPEAKER_00", 1.0, "We should really buy the new house, and then we sell the old one."),
        utterance("SPEAKER_01", 3.0, "Right."),
    )
    assert shown(subtitles(said, label=label, overlap=False)) == [
        (1.0, 3.0, "SPEAKER_00: We should\nreally buy the new house,"),
        (3.0, 3.82, "SPEAKER_01: Right."),
        (3.9, 5.95, "SPEAKER_00: and then we sell the old one."),
    ]
    assert shown(subtitles(said)) == [
        (1.0, 5.2, "We should really buy the new house,\nand then we sell the old one."),
        (3.0, 4.0, "Right."),
    ]


def test_speakers_who_talk_at_the_same_time_for_long_take_turns():
    cues = subtitles(overlapping_channels(), label=label, overlap=False)
    assert all(cue.end_ms - cue.start_ms >= 800 for cue in cues)
    # Before, one cue of 80 characters was shown for 1.4 s while its words went on for 4.9 s more.
    for word, cue in words_with_cues(overlapping_channels(), cues):
        assert cue.start_ms <= milliseconds(word.span.start) + MAX_DELAY_MS
        assert cue.end_ms >= milliseconds(word.span.start) - 2500


def test_one_who_goes_on_after_a_short_answer_that_began_with_them_comes_second():
    said = transcript(
        utterance("SPEAKER_00", 1.0, "We should really buy the new house."),
        utterance("SPEAKER_01", 1.2, "Well,"),
    )
    assert [text for _, _, text in shown(subtitles(said, overlap=False))] == [
        "Well,",
        "We should really buy the new house.",
    ]


@pytest.mark.parametrize("dashes", ["hyphen", "dash"])
def test_with_dashes_no_cues_overlap_in_any_format(dashes):
    said = transcript(
        utterance("SPEAKER_00", 1.0, "We should really buy the new house, and then we sell the old one."),
        utterance("SPEAKER_01", 3.0, "Right."),
    )
    options = SubtitleOptions(dashes=dashes)
    assert shown(subtitles(said, options)) == shown(subtitles(said, options, overlap=False))
