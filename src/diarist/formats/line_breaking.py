"""Where a line may break between two pieces of text, and how wide text is.

The rules are those of Unicode Standard Annex #14 that matter between the words of a recognizer, and for Japanese and
Chinese those of JIS X 4051 (kinsoku shori).
"""

from __future__ import annotations

import unicodedata
from enum import Enum
from functools import lru_cache

from diarist.unicode_scripts import (
    CONJOINING_JAMO,
    FOLLOWING_SIGNS,
    HANGUL,
    KANA_MARKS,
    LEADING_VOWELS,
    SMALL_KANA,
    SOUTHEAST_ASIAN,
    THAI_ABBREVIATION_MARK,
    contains,
)

_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{WORD JOINER}\N{MYANMAR SIGN VIRAMA}\N{KHMER SIGN COENG}")
"""Characters that join the next character to the previous one."""

_BREAK_MARK = "\N{ZERO WIDTH SPACE}"

_KINSOKU_NO_START = frozenset("、。，．・：；？！‼⁇⁈⁉｡､･）〕］｝〉》」』】〙〗〟｠｣゠〜～％" + KANA_MARKS + SMALL_KANA)
_NO_START = frozenset(".,:;!?%)]}’”»›…‥·‐–،؛؟۔।॥၊။។៕ៗ" + THAI_ABBREVIATION_MARK) | _KINSOKU_NO_START
_NO_END = frozenset("([{（〔［｛〈《「『【〘〖〝｟｢")
_OPENING_QUOTES = frozenset("‘“«‹‚„")
_STRAIGHT_QUOTES = frozenset("\"'＂＇")


class Break(Enum):
    """Says whether a line may break between two pieces of text."""

    NEVER = "never"
    """The pieces share a character as readers see it, such as a letter and its vowel sign."""

    WITHIN_WORD = "within word"
    """The pieces belong together: a break is right only if both do not fit on one line."""

    ALLOWED = "allowed"


def line_break(before: str, after: str, *, spaced: bool) -> Break:
    """Return whether a line may break between two pieces of text that are not empty.

    Args:
        before: The text before the possible break. Only its end matters.
        after: The text after it. Only its start matters, unless it is nothing but punctuation.
        spaced: Whether there is a space between the two.
    """
    if before[-1] == _BREAK_MARK:
        return Break.ALLOWED
    if _same_character(before[-1], after[0], spaced=spaced):
        return Break.NEVER
    return Break.WITHIN_WORD if _same_word(before, after, spaced=spaced) else Break.ALLOWED


def _same_character(last: str, first: str, *, spaced: bool) -> bool:
    if not spaced and _flag_letter(last) and _flag_letter(first):
        return True
    return _extends(first) or contains(FOLLOWING_SIGNS, first) or last in _JOINERS or contains(LEADING_VOWELS, last)


def _same_word(before: str, after: str, *, spaced: bool) -> bool:
    last, first = before[-1], after[0]
    if first in _KINSOKU_NO_START or last in _NO_END:
        return True
    if spaced:
        # Closing punctuation may stand apart, as in French; but ".5" and "...and" are words.
        return all(each in _NO_START for each in after) or all(each in _OPENING_QUOTES for each in before)
    if first in _NO_START | _STRAIGHT_QUOTES or last in _OPENING_QUOTES | _STRAIGHT_QUOTES:
        return True
    base = next((each for each in reversed(before) if not _extends(each)), last)
    return not (_spaceless(base) or _spaceless(first))


def columns(text: str) -> int:
    """Return the width of a text in columns. A wide (East Asian) character takes two, a combining mark none."""
    return sum(0 if _invisible(character) else 2 if wide(character) else 1 for character in text)


def wide(character: str) -> bool:
    """Return whether a character takes two columns."""
    return unicodedata.east_asian_width(character) in {"W", "F"}


@lru_cache(maxsize=4096)
def _invisible(character: str) -> bool:
    """Return whether a character takes no column of its own."""
    return (
        unicodedata.category(character) in {"Mn", "Me", "Cf"}
        or _skin_tone(character)
        or contains(CONJOINING_JAMO, character)
    )


def _extends(character: str) -> bool:
    """Return whether a character is shown with the one before it, as by the rules of grapheme clusters."""
    if character == _BREAK_MARK:
        return False
    return unicodedata.category(character) == "Mc" or _invisible(character)


def _spaceless(character: str) -> bool:
    """Return whether a line may break before and after a letter, since its script puts no spaces between words."""
    if contains(HANGUL, character):
        return False
    return unicodedata.east_asian_width(character) in {"W", "F", "H"} or contains(SOUTHEAST_ASIAN, character)


def _skin_tone(character: str) -> bool:
    return "\N{EMOJI MODIFIER FITZPATRICK TYPE-1-2}" <= character <= "\N{EMOJI MODIFIER FITZPATRICK TYPE-6}"


def _flag_letter(character: str) -> bool:
    first, last = "\N{REGIONAL INDICATOR SYMBOL LETTER A}", "\N{REGIONAL INDICATOR SYMBOL LETTER Z}"
    return first <= character <= last
