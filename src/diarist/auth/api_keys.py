"""API keys, their tokens, and the rules for the secrets that users choose.

A token is ``dk_<id>_<secret>``. The secret consists of 256 random bits, and the job store contains only its SHA-256
hash. There are too many possible secrets to try them all, so a deliberately slow hash, as passwords need, would only
slow down valid requests.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime

from diarist.errors import ConfigurationError, InvalidOption
from diarist.settings import Settings

ENV_ID = "env"
"""The ID of the key in the setting API_KEY, and of the owner of its jobs. No other key may have it as its name."""

MIN_SECRET_CHARS = 20
"""The minimum length of a secret that a user chooses: API_KEY and WEBHOOK_SECRET."""

MAX_JOB_LIMIT = 1_000_000
"""The highest job limit that a key may have."""

MAX_STORAGE_LIMIT_MB = 2_000_000_000
"""The highest storage limit that a key may have."""

USE_RESOLUTION_S = 60.0
"""How precisely the time of a key's last use is recorded."""

_ID_CHARS = 12
_ID_ALPHABET = string.ascii_letters + string.digits
_SECRET_BYTES = 32
_TOKEN = re.compile(r"dk_([A-Za-z0-9]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[^\W_][\w .@-]{0,63}")
_DUMMY_HASH = "0" * 64
"""Takes the place of the hash of an unknown key. No secret has this hash."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret. All times are aware and in UTC."""

    id: str
    """The owner of the jobs that are created with this key."""

    name: str
    """A name for people. No two valid keys have the same name."""

    job_limit: int | None = None
    """How many unfinished jobs this key may have; None means MAX_QUEUED_PER_KEY."""

    created_at: datetime | None = None
    """None for the key in the setting API_KEY."""

    used_at: datetime | None = None
    """When the key was last used, to the minute; None if it has never been used."""

    revoked_at: datetime | None = None
    """When the key was revoked; None if it is valid."""

    storage_limit_mb: int | None = None
    """How large the stored recordings of this key may be together; None means MAX_STORED_MB_PER_KEY."""


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    """The ID of a new key, with the token for its user and the hash for the store."""

    id: str
    token: str
    secret_hash: str


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """All API keys as they were in the job store at one moment. It checks tokens without another query."""

    keys: tuple[ApiKey, ...]
    hashes: tuple[str, ...]
    """The SHA-256 hash of each key's secret, in hexadecimal."""

    def check(self, token: str) -> ApiKey | None:
        """Return the key that a token belongs to, or None if the token is malformed, wrong, or revoked."""
        parts = _TOKEN.fullmatch(token)
        key_id, secret = parts.groups() if parts else ("", token)
        match, expected = None, _DUMMY_HASH
        for key, digest in zip(self.keys, self.hashes, strict=True):
            if key.id == key_id and key.revoked_at is None:
                match, expected = key, digest
        # The hashes are compared in any case, so that the time this takes does not reveal which IDs exist.
        is_equal = hmac.compare_digest(_hash(secret), expected)
        return match if is_equal else None


def generate_key() -> GeneratedKey:
    """Return a new key with a random ID and a random secret."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return GeneratedKey(key_id, f"dk_{key_id}_{secret}", _hash(secret))


def check_key_name(name: str) -> None:
    """Check that a key may have a name.

    Raises:
        InvalidOption: The name has forbidden characters, is too long, or is reserved.
    """
    if not _NAME.fullmatch(name) or name != name.strip():
        raise InvalidOption(
            f"{name!r} is not a valid name for a key: use up to 64 letters, digits, spaces and . _ - @, and begin with "
            "a letter or digit."
        )
    if name.lower() == ENV_ID:
        raise InvalidOption(f"{name!r} is not a valid name for a key: it is reserved for the setting API_KEY.")


def check_job_limit(job_limit: int | None) -> None:
    """Check that a key may have a job limit. Raises ``InvalidOption`` if it may not."""
    if job_limit is not None and not 1 <= job_limit <= MAX_JOB_LIMIT:
        raise InvalidOption(
            f"{job_limit} is not a valid job limit for a key: use a whole number from 1 to {MAX_JOB_LIMIT}."
        )


def check_storage_limit(storage_limit_mb: int | None) -> None:
    """Check that a key may have a storage limit. Raises ``InvalidOption`` if it may not."""
    if storage_limit_mb is not None and not 1 <= storage_limit_mb <= MAX_STORAGE_LIMIT_MB:
        raise InvalidOption(
            f"{storage_limit_mb} is not a valid storage limit for a key: use a whole number of megabytes from 1 to "
            f"{MAX_STORAGE_LIMIT_MB}."
        )


def configured_key(settings: Settings) -> str | None:
    """Return the value of API_KEY, or None if it is not set.

    Raises:
        ConfigurationError: The value is too short to be safe, or contains characters that a header cannot carry.
    """
    if not settings.api_key:
        return None
    if not re.fullmatch(r"[!-+\--~]+", settings.api_key):
        raise ConfigurationError(
            "API_KEY contains commas or characters that are not visible ASCII: use only letters and digits."
        )
    return checked_secret("API_KEY", settings.api_key)


def checked_secret(setting: str, value: str) -> str:
    """Return the value of a setting that holds a secret, if it is empty or long enough to be safe.

    Raises:
        ConfigurationError: The value is too short.
    """
    if value and len(value) < MIN_SECRET_CHARS:
        raise ConfigurationError(
            f"{setting} has {len(value)} characters; it needs at least {MIN_SECRET_CHARS}, so that nobody can guess "
            'it. This command generates a good one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return value


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
