"""Names of files from strangers, as they are shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarist.display_text import MAX_FILENAME_CHARS, shown_filename

NAMES = [
    ("meeting.wav", "meeting.wav"),
    ("board  meeting 1.wav", "board  meeting 1.wav"),
    ("../../etc/passwd", "passwd"),
    ("..\\..\\x.wav", "x.wav"),
    ("C:\\calls/today\\a.wav", "a.wav"),
    ("../", ""),
    ("..", ""),
    ("a/..", ""),
    (".\u202e.", ""),
    ("/", ""),
    ("a\x00b.wav", "ab.wav"),
    ("a\x1b[31mb.wav", "a[31mb.wav"),
    ("\u202egpj.wav", "gpj.wav"),
    ("\u2067a\u2069\u200fb\ufeff.wav", "ab.wav"),
    ("a\r\n2026-01-01 ERROR forged\u2028.wav", "a2026-01-01 ERROR forged.wav"),
    ("a\ud800.wav", "a.wav"),
    ("قلم ‌می.wav", "قلم ‌می.wav"),
    ("\U0001f469\u200d\U0001f467.wav", "\U0001f469\u200d\U0001f467.wav"),
]


@pytest.mark.parametrize(("name", "shown"), NAMES)
def test_names(name, shown):
    assert shown_filename(name) == shown


@given(st.text(alphabet=st.characters() | st.sampled_from("./\\\x1b\u202e\ufeff\r\n "), max_size=300))
def test_any_name_is_one_safe_line(name):
    shown = shown_filename(name)
    assert len(shown) <= MAX_FILENAME_CHARS
    assert not set(shown) & set("/\\\u202e\u2066\u200f\ufeff\u2028\u2029")
    assert all(unicodedata.category(each) not in {"Cc", "Cs"} for each in shown)
    assert shown.strip() not in {".", ".."}
    assert shown_filename(shown) == shown
