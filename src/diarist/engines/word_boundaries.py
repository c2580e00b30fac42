"""Where a word may end: never within a character as readers see it, nor within an unspaced word of a spaced script."""

from __future__ import annotations

import unicodedata

import regex

WITHOUT_SPACES = regex.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters: they are written without spaces between words."""

_CLUSTER = regex.compile(r"\X")

_VIRAMA_CLASS = 9
"""The canonical combining class of a virama, which joins the consonant after it to the one before it."""

_JOINER = "\u200d"

_FOLLOWING = regex.compile(
    "[\u0e2f-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebc\u0ec6-\u0ece\u3005\u303b\u309b-\u309e\u30fc-\u30fe"
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ]"
)
"""Characters that are part of the syllable before them, although they are letters: Thai and Lao vowels and signs after
their consonant, small kana, and marks of length and iteration."""

_LEADING = regex.compile("[\u0e40-\u0e44\u0ec0-\u0ec4]")
"""Thai and Lao vowels that are written before their consonant."""

_UNFINISHED = regex.compile("([\u0e31\u0e37][\u0e48-\u0e4b]?|[\u0eb1\u0ebb][\u0ec8-\u0ecb]?)$")
"""Thai and Lao vowels of syllables that always have a letter after the vowel, with or without a tone mark."""

_WITHIN_WORDS = "'’-"
"""Marks that are part of a word if letters are on both sides."""


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
    if unicodedata.combining(before[-1]) == _VIRAMA_CLASS:
        return True
    if _LEADING.match(before[-1]) or _FOLLOWING.match(text) or _UNFINISHED.search(before):
        return True
    clusters = _CLUSTER.findall(before[-16:] + text[0])
    return len(clusters[-1]) > 1 or _is_within_word(before, text)


def _is_within_word(before: str, text: str) -> bool:
    if len(before) > 1 and before[-1] in _WITHIN_WORDS:
        return _is_spaced_letter(before[-2]) and _is_spaced_letter(text[0])
    return _is_spaced_letter(before[-1]) and _is_spaced_letter(text[0])


def _is_spaced_letter(char: str) -> bool:
    return (char.isalnum() or unicodedata.category(char)[0] == "M") and WITHOUT_SPACES.match(char) is None
