"""Rename tables, columns, and a key in the bodies of outbox tasks to standard terms."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
min_release = "0.1.0"

TABLES = (("errands", "outbox_tasks"), ("portions", "chunks"), ("tallies", "metrics"))

COLUMNS = (
    ("jobs", "settled", "finalized"),
    ("jobs", "deaths", "worker_crashes"),
    ("jobs", "interruptions", "service_crashes"),
    ("jobs", "attended_until", "caller_lease_until"),
    ("chunks", "deaths", "worker_crashes"),
    ("deliveries", "errand_id", "task_id"),
)

INDEXES = (
    ("errands_by_time", "outbox_tasks_by_time", "outbox_tasks", ["due_at"]),
    ("errands_by_job", "outbox_tasks_by_job", "outbox_tasks", ["job_id"]),
    ("portions_by_state", "chunks_by_state", "chunks", ["done", "number"]),
)

POSTGRES_NAMES = (
    "ALTER INDEX errands_pkey RENAME TO outbox_tasks_pkey",
    "ALTER INDEX errands_id_key RENAME TO outbox_tasks_id_key",
    "ALTER SEQUENCE errands_number_seq RENAME TO outbox_tasks_number_seq",
    "ALTER INDEX portions_pkey RENAME TO chunks_pkey",
    "ALTER TABLE chunks RENAME CONSTRAINT portions_job_id_fkey TO chunks_job_id_fkey",
    "ALTER INDEX tallies_pkey RENAME TO metrics_pkey",
)
"""Renames of what PostgreSQL named after the tables. It does not rename these along with a table, and they would
conflict with a new table that gets an old name."""


def upgrade() -> None:
    """Rename everything, and add the column that says which release of Diarist can use the database."""
    for old, new in TABLES:
        op.rename_table(old, new)
    for table, old, new in COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    if op.get_context().dialect.name == "postgresql":
        for old, new, _, _ in INDEXES:
            op.execute(f"ALTER INDEX {old} RENAME TO {new}")
        for statement in POSTGRES_NAMES:
            op.execute(statement)
    else:
        for old, new, table, columns in INDEXES:
            op.drop_index(old, table)
            op.create_index(new, table, columns)
    op.add_column("schema_version", sa.Column("min_release", sa.String(32)))
    _rename_crash_counters()


def _rename_crash_counters() -> None:
    tasks = sa.table("outbox_tasks", sa.column("number", sa.Integer), sa.column("body", sa.Text))
    connection = op.get_bind()
    rows = connection.execute(sa.select(tasks.c.number, tasks.c.body).where(tasks.c.body.contains('"deaths"'))).all()
    for number, text in rows:
        body = json.loads(text)
        if "deaths" in body:
            body["crashes"] = body.pop("deaths")
            connection.execute(sa.update(tasks).where(tasks.c.number == number).values(body=json.dumps(body)))
