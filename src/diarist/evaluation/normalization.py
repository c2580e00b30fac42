"""Text normalization before words are compared, so that spelling variants, case and punctuation are not errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

Normalizer: TypeAlias = Callable[[str], str]
"""Converts a text to its words in lower case, separated by single spaces."""

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages that are written without spaces between words. Their characters are counted, as Whisper's authors do."""


@cache
def normalizer(language: str | None) -> Normalizer:
    """Return the normalizer for texts of a language (ISO 639-1); None is any language with spaces between words.

    Both normalizers are those of "Robust Speech Recognition via Large-Scale Weak Supervision" (Radford et al., 2022),
    appendix C.
    """
    if language == "en":
        from whisper_normalizer.english import EnglishTextNormalizer

        english: Normalizer = EnglishTextNormalizer()
        return english
    from whisper_normalizer.basic import BasicTextNormalizer

    basic = BasicTextNormalizer(split_letters=language in WITHOUT_SPACES)
    return lambda text: str(basic(text)).strip()
