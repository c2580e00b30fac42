"""Tests of words from the tokens of every kind of tokenizer."""

from __future__ import annotations

from itertools import pairwise

import pytest

from diarist.engines.word_timestamps import Token, Vocabulary
from diarist.types import Span

FRAME = 0.08
WINDOW = Span(100.0, 130.0)


def words(pieces, window=WINDOW, letter=0.0):
    """Return the words of tokens in consecutive frames, each with half the probability of the one before."""
    names = list(dict.fromkeys(pieces))
    if not any(name.startswith(("▁", "##")) for name in names) and " " not in names:
        names.append("▁")
    tokens = [Token(names.index(piece), n * FRAME, (n + 1) * FRAME, 0.5**n) for n, piece in enumerate(pieces)]
    return Vocabulary(names).words(tokens, window, FRAME, letter)


def texts(*pieces):
    return [word.text for word in words(pieces)]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["▁he", "llo", "▁", "wor", "ld"], [" hello", " world"]),
        (["llo", "▁a"], [" llo", " a"]),
        (["▁so", ",", "▁no", "▁", ".", "▁?"], [" so,", " no.?"]),
        ([",", "▁a"], [" ,", " a"]),
        (["▁don", "'", "t", "▁'", "em"], [" don't", " 'em"]),
        (["▁", "▁", "▁a", "▁"], [" a"]),
        (["▁a", "<unk>", "b", "<EOU>", "<en-US>", "<|nospeech|>"], [" ab"]),
        (["▁<3"], [" <3"]),
        (["▁x", "<0xC3>", "<0xA9>", "z", "▁<0xF0>"], [" xéz", " <0xF0>"]),
        (["▁今", "日", "は", "▁Goog", "le", "です", "。"], ["今", "日", "は", " Google", "です。"]),
        (["▁今", "G", "o", "も"], ["今", "Go", "も"]),
        (["▁ดี", "มา", "ก็", "่"], ["ดี", "มา", "ก็่"]),
        (["▁안녕", "하", "▁세계"], [" 안녕하", " 세계"]),
        (["he", "##llo", "wor", "##ld", ".", "[UNK]", "[SEP]"], [" hello", " world."]),
        (["h", "i", " ", " ", "y", "'", "u"], [" hi", " y'u"]),
        ([" ", "a", " "], [" a"]),
        ([], []),
    ],
)
def test_tokens_become_words(pieces, expected):
    assert texts(*pieces) == expected


def test_times_are_those_of_the_first_and_last_token():
    (first, second) = words(["▁a", "b", "▁c"])
    assert (first.span.start, first.span.end) == (100.0, pytest.approx(100.16))
    assert (second.span.start, second.span.end) == (pytest.approx(100.16), pytest.approx(100.24))


def test_punctuation_changes_neither_the_end_nor_the_probability():
    (word,) = words(["▁a", "b", ",", "▁."])
    assert word.text == " ab,."
    assert word.span.end == pytest.approx(100.16)
    assert word.confidence == 0.5


def test_punctuation_alone_is_a_word_with_a_time():
    (word,) = words(["▁—"])
    assert (word.text, word.confidence) == (" —", 1.0)
    assert (word.span.start, word.span.end) == (100.0, pytest.approx(100.08))


def test_the_probability_is_that_of_the_least_certain_token():
    assert [word.confidence for word in words(["▁a", "b", "▁c", "d", "e"])] == [0.5, 0.0625]


def test_probabilities_are_held_within_bounds():
    vocabulary = Vocabulary(["▁a"])
    given = [Token(0, 0.0, 0.1, -1e-7), Token(0, 0.2, 0.3, 1.0000001)]
    assert [word.confidence for word in vocabulary.words(given, WINDOW, FRAME, 0.0)] == [0.0, 1.0]


def test_letters_take_their_time_until_the_next_word():
    vocabulary = Vocabulary(["▁hello", "▁you"])
    at = [Token(0, 1.0, 1.08, 1.0), Token(1, 1.2, 1.28, 1.0), Token(0, 9.9, 9.98, 1.0)]
    spans = [word.span for word in vocabulary.words(at, Span(0.0, 10.0), FRAME, 0.06)]
    assert [span.end for span in spans] == pytest.approx([1.2, 1.38, 10.0])
    spans = [word.span for word in vocabulary.words(at, Span(0.0, 10.0), FRAME, 0.0)]
    assert [span.end for span in spans] == pytest.approx([1.08, 1.28, 9.98])


def test_words_lie_within_the_window_and_none_is_empty():
    vocabulary = Vocabulary(["▁a"])
    # no duration, past the end, in the silence after the end
    heard = [Token(0, 0.0, 0.0, 1.0), Token(0, 0.48, 0.96, 1.0), Token(0, 0.8, 0.88, 1.0), Token(0, 0.96, 1.04, 1.0)]
    window = Span(7.0, 7.5)
    spans = [word.span for word in vocabulary.words(heard, window, FRAME, 0.06)]
    assert all(window.start <= span.start < span.end <= window.end for span in spans)
    assert all(before.start <= after.start for before, after in pairwise(spans))
    assert min(span.duration for span in spans) == pytest.approx(FRAME)


def test_a_window_shorter_than_a_frame():
    vocabulary = Vocabulary(["▁a"])
    (word,) = vocabulary.words([Token(0, 0.16, 0.24, 1.0)], Span(3.0, 3.01), FRAME, 0.06)
    assert word.span == Span(3.0, 3.01)
