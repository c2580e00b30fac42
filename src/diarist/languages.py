"""Parse the language that a user asks for: a code, a BCP-47 tag or an English name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from diarist.errors import InvalidOption

DETECT = "auto"
"""The value that asks for detection of the language."""

TAG = "[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*"
"""A regular expression for language tags (BCP 47), and for codes of two or three letters (ISO 639)."""

LANGUAGES: Mapping[str, str] = MappingProxyType({
    "Afrikaans": "af", "Albanian": "sq", "Amharic": "am", "Arabic": "ar", "Armenian": "hy", "Assamese": "as",
    "Azerbaijani": "az", "Bashkir": "ba", "Basque": "eu", "Belarusian": "be", "Bengali": "bn", "Bosnian": "bs",
    "Breton": "br", "Bulgarian": "bg", "Burmese": "my", "Cantonese": "yue", "Castilian": "es", "Catalan": "ca",
    "Chinese": "zh", "Croatian": "hr", "Czech": "cs", "Danish": "da", "Dutch": "nl", "English": "en",
    "Estonian": "et", "Faroese": "fo", "Finnish": "fi", "Flemish": "nl", "French": "fr", "Galician": "gl",
    "Georgian": "ka", "German": "de", "Greek": "el", "Gujarati": "gu", "Haitian": "ht", "Haitian Creole": "ht",
    "Hausa": "ha", "Hawaiian": "haw", "Hebrew": "he", "Hindi": "hi", "Hungarian": "hu", "Icelandic": "is",
    "Indonesian": "id", "Italian": "it", "Japanese": "ja", "Javanese": "jw", "Kannada": "kn", "Kazakh": "kk",
    "Khmer": "km", "Korean": "ko", "Lao": "lo", "Latin": "la", "Latvian": "lv", "Letzeburgesch": "lb",
    "Lingala": "ln", "Lithuanian": "lt", "Luxembourgish": "lb", "Macedonian": "mk", "Malagasy": "mg", "Malay": "ms",
    "Malayalam": "ml", "Maltese": "mt", "Mandarin": "zh", "Maori": "mi", "Marathi": "mr", "Moldavian": "ro",
    "Moldovan": "ro", "Mongolian": "mn", "Myanmar": "my", "Nepali": "ne", "Norwegian": "no", "Nynorsk": "nn",
    "Occitan": "oc", "Panjabi": "pa", "Pashto": "ps", "Persian": "fa", "Polish": "pl", "Portuguese": "pt",
    "Punjabi": "pa", "Pushto": "ps", "Romanian": "ro", "Russian": "ru", "Sanskrit": "sa", "Serbian": "sr",
    "Shona": "sn", "Sindhi": "sd", "Sinhala": "si", "Sinhalese": "si", "Slovak": "sk", "Slovenian": "sl",
    "Somali": "so", "Spanish": "es", "Sundanese": "su", "Swahili": "sw", "Swedish": "sv", "Tagalog": "tl",
    "Tajik": "tg", "Tamil": "ta", "Tatar": "tt", "Telugu": "te", "Thai": "th", "Tibetan": "bo", "Turkish": "tr",
    "Turkmen": "tk", "Ukrainian": "uk", "Urdu": "ur", "Uzbek": "uz", "Valencian": "ca", "Vietnamese": "vi",
    "Welsh": "cy", "Yiddish": "yi", "Yoruba": "yo",
})  # fmt: skip
"""The code of each language by its English name: the languages of Whisper, named as in OpenAI's tokenizer (MIT)."""

WHISPER_V3_LANGUAGES = tuple(sorted(set(LANGUAGES.values())))
"""The codes of the languages of Whisper large-v3 and the models made from it."""

WHISPER_LANGUAGES = tuple(code for code in WHISPER_V3_LANGUAGES if code != "yue")
"""The codes of the languages of the other multilingual Whisper models: all but Cantonese."""

_CODES = {name.lower(): code for name, code in LANGUAGES.items()}
_TAG = re.compile(TAG)


def parse_language(text: str | None) -> str | None:
    """Return the code of a language in lower case, or None if it is to be detected (None or ``auto``).

    The code of a tag such as ``zh-Hant`` is its first subtag. Upper and lower case are the same. Models check whether
    they support the language.

    Raises:
        InvalidOption: The text is neither a tag nor the English name of a language in ``LANGUAGES``.
    """
    if text is None or text.lower() == DETECT:
        return None
    named = _CODES.get(text.lower())
    if named is not None:
        return named
    if not _TAG.fullmatch(text):
        raise InvalidOption(
            f"language must be a code or tag such as en, en-US or zh-Hant, an English name such as German, or "
            f"auto, not {text!r}"
        )
    code = re.split("[-_]", text.lower(), maxsplit=1)[0]
    return _CODES.get(code, code)
