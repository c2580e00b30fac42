"""The tables of the job store, in SQLAlchemy Core and in no dialect's own types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)
from sqlalchemy.types import TypeDecorator

from diarist.jobs.model import JobState

VERSION = 2
"""Of these tables; the row in ``schema_version`` says which one a store has."""


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC, kept as seconds since 1970: compares and indexes alike in every database."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else datetime.fromtimestamp(value, UTC)


metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

jobs = Table(
    "jobs",
    metadata,
    # The order of arrival: times may tie, or go back with the clock.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("state", Enum(JobState, native_enum=False, length=16, values_callable=list), nullable=False),
    Column("options", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("stage", String(64), nullable=False),
    Column("progress", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", String(128)),
    Column("lease_until", UtcTime),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Index("jobs_by_state", "state", "number"),
)

transcripts = Table(
    "transcripts",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("transcript", Text, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("worker", String(128), primary_key=True),
    Column("pid", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("models", Text, nullable=False),
    Column("errors", Text, nullable=False),
    Column("reported_at", UtcTime, nullable=False),
    Column("device", Text, nullable=False),
)


def upgrade(connection: Connection) -> int:
    """Make the tables that are missing, and bring those of an older Diarist up to ``VERSION``.

    Returns:
        The version that the store has then: another one than ``VERSION`` is a newer Diarist's.
    """
    metadata.create_all(connection)
    version: int | None = connection.execute(select(schema_version.c.version)).scalar()
    if version is None:
        connection.execute(insert(schema_version).values(version=VERSION))
        return VERSION
    if version == 1:
        # What workers said of themselves is worth nothing once they have gone.
        workers.drop(connection)
        workers.create(connection)
        connection.execute(update(schema_version).values(version=VERSION))
        return VERSION
    return version
