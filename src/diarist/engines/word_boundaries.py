"""Where a word may end: never within a character as readers see it, nor within an unspaced word of a spaced script."""

from __future__ import annotations

import unicodedata

import regex

from diarist.unicode_scripts import (
    FOLLOWING_SIGNS,
    KANA_AND_HAN,
    KANA_MARKS,
    LEADING_VOWELS,
    SMALL_KANA,
    SOUTHEAST_ASIAN,
    THAI_ABBREVIATION_MARK,
    contains,
)

_CLUSTER = regex.compile(r"\X")

_VIRAMA_CLASS = 9
"""The canonical combining class of a virama, which joins the consonant after it to the one before it."""

_JOINER = "\u200d"

_FOLLOWING = frozenset(THAI_ABBREVIATION_MARK + SMALL_KANA + KANA_MARKS)

_UNFINISHED = regex.compile("([\u0e31\u0e37][\u0e48-\u0e4b]?|[\u0eb1\u0ebb][\u0ec8-\u0ecb]?)$")
"""Thai and Lao vowels of syllables that always have a letter after the vowel, with or without a tone mark."""

_WITHIN_WORDS = "'’-"
"""Marks that are part of a word if letters are on both sides."""


def is_unspaced(character: str) -> bool:
    """Return whether a character belongs to a script that puts no spaces between words."""
    return contains(SOUTHEAST_ASIAN, character) or contains(KANA_AND_HAN, character)


def continues_word(before: str, text: str) -> bool:
    """Return whether ``text``, which follows ``before`` without a space, belongs to the same word.

    It does if a break between them would divide a grapheme cluster (Unicode Standard Annex 29), a syllable of Thai, Lao
    or Japanese, a conjunct of an Indic script, or a word or number of a script that is written with spaces.
    """
    if not before or not text or text[0].isspace() or before[-1].isspace():
        return False
    # Unicode does not count all vowel signs of Burmese, which are marks, as a part of the cluster before them.
    if unicodedata.category(text[0])[0] == "M" or before[-1] == _JOINER:
        return True
    if unicodedata.combining(before[-1]) == _VIRAMA_CLASS or _UNFINISHED.search(before):
        return True
    if contains(LEADING_VOWELS, before[-1]) or contains(FOLLOWING_SIGNS, text[0]) or text[0] in _FOLLOWING:
        return True
    clusters = _CLUSTER.findall(before[-16:] + text[0])
    return len(clusters[-1]) > 1 or _is_within_word(before, text)


def _is_within_word(before: str, text: str) -> bool:
    if len(before) > 1 and before[-1] in _WITHIN_WORDS:
        return _is_spaced_letter(before[-2]) and _is_spaced_letter(text[0])
    return _is_spaced_letter(before[-1]) and _is_spaced_letter(text[0])


def _is_spaced_letter(char: str) -> bool:
    return (char.isalnum() or unicodedata.category(char)[0] == "M") and not is_unspaced(char)
