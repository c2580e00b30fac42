"""The tables of the job store in SQLAlchemy Core, without types that only one database has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from diarist.jobs.model import JobKind, JobState

VERSION = 5
"""The version of these tables: the number of the last migration in ``diarist.jobs.db.migrations``."""


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC, stored as seconds since 1970, which compare and index the same way in every database."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else datetime.fromtimestamp(value, UTC)


metadata = MetaData()

schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    # The oldest release of Diarist that can use a database of this version.
    Column("min_release", String(32)),
)


def _enum(kind: type[JobKind | JobState]) -> Enum:
    return Enum(kind, native_enum=False, create_constraint=False, length=16, values_callable=list)


jobs = Table(
    "jobs",
    metadata,
    # The order of arrival. Times can be equal, or go back with the clock.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("state", _enum(JobState), nullable=False),
    Column("kind", _enum(JobKind), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("queue", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("options", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("webhook_url", Text),
    Column("source_url", Text),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64), nullable=False),
    Column("traceparent", String(64)),
    Column("created_at", UtcTime, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("recording", Boolean, nullable=False),
    Column("stage", String(64), nullable=False),
    Column("progress", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker_crashes", Integer, nullable=False),
    Column("service_crashes", Integer, nullable=False),
    Column("not_before", UtcTime),
    Column("worker", String(128)),
    Column("lease_until", UtcTime),
    Column("caller_lease_until", UtcTime),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("finalized", Integer, nullable=False),
    Column("duration", Double),
    Column("timings", Text, nullable=False),
    Column("error_code", String(64)),
    Column("error_message", Text),
    UniqueConstraint("owner", "idempotency_key"),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_by_owner", "owner", "state"),
    Index("jobs_by_end", "ended_at"),
)


def _job_id(*, primary_key: bool = False) -> Column[str]:
    of_job = ForeignKey("jobs.id", ondelete="CASCADE")
    return Column("job_id", String(64), of_job, nullable=False, primary_key=primary_key)


labels = Table(
    "labels",
    metadata,
    _job_id(primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(255), nullable=False),
    Index("labels_by_value", "name", "value"),
)

transcripts = Table("transcripts", metadata, _job_id(primary_key=True), Column("transcript", Text, nullable=False))

events = Table(
    "events",
    metadata,
    _job_id(primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("body", Text, nullable=False),
)

owners = Table(
    "owners",
    metadata,
    Column("owner", String(64), primary_key=True),
    # When the owner was last served, counted in claims. The owner with the lowest number is next.
    Column("turn", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("job_limit", Integer),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("storage_limit_mb", Integer),
)

secrets = Table(
    "secrets", metadata, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False)
)

outbox_tasks = Table(
    "outbox_tasks",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    # This is not a foreign key: a task must be able to end after its job was deleted.
    Column("job_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("body", Text, nullable=False),
    Column("due_at", UtcTime),
    Column("attempts", Integer, nullable=False),
    Column("runner", String(128)),
    Column("lease_until", UtcTime),
    Index("outbox_tasks_by_time", "due_at"),
    Index("outbox_tasks_by_job", "job_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    _job_id(),
    Column("task_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("took_s", Double, nullable=False),
    Index("deliveries_by_job", "job_id", "number"),
)

chunks = Table(
    "chunks",
    metadata,
    _job_id(primary_key=True),
    # The digest of the content, so that a second attempt finds what the first one has processed.
    Column("digest", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("engine", Text, nullable=False),
    Column("queue", String(64), nullable=False),
    Column("channel", Integer, nullable=False),
    Column("stage", String(64), nullable=False),
    Column("first_sample", BigInteger, nullable=False),
    Column("stop_sample", BigInteger, nullable=False),
    Column("channel_samples", BigInteger, nullable=False),
    Column("work", LargeBinary, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("worker_crashes", Integer, nullable=False),
    Column("worker", String(128)),
    Column("lease_until", UtcTime),
    Index("chunks_by_state", "done", "number"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("metric", String(64), primary_key=True),
    Column("labels", String(255), primary_key=True),
    Column("bucket", String(16), primary_key=True),
    Column("value", Double, nullable=False),
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
    Column("queues", Text, nullable=False),
)
