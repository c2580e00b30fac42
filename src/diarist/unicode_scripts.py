"""Characters of the scripts in which words and lines may not end, or may end, where those of other scripts do.

The ranges are those of the Unicode Standard 16.0. Japanese and Chinese rules are those of JIS X 4051 (kinsoku shori).
"""

from __future__ import annotations

from typing import TypeAlias

Blocks: TypeAlias = tuple[range, ...]
"""Ranges of code points."""

SOUTHEAST_ASIAN: Blocks = (
    range(0x0E00, 0x1000),  # Thai, Lao, Tibetan
    range(0x1000, 0x10A0),  # Myanmar
    range(0x1780, 0x1800),  # Khmer
    range(0x1950, 0x1AB0),  # Tai Le, New Tai Lue, Khmer symbols, Buginese, Tai Tham
    range(0xA9E0, 0xAA00),  # Myanmar Extended-B
    range(0xAA60, 0xAA80),  # Myanmar Extended-A
)
"""Scripts of Southeast Asia, and Tibetan, which put no spaces between words."""

KANA_AND_HAN: Blocks = (
    range(0x3040, 0x3100),
    range(0x3400, 0x4DC0),
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
    range(0xFF66, 0xFFA0),
    range(0x20000, 0x40000),
)
"""Kana and Chinese characters, which are written without spaces between words."""

HANGUL: Blocks = (
    range(0x1100, 0x1200), range(0x3131, 0x318F), range(0xA960, 0xA980), range(0xAC00, 0xD800), range(0xFFA0, 0xFFDD),
)  # fmt: skip
"""Korean letters and syllables. They are as wide as Chinese characters, but words are separated by spaces."""

CONJOINING_JAMO: Blocks = (range(0x1160, 0x1200), range(0xD7B0, 0xD800))
"""Korean vowels and final consonants that are shown within the syllable before them."""

LEADING_VOWELS: Blocks = (range(0x0E40, 0x0E45), range(0x0EC0, 0x0EC5))
"""Thai and Lao vowels that are written before their consonant."""

FOLLOWING_SIGNS: Blocks = (range(0x0E30, 0x0E3B), range(0x0E45, 0x0E4F), range(0x0EB0, 0x0EBE), range(0x0EC6, 0x0ECF))
"""Thai and Lao vowels, tone marks and repetition marks that follow their consonant, be they combining or not."""

THAI_ABBREVIATION_MARK = "\N{THAI CHARACTER PAIYANNOI}"

SMALL_KANA = "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰㇱㇲㇳㇴㇵㇶㇷㇸㇹㇺㇻㇼㇽㇾㇿｧｨｩｪｫｬｭｮｯ"
"""Small kana, which are part of the syllable before them."""

KANA_MARKS = "々〻゛゜ゝゞーヽヾｰﾞﾟ"
"""Marks of iteration, length and voicing, which belong to the character before them."""


def contains(blocks: Blocks, character: str) -> bool:
    """Return whether a character is in one of the blocks."""
    return any(ord(character) in block for block in blocks)
