"""What the metrics of the service are made of, read from the job store: every process of a fleet sees the same."""

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
    """How the service is at one moment, in numbers."""

    at: datetime
    """By the clock that the store goes by."""

    jobs: Mapping[JobState, int]
    """How many there are in each state, of either kind."""

    queues: tuple[QueueStats, ...]
    """Every queue, also those that nothing waits in. A job whose recording is still being fetched waits in none."""

    workers: Mapping[str, int]
    """How many said last that they are in each of ``STATES``."""

    samples: tuple[MetricSample, ...]


def read(database: Database, fresh_s: Seconds | None = None) -> MetricsSnapshot:
    """The figures of now.

    Args:
        database: of the job store.
        fresh_s: a worker that has said nothing for so long is not counted; None counts all that the store knows.

    Raises:
        StoreUnavailable: the store cannot be read.
    """
    waiting = (
        select(jobs.c.queue, func.count().label("depth"), func.min(jobs.c.created_at).label("oldest_at"))
        .where(jobs.c.state == JobState.QUEUED, jobs.c.ready)
        .group_by(jobs.c.queue)
    )
    with database.reading() as connection:
        now = database.now(connection)
        due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now)
        found = {row.queue: row for row in connection.execute(waiting.where(due))}
        states = connection.execute(select(jobs.c.state, func.count().label("many")).group_by(jobs.c.state)).all()
        known = select(workers.c.state, func.count().label("many")).group_by(workers.c.state)
        if fresh_s is not None:
            known = known.where(workers.c.reported_at > now - timedelta(seconds=fresh_s))
        pool = connection.execute(known).all()
        counted = metrics_storage.read(connection)
    names = (*QUEUES, *sorted(found.keys() - set(QUEUES)))
    return MetricsSnapshot(
        at=now,
        jobs=dict.fromkeys(JobState, 0) | {row.state: row.many for row in states},
        queues=tuple(
            QueueStats(name, found[name].depth, found[name].oldest_at) if name in found else QueueStats(name, 0, None)
            for name in names
        ),
        workers=dict.fromkeys(WORKER_STATES, 0) | {row.state: row.many for row in pool},
        samples=counted,
    )
