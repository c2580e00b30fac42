"""Tests of sections: they contain whole spans of speech, are split at pauses, and are even where that is possible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.pipeline.sections import SECTION_SPEECH_S, split_into_sections
from diarist.types import Span
from support.strategies import patient


def speech(*lengths_and_pauses, start=1.0):
    """Return spans from their lengths and the pauses between them."""
    spans, at = [], start
    for length, pause in zip(lengths_and_pauses[::2], (*lengths_and_pauses[1::2], 0.0), strict=True):
        spans.append(Span(at, at + length))
        at += length + pause
    return tuple(spans)


def regular(count, length=5.0, pause=0.5):
    return speech(*[length, pause] * (count - 1), length)


@st.composite
def talks(draw):
    spans, at = [], draw(st.floats(0, 5))
    for _ in range(draw(st.integers(0, 60))):
        length = draw(st.sampled_from((0.1, 1.0, 7.0, 30.0)))
        spans.append(Span(at, at + length))
        at += length + draw(st.sampled_from((0.2, 0.4, 1.2, 20.0)))
    return tuple(spans), at + draw(st.floats(0, 5))


@given(talks(), st.sampled_from((5.0, 20.0, 100.0)))
@patient
def test_all_speech_is_in_one_section_and_they_leave_no_gap(talk, length):
    spans, duration = talk
    found = split_into_sections(spans, duration, length)
    assert tuple(span for section in found for span in section.speech) == spans
    assert all(section.speech for section in found)
    for section in found:
        assert section.bounds.start <= section.speech[0].start
        assert section.speech[-1].end <= section.bounds.end
    edges = [section.bounds for section in found]
    assert [edge.end for edge in edges[:-1]] == [edge.start for edge in edges[1:]]
    if found:
        assert (edges[0].start, edges[-1].end) == (0.0, duration)


@given(talks(), st.sampled_from((5.0, 20.0, 100.0)))
@patient
def test_the_boundaries_depend_on_the_speech_alone(talk, length):
    spans, duration = talk
    assert split_into_sections(spans, duration, length) == split_into_sections(list(spans), duration, length)
    moved = split_into_sections(spans, duration + 100, length)
    assert [section.speech for section in moved] == [
        section.speech for section in split_into_sections(spans, duration, length)
    ]


@pytest.mark.parametrize("seconds", [0.5, 100.0, SECTION_SPEECH_S, 1.49 * SECTION_SPEECH_S])
def test_little_speech_is_one_section(seconds):
    (only,) = split_into_sections(regular(round(seconds / 0.5), 0.5), 9_999.0)
    assert only.bounds == Span(0.0, 9_999.0)


def test_no_speech_has_no_sections():
    assert split_into_sections((), 60.0) == ()


@pytest.mark.parametrize("count", [82, 108, 147, 300, 720])
def test_sections_have_the_desired_length(count):
    found = split_into_sections(regular(count), 5_000.0)
    wanted = count * 5.0 / SECTION_SPEECH_S
    assert len(found) == (round(wanted) if wanted < 3.5 else 2 * round(wanted / 2)) > 1
    assert all(0.6 * SECTION_SPEECH_S < section.speech_duration < 1.4 * SECTION_SPEECH_S for section in found)


def test_a_longer_pause_near_the_even_position_is_preferred():
    spans = speech(*[5.0, 0.3] * 5, 5.0, 1.4, 5.0, *[0.3, 5.0] * 3)
    first, second = split_into_sections(spans, 60.0, 25.0)
    assert (len(first.speech), len(second.speech)) == (6, 4)
    assert first.bounds.end == second.bounds.start == pytest.approx(first.speech[-1].end + 0.7)


def test_a_long_pause_far_from_the_even_position_is_not_used():
    spans = speech(5.0, 9.0, 5.0, *[0.3, 5.0] * 8)
    first, _ = split_into_sections(spans, 90.0, 25.0)
    assert len(first.speech) == 5


def test_the_nearest_of_long_enough_pauses_is_used():
    spans = speech(*[5.0, 1.6] * 4, 5.0, 9.0, *[5.0, 1.6] * 4, 5.0)
    first, _ = split_into_sections(spans, 90.0, 25.0)
    assert len(first.speech) == 5
    spans = speech(*[5.0, 1.6] * 5, 5.0, 9.0, *[5.0, 1.6] * 3, 5.0)
    first, _ = split_into_sections(spans, 90.0, 25.0)
    assert len(first.speech) == 5


def test_speech_without_a_pause_is_not_cut():
    assert len(split_into_sections((Span(0, 1_000),), 1_000.0)) == 1
    found = split_into_sections((Span(0, 900), Span(901, 1_000)), 1_000.0)
    assert [len(section.speech) for section in found] == [1, 1]
