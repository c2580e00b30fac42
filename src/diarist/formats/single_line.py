"""Conversion of any text to a single line that is safe to show."""

from __future__ import annotations

from diarist.display_text import is_hidden


def one_line(text: str) -> str:
    """Return ``text`` on one line, with single spaces and without control characters and invisible marks."""
    kept = (" " if each.isspace() else each for each in text if each.isspace() or not is_hidden(each))
    return " ".join("".join(kept).split())
