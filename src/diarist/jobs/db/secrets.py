"""Secrets that the job store generates once and keeps for all processes."""

from __future__ import annotations

import secrets

from sqlalchemy import insert, select

from diarist.auth.api_keys import checked_secret
from diarist.jobs.db import schema
from diarist.jobs.db.database import Database, serialize_writers
from diarist.settings import Settings

_WEBHOOK_MASTER = "webhook-master"
_SECRET_BYTES = 32


def webhook_master(settings: Settings, database: Database) -> str:
    """Return the secret that all webhook secrets are derived from.

    It is WEBHOOK_SECRET if that is set. Otherwise it is generated once and kept in the database.

    Raises:
        ConfigurationError: WEBHOOK_SECRET is too short to be safe.
        StoreUnavailable: The database cannot be read or written.
    """
    if settings.webhook_secret:
        return checked_secret("WEBHOOK_SECRET", settings.webhook_secret)
    query = select(schema.secrets.c.value).where(schema.secrets.c.name == _WEBHOOK_MASTER)
    with database.reading() as connection:
        value: str | None = connection.execute(query).scalar()
    if value is not None:
        return value
    with database.writing() as connection:
        serialize_writers(connection)
        value = connection.execute(query).scalar()
        if value is None:
            value = secrets.token_urlsafe(_SECRET_BYTES)
            connection.execute(insert(schema.secrets).values(name=_WEBHOOK_MASTER, value=value))
    return value
