"""Reports of workers about themselves in the table ``workers``."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from diarist.jobs.db import serialization
from diarist.jobs.db.database import upsert
from diarist.jobs.db.schema import chunks, jobs, workers
from diarist.jobs.model import WorkerReport

RETENTION_S = 3_600.0
"""The report of a worker that sends no other one is deleted after this time."""


def save(connection: Connection, report: WorkerReport, now: datetime) -> None:
    """Replace the last report of a worker, and delete outdated reports. ``now`` becomes the time of the report."""
    values = {
        "pid": report.pid,
        "state": report.state,
        "models": serialization.dump_models(report.models),
        "errors": serialization.dump_texts(report.errors),
        "device": report.device,
        "queues": serialization.dump_texts(report.queues),
        "reported_at": now,
    }
    upsert(connection, workers, {"worker": report.worker, **values}, values)
    # Nobody else deletes the reports of a machine that is gone. Rows that another transaction has locked are skipped.
    outdated = select(workers.c.worker).where(workers.c.reported_at < now - timedelta(seconds=RETENTION_S))
    connection.execute(delete(workers).where(workers.c.worker.in_(outdated.with_for_update(skip_locked=True))))


def read(connection: Connection, since: datetime | None = None) -> tuple[WorkerReport, ...]:
    """Return the last report of each worker, newest first; with ``since``, only those that are newer."""
    query = select(workers).order_by(workers.c.reported_at.desc(), workers.c.worker)
    if since is not None:
        query = query.where(workers.c.reported_at > since)
    return tuple(
        WorkerReport(
            row.worker, row.pid, row.state, serialization.load_models(row.models), serialization.load_texts(row.errors),
            row.reported_at, row.device, serialization.load_texts(row.queues),
        )
        for row in connection.execute(query)
    )  # fmt: skip


def leaseholders(connection: Connection, now: datetime) -> frozenset[str]:
    """Return the names of all workers that hold a job or a chunk under a lease at this moment."""
    return frozenset(
        name
        for table in (jobs, chunks)
        for name in connection.execute(select(table.c.worker).where(table.c.lease_until > now)).scalars()
    )


def delete_report(connection: Connection, worker: str) -> None:
    """Delete the report of a worker."""
    connection.execute(delete(workers).where(workers.c.worker == worker))
