"""Tests of chunks: they contain all speech, in order, and none is too long."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.chunking import pack
from diarist.types import Span
from support.ratios import growth
from support.strategies import patient

LONGEST, PAUSE = 28.0, 1.5


@st.composite
def speech(draw, longest=90.0):
    """Draw ordered, disjoint spans."""
    start, spans = draw(st.floats(0, 5)), []
    for _ in range(draw(st.integers(0, 25))):
        length = draw(st.one_of(st.floats(0.01, 8), st.floats(0.01, longest)))
        spans.append(Span(start, start + length))
        start += length + draw(st.one_of(st.sampled_from((0.0, 0.2, 1.0, PAUSE, 1.6)), st.floats(0, 3)))
    return spans


@given(speech())
@patient
def test_chunks_are_ordered_disjoint_bounded_and_cover_all_speech(spans):
    chunks = pack(spans, LONGEST, PAUSE)
    assert all(before.end <= after.start + 1e-9 for before, after in pairwise(chunks))
    assert all(0 < chunk.duration <= LONGEST + 1e-9 for chunk in chunks)
    for span in spans:
        covered = sum(span.overlap(chunk) for chunk in chunks)
        assert covered == pytest.approx(span.duration)


@given(speech(longest=10.0))
@patient
def test_no_chunk_bridges_a_long_pause_or_begins_or_ends_within_speech(spans):
    chunks = pack(spans, LONGEST, PAUSE)
    starts, ends = {span.start for span in spans}, {span.end for span in spans}
    assert all(chunk.start in starts and chunk.end in ends for chunk in chunks)
    for before, after in pairwise(spans):
        pause = Span(before.end, after.start)
        if pause.duration >= PAUSE:
            assert all(chunk.overlap(pause) == 0 for chunk in chunks)


@given(speech(longest=10.0))
@patient
def test_neighbors_that_fit_together_are_not_split(spans):
    if spans and spans[-1].end - spans[0].start <= LONGEST and all(a.gap(b) < PAUSE for a, b in pairwise(spans)):
        assert pack(spans, LONGEST, PAUSE) == (Span(spans[0].start, spans[-1].end),)


def test_long_speech_is_split_at_its_longest_pause():
    spans = [Span(0, 10), Span(10.2, 16), Span(17, 25), Span(25.3, 32)]
    assert pack(spans, LONGEST, PAUSE) == (Span(0, 16), Span(17, 32))


def test_a_pause_near_the_middle_is_preferred_to_a_longer_one_near_an_end():
    spans = [Span(0, 0.5), Span(1.5, 15), Span(15.8, 30)]
    assert pack(spans, LONGEST, PAUSE) == (Span(0, 15), Span(15.8, 30))


def test_the_fewest_chunks_are_made_that_end_at_fair_pauses():
    spans = [Span(1.5 * i, 1.5 * i + 1) for i in range(56)]  # 84 s of equal pauses
    chunks = pack(spans, LONGEST, PAUSE)
    assert len(chunks) == 3


def test_a_long_pause_is_worth_one_more_chunk_than_a_cut_within_a_sentence():
    spans = [Span(0, 26), Span(26.02, 27), Span(28.4, 50)]
    assert pack(spans, 26.5, PAUSE) == (Span(0, 26), Span(26.02, 50))
    spans = [Span(0, 14), Span(15.4, 26), Span(26.02, 50)]
    assert pack(spans, 36.0, PAUSE) == (Span(0, 14), Span(15.4, 50))


def test_speech_without_any_pause_is_split_evenly():
    chunks = pack([Span(3, 73)], LONGEST, PAUSE)
    assert [chunk.duration for chunk in chunks] == pytest.approx([70 / 3] * 3)
    assert (chunks[0].start, chunks[-1].end) == (3, pytest.approx(73))


def test_nothing_gives_nothing():
    assert pack([], LONGEST, PAUSE) == ()


def regular(count: int) -> list[Span]:
    return [Span(1.5 * i, 1.5 * i + 1.0) for i in range(count)]


@pytest.mark.timing
def test_the_work_grows_with_the_speech_and_no_faster():
    assert growth(lambda spans: pack(spans, LONGEST, PAUSE), regular(2_400), regular(9_600)) < 8


def test_hours_of_regular_pauses_are_split_into_good_lengths():
    chunks = pack(regular(9_600), LONGEST, PAUSE)  # four hours
    assert sum(chunk.duration for chunk in chunks) > 9_600
    assert all(chunk.duration <= LONGEST for chunk in chunks)
    assert np.median([chunk.duration for chunk in chunks]) >= LONGEST / 3


@pytest.mark.slow
def test_hours_of_shrinking_pauses_are_split():
    spans, start = [], 0.0
    for i in range(9_600):
        spans.append(Span(start, start + 1.0))
        start += 1.0 + 1.4 - i * 1e-4  # the longest pause is always near the beginning
    chunks = pack(spans, LONGEST, PAUSE)
    assert all(chunk.duration <= LONGEST for chunk in chunks)
    assert (chunks[0].start, chunks[-1].end) == (0.0, spans[-1].end)
