"""Text from strangers, such as the names of files, in a form that is safe to show."""

from __future__ import annotations

import unicodedata

MAX_FILENAME_CHARS = 255

_INVISIBLE = frozenset("\ufeff\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""The byte order mark, and the marks that change the direction of the following text."""


def is_hidden(character: str) -> bool:
    """Return whether a character controls terminals or the direction of text, or is half of a surrogate pair."""
    return character in _INVISIBLE or unicodedata.category(character) in {"Cc", "Cs"}


def shown_filename(path: str) -> str:
    r"""Return the name of a file without its folders, on one line, with up to ``MAX_FILENAME_CHARS`` characters.

    Some clients send whole paths, with the separators of any operating system (``C:\calls\a.wav``). Hidden characters
    and line separators are removed. A name that is empty after that, ``.`` or ``..`` gives ``""``.
    """
    cleaned = "".join(each for each in path if not is_hidden(each) and each not in "\u2028\u2029")
    name = cleaned.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "" if name.strip() in {".", ".."} else name[:MAX_FILENAME_CHARS]
