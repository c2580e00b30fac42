"""Masks secrets in text that will be logged: tokens, passwords in URLs, and values whose name is that of a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from diarist.settings import Settings

MASK = "***"

MIN_CHARS = 10
"""Shorter secret settings are masked only where the context identifies them, since they may be ordinary words."""

_NAME = (
    r"(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|"
    r"[\w.-]*(?:(?:api|secret|access)[_-]?key|passw(?:or)?d|secret|token|signature|credential)"
)
_SCHEME = r"(?:(?:bearer|basic|digest|token)\s+)?"

_PATTERNS = (
    # API keys. The ID of a key is not secret, and identifies it.
    (re.compile(r"(?<![A-Za-z0-9])(dk_[A-Za-z0-9]{12}_)[\w-]+"), rf"\1{MASK}"),
    (re.compile(r"(?<![A-Za-z0-9])(dk_)(?![A-Za-z0-9]{12}_)[\w-]{6,}"), rf"\1{MASK}"),
    (re.compile(r"(?<![A-Za-z0-9])(whsec_)[\w+/=-]{6,}"), rf"\1{MASK}"),
    # The password of a URL. An @ or a / in it should be percent-encoded, and often is not. The lengths are bounded
    # because the time would otherwise grow with the square of the length of a hostile text.
    (re.compile(r"(://[^\s/:@?#]{0,256}:)(?:[^\s/?#]{0,256}|[^\s@]{0,256})@"), rf"\1{MASK}@"),
    (re.compile(rf"""(?i)(?<![\w.-])((?:{_NAME})["']?\s*=\s*["']?{_SCHEME})[^\s"'&,;)}}\]]+"""), rf"\1{MASK}"),
    (
        re.compile(
            rf"""(?i)(?<![\w.-])((?:(?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key)["']?|["'](?:{_NAME})["'])"""
            rf"""\s*:\s*(?:b(?=["']))?["']?{_SCHEME})[^\s"',;)}}\]]+"""
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{16,}"), rf"\1{MASK}"),
)

_SECRET_NAME = re.compile(rf"(?i){_NAME}")


class Redactor:
    """Masks text that looks like a secret, and the given secret values."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        longest_first = sorted({value for value in secrets if len(value) >= MIN_CHARS}, key=len, reverse=True)
        self._secret_values = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    @classmethod
    def of(cls, settings: Settings) -> Redactor:
        """Return a redactor that also masks the secrets of these settings."""
        secrets = [settings.api_key, settings.webhook_secret, settings.s3_secret_key]
        for url in (settings.database_url, settings.queue_url):
            password = _password(url)
            secrets += [password, unquote(password)]
        return cls(secrets)

    def __call__(self, text: str) -> str:
        """Return the text with its secrets masked."""
        if self._secret_values is not None:
            text = self._secret_values.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


def names_secret(name: str) -> bool:
    """Return whether a header, setting or field of this name holds a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""
