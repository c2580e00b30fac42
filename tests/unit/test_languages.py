"""Languages by their codes, tags and names."""

from __future__ import annotations

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from diarist.errors import InvalidOption
from diarist.languages import LANGUAGES, parse_language
from diarist.types import TranscribeOptions


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, None), ("auto", None), ("AUTO", None), ("en", "en"), ("EN", "en"), ("yue", "yue"), ("xx", "xx"),
        ("en-US", "en"), ("en_us", "en"), ("zh-Hant", "zh"), ("zh-Hant-TW", "zh"), ("de-CH-1996", "de"),
        ("English", "en"), ("gErMaN", "de"), ("haitian creole", "ht"), ("Mandarin", "zh"), ("Lao", "lo"),
        ("lao-LA", "lo"),
    ],
)  # fmt: skip
def test_each_form_of_a_language_gives_its_code(text, code):
    assert parse_language(text) == code
    assert parse_language(code) == code
    assert TranscribeOptions(language=text).language == code


@pytest.mark.parametrize(
    "text",
    ["", " ", "e", "e\n", "en\n", "en ", "engl", "Klingon", "en-", "-US", "en--US", "zh-Traditional", "../", "én"],
)
def test_what_is_no_language_is_refused_with_what_is(text):
    with pytest.raises(InvalidOption, match=r"language must be a code or tag such as en, .*, or auto, not '"):
        parse_language(text)
    with pytest.raises(InvalidOption):
        TranscribeOptions(language=text)


def test_each_language_of_whisper_has_a_name():
    assert set(LANGUAGES.values()) == set(_LANGUAGE_CODES)
