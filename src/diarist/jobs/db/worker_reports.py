"""What workers say of themselves, as rows of the table ``workers``."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from diarist.jobs.db import serialization
from diarist.jobs.db.database import upsert
from diarist.jobs.db.schema import chunks, jobs, workers
from diarist.jobs.model import WorkerReport

FORGOTTEN_S = 3_600.0
"""What a worker said that has said nothing since is forgotten after so long."""


def save(connection: Connection, report: WorkerReport, now: datetime) -> None:
    """Keep a report in place of the worker's last one; ``now`` is when it was made."""
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
    # Of a machine that is gone nobody else says so. What others are about to forget is left to them.
    gone = select(workers.c.worker).where(workers.c.reported_at < now - timedelta(seconds=FORGOTTEN_S))
    connection.execute(delete(workers).where(workers.c.worker.in_(gone.with_for_update(skip_locked=True))))


def read(connection: Connection, since: datetime | None = None) -> tuple[WorkerReport, ...]:
    """What was last said by each worker, newest first; with ``since``, by those who said something after it."""
    wanted = select(workers).order_by(workers.c.reported_at.desc(), workers.c.worker)
    if since is not None:
        wanted = wanted.where(workers.c.reported_at > since)
    return tuple(
        WorkerReport(
            row.worker, row.pid, row.state, serialization.load_models(row.models), serialization.load_texts(row.errors),
            row.reported_at, row.device, serialization.load_texts(row.queues),
        )
        for row in connection.execute(wanted)
    )  # fmt: skip


def leaseholders(connection: Connection, now: datetime) -> frozenset[str]:
    """Return the names of all workers that hold a job or a chunk under a lease at this moment."""
    return frozenset(
        name
        for table in (jobs, chunks)
        for name in connection.execute(select(table.c.worker).where(table.c.lease_until > now)).scalars()
    )


def delete_report(connection: Connection, worker: str) -> None:
    """It is gone."""
    connection.execute(delete(workers).where(workers.c.worker == worker))
