"""Texts made comparable: what differs only in spelling, case or punctuation is no error."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

Normaliser: TypeAlias = Callable[[str], str]
"""Makes of a text its words, in small letters with one space between."""

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages written without spaces between words: their characters are counted, as Whisper's authors do."""


@cache
def normaliser(language: str | None) -> Normaliser:
    """The one for texts of this language (ISO 639-1); None: for any that puts spaces between words.

    Both are those of "Robust Speech Recognition via Large-Scale Weak Supervision" (Radford et al., 2022), appendix C.
    """
    if language == "en":
        from whisper_normalizer.english import EnglishTextNormalizer

        english: Normaliser = EnglishTextNormalizer()
        return english
    from whisper_normalizer.basic import BasicTextNormalizer

    basic = BasicTextNormalizer(split_letters=language in WITHOUT_SPACES)
    return lambda text: str(basic(text)).strip()
