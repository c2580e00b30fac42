"""Conversion of any text to a single line that is safe to show."""

from __future__ import annotations

import unicodedata

_INVISIBLE = frozenset("\ufeff\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""The byte order mark, and the marks that change the direction of the following text."""


def one_line(text: str) -> str:
    """Return ``text`` on one line, with single spaces and without control characters and invisible marks."""
    kept = (" " if each.isspace() else each for each in text if each.isspace() or not _hidden(each))
    return " ".join("".join(kept).split())


def _hidden(character: str) -> bool:
    return character in _INVISIBLE or unicodedata.category(character) in {"Cc", "Cs"}
