"""API keys: who may ask, and whose jobs are whose. Kept in the job store, so that every process of a fleet knows them.

A token is ``dk_<id>_<secret>``. The secret is 256 random bits, of which the store has the SHA-256 alone: nobody can try
that many, so that a hash made slow on purpose, as passwords need, would only slow down those who have a key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, update

from diarist.errors import ConfigurationError, InvalidOption
from diarist.jobs.db import schema
from diarist.jobs.db.database import Database
from diarist.jobs.db.schema import api_keys
from diarist.settings import Settings

ENV_ID = "env"
"""Id of the key in the setting API_KEY, and of the owner of its jobs; also the name that no other key may have."""

MIN_CHARS = 20
"""Of a secret that somebody thought up: API_KEY and WEBHOOK_SECRET."""

USED_EVERY_S = 60.0
"""How exactly it is noted when a key was last used."""

MAX_JOBS = 1_000_000
"""The highest limit that a key may have."""

_ID_CHARS = 12
_SECRET_BYTES = 32
_LETTERS = string.ascii_letters + string.digits
_TOKEN = re.compile(r"dk_([A-Za-z0-9]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[^\W_][\w .@-]{0,63}")
_NOBODY = "0" * 64
"""In place of the hash of a key that is not there: no secret has it."""

_WEBHOOK_MASTER = "webhook-master"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. Times are aware, in UTC."""

    id: str
    """The owner of the jobs that it asks for."""

    name: str
    """For people; no two keys that are valid have the same."""

    job_limit: int | None = None
    """How many unfinished jobs it may have; None where MAX_QUEUED_PER_KEY says so."""

    created_at: datetime | None = None
    """None for the setting API_KEY."""

    used_at: datetime | None = None
    """To the minute; None where it never was."""

    revoked_at: datetime | None = None
    """Since when it is refused; None where it is valid."""


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """Every key that there is, as the job store had them at one moment. Answers without asking it again."""

    keys: tuple[ApiKey, ...]
    hashes: tuple[str, ...]
    """SHA-256 of the secret of each, in hexadecimal digits."""

    def check(self, token: str) -> ApiKey | None:
        """The key whose token this is; None where it is none, a wrong one, or one that was revoked."""
        parts = _TOKEN.fullmatch(token)
        key_id, secret = parts.groups() if parts else ("", token)
        found, expected = None, _NOBODY
        for key, digest in zip(self.keys, self.hashes, strict=True):
            if key.id == key_id and key.revoked_at is None:
                found, expected = key, digest
        # Compared in any case, so that the time it takes does not tell which ids there are.
        right = hmac.compare_digest(_hash(secret), expected)
        return found if right else None


