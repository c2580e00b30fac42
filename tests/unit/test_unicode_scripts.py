"""Characters of scripts with rules of their own: the ranges agree with the names of the characters in Unicode."""

from __future__ import annotations

import unicodedata

import pytest

from diarist import unicode_scripts
from diarist.unicode_scripts import FOLLOWING_SIGNS, KANA_MARKS, LEADING_VOWELS, SMALL_KANA, contains


def assigned(blocks):
    return [chr(point) for block in blocks for point in block if unicodedata.name(chr(point), "")]


def test_small_kana_are_all_that_unicode_calls_small_and_that_have_a_syllable_before_them():
    small = {
        chr(point)
        for point in (*range(0x3041, 0x3100), *range(0x31F0, 0x3200), *range(0xFF66, 0xFFA0))
        if "LETTER SMALL" in unicodedata.name(chr(point), "")
    }
    assert set(SMALL_KANA) == small


@pytest.mark.parametrize("mark", KANA_MARKS)
def test_kana_marks_are_marks(mark):
    assert any(word in unicodedata.name(mark) for word in ("MARK", "ITERATION"))


def test_vowels_of_thai_and_lao_are_on_one_side_of_their_consonant():
    for blocks in (LEADING_VOWELS, FOLLOWING_SIGNS):
        names = [unicodedata.name(each) for each in assigned(blocks)]
        assert all(name.startswith(("THAI CHARACTER", "LAO ")) for name in names)
    assert not any("LETTER" in unicodedata.name(each) for each in assigned(LEADING_VOWELS))
    assert not {*assigned(LEADING_VOWELS)} & {*assigned(FOLLOWING_SIGNS)}


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("SOUTHEAST_ASIAN", "กລမខក", "aअ가"),
        ("KANA_AND_HAN", "あア漢ｶ\U00020000", "aก가、"),
        ("HANGUL", "가ㄱ\u1112", "漢あ"),
        ("CONJOINING_JAMO", "\u1161\u11ab", "\u1112가"),
    ],
)
def test_blocks(name, inside, outside):
    blocks = getattr(unicode_scripts, name)
    assert all(contains(blocks, each) for each in inside)
    assert not any(contains(blocks, each) for each in outside)
