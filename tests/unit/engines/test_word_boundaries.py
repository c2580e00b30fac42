"""Where a word may end."""

from __future__ import annotations

import pytest

from diarist.engines.word_boundaries import continues_word


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("ก", "ั"),  # Thai: a vowel above its consonant
        ("กั", "้"),  # a tone mark above both
        ("ก", "า"),  # a vowel after its consonant, which Unicode counts as a letter
        ("ก", "ำ"),
        ("เ", "ก"),  # a vowel before its consonant
        ("ไท", "ๆ"),
        ("รั", "ก"),  # a consonant that ends the syllable, since this vowel never does
        ("นั้", "น"),
        ("ชื่", "อ"),
        ("ກ", "າ"),  # Lao
        ("ພ", "ຽ"),  # Lao: a vowel between consonants
        ("ກັ", "ບ"),
        ("မ", "ြ"),  # Burmese
        ("က", "ာ"),
        ("က", "း"),
        ("က်", "္"),
        ("က္", "က"),  # a stacked consonant
        ("क", "्"),  # Devanagari
        ("क्", "ष"),
        ("क", "ि"),
        ("க", "ா"),  # Tamil
        ("e", "\u0301"),
        ("し", "ゃ"),  # Japanese: small kana and the mark of a long vowel
        ("コ", "ー"),
        ("人", "々"),
        ("👩", "\u200d💻"),
        ("Wi", "Fi"),
        ("don'", "t"),
        ("20", "26"),
    ],
)
def test_a_letter_or_word_is_not_divided(before, text):
    assert continues_word(before, text)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("東", "京"),
        ("用", "WiFi"),
        ("WiFi", "上"),
        ("ก", "ข"),
        ("ที่", "นี"),
        ("so", " it"),
        ("", "a"),
        ("a", ""),
        ("so.", "It"),
        ("か", "な"),
    ],
)
def test_words_are_divided(before, text):
    assert not continues_word(before, text)