class KeyStore:
    """The keys in a database, which may be in use by any number of services meanwhile.

    Every call raises ``StoreUnavailable`` where the database cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, job_limit: int | None = None) -> tuple[ApiKey, str]:
        """A new key and its token, which nobody can be told again.

        Raises:
            InvalidOption: the name cannot be one, or a valid key has it; the limit is below 1.
        """
        if not _NAME.fullmatch(name) or name != name.strip():
            raise InvalidOption(
                f"A key cannot be called {name!r}: use up to 64 letters, digits, spaces and . _ - @, with a letter or "
                "digit first."
            )
        if name.lower() == ENV_ID:
            raise InvalidOption(f"A key cannot be called {name!r}: that is how the setting API_KEY is called.")
        if job_limit is not None and not 1 <= job_limit <= MAX_JOBS:
            raise InvalidOption(f"The limit of a key cannot be {job_limit}: it is a whole number from 1 to {MAX_JOBS}.")
        key_id = "".join(secrets.choice(_LETTERS) for _ in range(_ID_CHARS))
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        with self._database.writing() as connection:
            serialize_writers(connection)
            if _first(connection, api_keys.c.name == name, api_keys.c.revoked_at.is_(None)):
                raise InvalidOption(
                    f"There is a key called {name!r} already. Choose another name, or revoke that one first: "
                    f"`diarist keys revoke {name!r}`."
                )
            key = ApiKey(key_id, name, job_limit, self._database.now(connection))
            connection.execute(
                insert(api_keys).values(
                    id=key.id, name=key.name, job_limit=key.job_limit, created_at=key.created_at,
                    secret_hash=_hash(secret),
                )
            )  # fmt: skip
        return key, f"dk_{key_id}_{secret}"

    def list(self) -> tuple[ApiKey, ...]:
        """All of them, those that were revoked too, the oldest first."""
        return self.known().keys

    def any(self) -> bool:
        """Whether there is one, or ever was: a service whose keys were all revoked lets nobody in."""
        with self._database.reading() as connection:
            return connection.execute(select(api_keys.c.id).limit(1)).first() is not None

    def known(self) -> KeySnapshot:
        """All of them, to check tokens by."""
        with self._database.reading() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).all()
        return KeySnapshot(tuple(_key(row) for row in rows), tuple(row.secret_hash for row in rows))

    def check(self, token: str) -> ApiKey | None:
        """The key whose token this is; None where it is none, a wrong one, or one that was revoked."""
        return self.known().check(token)

    def revoke(self, id_or_name: str) -> ApiKey:
        """Refuse a key from now on; one that was revoked already stays as it is.

        Raises:
            InvalidOption: there is no key of that id or name.
        """
        if id_or_name == ENV_ID:
            raise InvalidOption("That is the setting API_KEY: unset it, then start the service again.")
        with self._database.writing() as connection:
            row = (
                _first(connection, api_keys.c.id == id_or_name)
                or _first(connection, api_keys.c.name == id_or_name, api_keys.c.revoked_at.is_(None))
                or _first(connection, api_keys.c.name == id_or_name)
            )
            if row is None:
                raise InvalidOption(f"There is no key {id_or_name!r}. `diarist keys list` shows those that there are.")
            if row.revoked_at is None:
                connection.execute(
                    update(api_keys)
                    .where(api_keys.c.id == row.id)
                    .values(revoked_at=self._database.now(connection))
                )  # fmt: skip
            revoked = _first(connection, api_keys.c.id == row.id)
        assert revoked is not None
        return _key(revoked)

    def note_used(self, ids: Collection[str]) -> None:
        """Remember that these were used just now, unless that was noted within ``USED_EVERY_S``."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            stale = or_(api_keys.c.used_at.is_(None), api_keys.c.used_at < now - timedelta(seconds=USED_EVERY_S))
            connection.execute(update(api_keys).where(api_keys.c.id.in_(ids), stale).values(used_at=now))


def configured_key(settings: Settings) -> str | None:
    """What API_KEY says; None where it is not set.

    Raises:
        ConfigurationError: it is too short to be safe, or holds what cannot be sent in a header.
    """
    if not settings.api_key:
        return None
    if not re.fullmatch(r"[!-+\--~]+", settings.api_key):
        raise ConfigurationError("API_KEY holds more than visible ASCII without commas: use letters and digits alone.")
    return checked_secret("API_KEY", settings.api_key)


def webhook_master(settings: Settings, database: Database) -> str:
    """What the secrets of webhooks are derived from: WEBHOOK_SECRET, or one that is made once and kept in the database.

    Raises:
        ConfigurationError: WEBHOOK_SECRET is too short to be safe.
        StoreUnavailable: the database cannot be read or written.
    """
    if settings.webhook_secret:
        return checked_secret("WEBHOOK_SECRET", settings.webhook_secret)
    kept = select(schema.secrets.c.value).where(schema.secrets.c.name == _WEBHOOK_MASTER)
    with database.reading() as connection:
        found: str | None = connection.execute(kept).scalar()
    if found is not None:
        return found
    with database.writing() as connection:
        serialize_writers(connection)
        found = connection.execute(kept).scalar()
        if found is None:
            found = secrets.token_urlsafe(_SECRET_BYTES)
            connection.execute(insert(schema.secrets).values(name=_WEBHOOK_MASTER, value=found))
    return found


def checked_secret(setting: str, value: str) -> str:
    """The value of a secret setting, where it is long enough or not set. Raises ``ConfigurationError``."""
    if value and len(value) < MIN_CHARS:
        raise ConfigurationError(
            f"{setting} has {len(value)} characters; at least {MIN_CHARS} make sure that nobody can guess it. "
            'This makes a good one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return value


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def serialize_writers(connection: Connection) -> None:
    """Let nobody else look and then insert until this transaction ends; SQLite's own lock does that by itself."""
    connection.execute(select(schema.schema_version.c.version).with_for_update())


def _first(connection: Connection, *conditions: ColumnElement[bool]) -> Row[tuple[object, ...]] | None:
    return connection.execute(select(api_keys).where(*conditions).order_by(api_keys.c.created_at.desc())).first()


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(row.id, row.name, row.job_limit, row.created_at, row.used_at, row.revoked_at)
