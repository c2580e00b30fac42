"""API keys in the table ``api_keys``, so that every process of a fleet sees the same keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, update

from diarist.auth.api_keys import (
    ENV_ID,
    USE_RESOLUTION_S,
    ApiKey,
    KeySnapshot,
    check_job_limit,
    check_key_name,
    check_storage_limit,
    generate_key,
)
from diarist.errors import InvalidOption
from diarist.jobs.db.database import Database, serialize_writers
from diarist.jobs.db.schema import api_keys


class ApiKeyStore:
    """The API keys in a database, which any number of services may use at the same time.

    Every method raises ``StoreUnavailable`` if the database cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, job_limit: int | None = None, storage_limit_mb: int | None = None
    ) -> tuple[ApiKey, str]:
        """Create a key and return it with its token, which cannot be retrieved later.

        Raises:
            InvalidOption: The name is not valid, or a valid key has it already; or a limit is out of range.
        """
        check_key_name(name)
        check_job_limit(job_limit)
        check_storage_limit(storage_limit_mb)
        new = generate_key()
        with self._database.writing() as connection:
            serialize_writers(connection)
            if _first(connection, api_keys.c.name == name, api_keys.c.revoked_at.is_(None)):
                raise InvalidOption(
                    f"A key named {name!r} already exists. Choose another name, or revoke that key first: "
                    f"`diarist keys revoke {name!r}`."
                )
            now = self._database.now(connection)
            key = ApiKey(new.id, name, job_limit, now, storage_limit_mb=storage_limit_mb)
            connection.execute(
                insert(api_keys).values(
                    id=key.id,
                    name=key.name,
                    job_limit=key.job_limit,
                    storage_limit_mb=key.storage_limit_mb,
                    created_at=key.created_at,
                    secret_hash=new.secret_hash,
                )
            )
        return key, new.token

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys, including revoked ones, oldest first."""
        return self.snapshot().keys

    def any_exist(self) -> bool:
        """Return whether a key exists, valid or revoked: a service whose keys are all revoked admits nobody."""
        with self._database.reading() as connection:
            return connection.execute(select(api_keys.c.id).limit(1)).first() is not None

    def snapshot(self) -> KeySnapshot:
        """Return all keys with the hashes of their secrets."""
        with self._database.reading() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).all()
        return KeySnapshot(tuple(_key(row) for row in rows), tuple(row.secret_hash for row in rows))

    def check(self, token: str) -> ApiKey | None:
        """Return the key that a token belongs to, or None if the token is malformed, wrong, or revoked."""
        return self.snapshot().check(token)

    def revoke(self, id_or_name: str) -> ApiKey:
        """Revoke a key; a key that is already revoked does not change.

        Raises:
            InvalidOption: No key has that ID or name.
        """
        if id_or_name == ENV_ID:
            raise InvalidOption("This is the key in the setting API_KEY: unset it, then restart the service.")
        with self._database.writing() as connection:
            row = (
                _first(connection, api_keys.c.id == id_or_name)
                or _first(connection, api_keys.c.name == id_or_name, api_keys.c.revoked_at.is_(None))
                or _first(connection, api_keys.c.name == id_or_name)
            )
            if row is None:
                raise InvalidOption(f"There is no key {id_or_name!r}. `diarist keys list` shows all keys.")
            if row.revoked_at is None:
                now = self._database.now(connection)
                connection.execute(update(api_keys).where(api_keys.c.id == row.id).values(revoked_at=now))
            revoked = _first(connection, api_keys.c.id == row.id)
        assert revoked is not None
        return _key(revoked)

    def record_use(self, ids: Collection[str]) -> None:
        """Record that keys were used just now, unless a use was recorded less than ``USE_RESOLUTION_S`` ago."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            is_stale = or_(api_keys.c.used_at.is_(None), api_keys.c.used_at < now - timedelta(seconds=USE_RESOLUTION_S))
            connection.execute(update(api_keys).where(api_keys.c.id.in_(ids), is_stale).values(used_at=now))


def _first(connection: Connection, *conditions: ColumnElement[bool]) -> Row[tuple[object, ...]] | None:
    return connection.execute(select(api_keys).where(*conditions).order_by(api_keys.c.created_at.desc())).first()


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(row.id, row.name, row.job_limit, row.created_at, row.used_at, row.revoked_at, row.storage_limit_mb)
