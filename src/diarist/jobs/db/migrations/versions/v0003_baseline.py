"""Create the tables of schema version 3, the first version whose data is kept.

Databases of versions 1 and 2 contain only requests whose callers waited for them, and which ended with the service.
Their tables hold nothing of value, and are dropped.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = None


def upgrade() -> None:
    """Create all tables in a new database, or the missing ones in a database of version 3."""
    connection = op.get_bind()
    present = set(sa.inspect(connection).get_table_names())
    if "schema_version" not in present:
        # Existing tables belong to another application. Creating a table fails if one of them has the same name.
        present = set()
        op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
        op.execute("INSERT INTO schema_version (version) VALUES (3)")
    elif connection.execute(sa.text("SELECT version FROM schema_version")).scalar_one() < 3:
        for name in ("transcripts", "jobs", "workers"):
            if name in present:
                op.drop_table(name)
        present -= {"transcripts", "jobs", "workers"}
        op.execute("UPDATE schema_version SET version = 3")
    for name, create in TABLES.items():
        if name not in present:
            create()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("webhook_url", sa.Text),
        sa.Column("source_url", sa.Text),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("traceparent", sa.String(64)),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("recording", sa.Boolean, nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("interruptions", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Double),
        sa.Column("worker", sa.String(128)),
        sa.Column("lease_until", sa.Double),
        sa.Column("attended_until", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("settled", sa.Integer, nullable=False),
        sa.Column("duration", sa.Double),
        sa.Column("timings", sa.Text, nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        sa.UniqueConstraint("owner", "idempotency_key"),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "number"])
    op.create_index("jobs_by_owner", "jobs", ["owner", "state"])
    op.create_index("jobs_by_end", "jobs", ["ended_at"])


def _create_labels() -> None:
    op.create_table(
        "labels",
        _job_id(primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
    )
    op.create_index("labels_by_value", "labels", ["name", "value"])


def _create_transcripts() -> None:
    op.create_table("transcripts", _job_id(primary_key=True), sa.Column("transcript", sa.Text, nullable=False))


def _create_events() -> None:
    op.create_table(
        "events",
        _job_id(primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )


def _create_owners() -> None:
    op.create_table(
        "owners",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("turn", sa.BigInteger, nullable=False),
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("job_limit", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
    )


def _create_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _create_errands() -> None:
    op.create_table(
        "errands",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("due_at", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("runner", sa.String(128)),
        sa.Column("lease_until", sa.Double),
    )
    op.create_index("errands_by_time", "errands", ["due_at"])
    op.create_index("errands_by_job", "errands", ["job_id"])


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        _job_id(),
        sa.Column("errand_id", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("took_s", sa.Double, nullable=False),
    )
    op.create_index("deliveries_by_job", "deliveries", ["job_id", "number"])


def _create_portions() -> None:
    op.create_table(
        "portions",
        _job_id(primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("channel", sa.Integer, nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("first_sample", sa.BigInteger, nullable=False),
        sa.Column("stop_sample", sa.BigInteger, nullable=False),
        sa.Column("channel_samples", sa.BigInteger, nullable=False),
        sa.Column("work", sa.LargeBinary, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(128)),
        sa.Column("lease_until", sa.Double),
    )
    op.create_index("portions_by_state", "portions", ["done", "number"])


def _create_tallies() -> None:
    op.create_table(
        "tallies",
        sa.Column("metric", sa.String(64), primary_key=True),
        sa.Column("labels", sa.String(255), primary_key=True),
        sa.Column("bucket", sa.String(16), primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
    )


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("worker", sa.String(128), primary_key=True),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("errors", sa.Text, nullable=False),
        sa.Column("reported_at", sa.Double, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("queues", sa.Text, nullable=False),
    )


def _job_id(*, primary_key: bool = False) -> sa.Column[str]:
    of_job = sa.ForeignKey("jobs.id", ondelete="CASCADE")
    return sa.Column("job_id", sa.String(64), of_job, nullable=False, primary_key=primary_key)


TABLES = {
    "jobs": _create_jobs,
    "labels": _create_labels,
    "transcripts": _create_transcripts,
    "events": _create_events,
    "owners": _create_owners,
    "api_keys": _create_api_keys,
    "secrets": _create_secrets,
    "errands": _create_errands,
    "deliveries": _create_deliveries,
    "portions": _create_portions,
    "tallies": _create_tallies,
    "workers": _create_workers,
}
"""The functions that create the tables. Each table comes after those that it refers to."""
