"""All metrics of the service, read from the job store, so that all processes of a fleet report the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select

from diarist.jobs.db import metrics_storage
from diarist.jobs.db.database import Database
from diarist.jobs.db.metrics_storage import MetricSample
from diarist.jobs.db.schema import jobs, workers
from diarist.jobs.model import QUEUES, WORKER_STATES, JobState, QueueStats
from diarist.types import Seconds


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The metrics of the service at one moment."""

    at: datetime
    """The time by the clock of the store."""

    jobs: Mapping[JobState, int]
    """The number of jobs in each state, of both kinds."""

    queues: tuple[QueueStats, ...]
    """All queues, including empty ones. A job whose recording is still being downloaded is in none of them."""

    workers: Mapping[str, int]
    """The number of workers that last reported each of ``WORKER_STATES``."""

    samples: tuple[MetricSample, ...]


def read(database: Database, fresh_s: Seconds | None = None) -> MetricsSnapshot:
    """Return the current metrics.

    Args:
        database: The database of the job store.
        fresh_s: The maximum age of the report of a worker that is samples; None means no maximum.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    waiting = (
        select(jobs.c.queue, func.count().label("depth"), func.min(jobs.c.created_at).label("oldest_at"))
        .where(jobs.c.state == JobState.QUEUED, jobs.c.ready)
        .group_by(jobs.c.queue)
    )
    with database.reading() as connection:
        now = database.now(connection)
        due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now)
        queued = {row.queue: row for row in connection.execute(waiting.where(due))}
        states = connection.execute(select(jobs.c.state, func.count().label("total")).group_by(jobs.c.state)).all()
        reported = select(workers.c.state, func.count().label("total")).group_by(workers.c.state)
        if fresh_s is not None:
            reported = reported.where(workers.c.reported_at > now - timedelta(seconds=fresh_s))
        pool = connection.execute(reported).all()
        samples = metrics_storage.read(connection)
    names = (*QUEUES, *sorted(queued.keys() - set(QUEUES)))
    return MetricsSnapshot(
        at=now,
        jobs=dict.fromkeys(JobState, 0) | {row.state: row.total for row in states},
        queues=tuple(
            QueueStats(name, queued[name].depth, queued[name].oldest_at)
            if name in queued
            else QueueStats(name, 0, None)
            for name in names
        ),
        workers=dict.fromkeys(WORKER_STATES, 0) | {row.state: row.total for row in pool},
        samples=samples,
    )
