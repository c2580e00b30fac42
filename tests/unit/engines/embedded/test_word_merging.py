"""Words of several readings: each once, in the order in which it was spoken."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.engines.embedded.decoding_windows import DecodingWindow
from diarist.engines.embedded.second_pass import Gap
from diarist.engines.embedded.word_merging import insert, is_same_reading, join
from diarist.types import RecognizedWord, Span
from support.strategies import patient


def word(text, start, end):
    return RecognizedWord(" " + text, Span(start, end), 0.8)


def spoken(text, start=0.0, length=0.4):
    return [word(each, start + i * length, start + (i + 1) * length) for i, each in enumerate(text.split())]


def text(words):
    return "".join(word.text for word in words).strip()


CUT = (DecodingWindow(Span(0, 10), Span(0, 10.4)), DecodingWindow(Span(10, 20), Span(9.6, 20)))
"""Two windows that share 0.8 s of sound."""


def test_a_word_across_a_cut_comes_once():
    first = [word("without", 9.2, 9.7), word("water", 9.8, 10.3)]
    second = [word("water", 9.75, 10.2), word("or", 10.3, 10.4), word("food", 10.4, 10.8)]
    assert text(join(CUT, [first, second])) == "without water or food"


def test_a_word_that_both_windows_give_to_themselves_comes_once():
    first = [word("without", 9.2, 9.7), word("water", 9.7, 10.2)]
    second = [word("Water,", 9.9, 10.4), word("food", 10.4, 10.8)]
    assert text(join(CUT, [first, second])) == "without water food"


def test_a_word_that_neither_window_gives_to_itself_is_kept():
    first = [word("without", 9.2, 9.6), word("water", 9.9, 10.3)]
    second = [word("food", 10.5, 10.9)]
    assert text(join(CUT, [first, second])) == "without water food"
    assert text(join(CUT, [first[:1], [word("water", 9.7, 10.1), *second]])) == "without water food"


def test_what_the_next_window_read_as_another_word_comes_once():
    first = [word("without", 9.2, 9.7), word("wat", 10.0, 10.4)]
    second = [word("water", 10.0, 10.4), word("food", 10.4, 10.8)]
    assert text(join(CUT, [first, second])) == "without water food"


def test_a_word_said_again_after_a_pause_is_kept():
    windows = (DecodingWindow(Span(0, 10.5), Span(0, 10.2)), DecodingWindow(Span(10.5, 20), Span(10.8, 20)))
    assert text(join(windows, [[word("yeah", 9.5, 9.9)], [word("yeah", 11.1, 11.5)]])) == "yeah yeah"


def test_the_words_of_a_gap_stay_together_between_their_neighbors():
    words = [word("go", 1.0, 1.4), word("it", 5.0, 5.2)]
    block = [word("for", 1.6, 2.0), word("all", 2.2, 2.6), word("of", 2.6, 2.9)]
    assert text(insert(words, {Gap(1, Span(1.4, 5.0)): block})) == "go for all of it"


def test_what_the_second_pass_hears_of_the_neighbors_is_dropped():
    words = [word("he", 0.5, 0.8), word("said", 0.8, 1.4), word("that", 5.0, 5.4)]
    block = [word("said", 1.1, 1.3), word("and", 1.6, 2.0), word("then", 2.0, 2.3), word("that", 4.8, 5.3)]
    assert text(insert(words, {Gap(2, Span(1.4, 5.0)): block})) == "he said and then that"


def test_a_gap_that_holds_its_neighbors_again_adds_nothing():
    words = spoken("I think it should be", 0.0)
    block = spoken("it should be", 2.1)
    assert text(insert(words, {Gap(5, Span(2.0, 4.0)): block})) == "I think it should be"


def test_a_word_said_again_later_in_the_gap_is_kept():
    words = [word("no", 1.0, 1.4), word("yes", 6.0, 6.3)]
    assert text(insert(words, {Gap(1, Span(1.4, 6.0)): [word("no", 3.0, 3.3)]})) == "no no yes"


def test_words_reach_no_further_than_their_gap():
    (first, second, _) = insert(
        [word("go", 1.0, 1.4), word("it", 5.0, 5.2)], {Gap(1, Span(1.4, 5.0)): [word("all", 1.3, 5.3)]}
    )
    assert (first.span.end, second.span) == (1.4, Span(1.4, 5.0))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("account", "Account,", True),
        ("its is", "It's", True),
        ("doesnt", "doesn't", True),
        ("colour", "color", True),
        ("no", "know", False),
        ("-", "-", False),
        ("yes", "no", False),
    ],
)
def test_readings_are_compared_by_their_letters(one, other, same):
    assert is_same_reading(spoken(one), spoken(other)) is same


@given(st.lists(st.sampled_from(["a", "b", "no", "yes"]), max_size=8), st.data())
@patient
def test_every_word_of_the_first_pass_stays_in_place(texts, data):
    words = [word(each, 3.0 + i * 3.0, 3.5 + i * 3.0) for i, each in enumerate(texts)]
    blocks = {}
    for i in data.draw(st.sets(st.integers(0, len(words)))):
        gap = Gap(i, Span(0.5 + i * 3.0, 3.0 + i * 3.0))
        blocks[gap] = [word(f"x{i}", gap.span.middle, gap.span.end)]
    merged = insert(words, blocks)
    assert [each for each in merged if each in words] == words
    assert all(a.span.start <= b.span.start for a, b in pairwise(merged))
