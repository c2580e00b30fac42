"""Queries about jobs that change nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, and_, func, select

from diarist.errors import JobNotFound
from diarist.jobs.db.rows import COLUMNS, in_batches, jobs_of
from diarist.jobs.db.schema import jobs
from diarist.jobs.model import Job, JobKind, JobState

UNFINISHED = jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING])
"""The condition that a job has not ended."""

WAITING = and_(jobs.c.state == JobState.QUEUED, jobs.c.kind == JobKind.JOB, jobs.c.ready)
"""The condition that a job without a waiting caller has its recording and waits for a worker."""


def get_job(connection: Connection, job_id: str) -> Job:
    """Return the job with this ID, or raise ``JobNotFound``."""
    is_storable = job_id.isascii() and job_id.isprintable()  # databases do not accept NUL in a text
    row = connection.execute(select(*COLUMNS).where(jobs.c.id == job_id)).one_or_none() if is_storable else None
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}: it never existed, or it was deleted.")
    return jobs_of(connection, (row,))[0]


def find_by_idempotency_key(connection: Connection, owner: str, idempotency_key: str) -> Job | None:
    """Return the job that an owner created with this idempotency key, or None."""
    where = and_(jobs.c.owner == owner, jobs.c.idempotency_key == idempotency_key)
    row = connection.execute(select(*COLUMNS).where(where)).one_or_none()
    return None if row is None else jobs_of(connection, (row,))[0]


def count_by_state(connection: Connection) -> Mapping[JobState, int]:
    """Return how many jobs are in each state, of both kinds."""
    rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
    return dict.fromkeys(JobState, 0) | {state: count for state, count in rows}  # noqa: C416 - rows are not pairs


def count_unfinished(connection: Connection, kind: JobKind) -> Mapping[str, int]:
    """Return how many jobs of a kind have not ended, by their owners."""
    query = select(jobs.c.owner, func.count()).where(UNFINISHED, jobs.c.kind == kind).group_by(jobs.c.owner)
    return {owner: count for owner, count in connection.execute(query).all()}  # noqa: C416 - rows are not pairs


def list_waiting_queues(connection: Connection) -> tuple[str, ...]:
    """Return the queues in which jobs wait for a worker."""
    return tuple(connection.execute(select(jobs.c.queue).where(WAITING).distinct().order_by(jobs.c.queue)).scalars())


def list_unfinished(connection: Connection) -> tuple[Job, ...]:
    """Return all jobs that have not ended, oldest first."""
    rows = connection.execute(select(*COLUMNS).where(UNFINISHED).order_by(jobs.c.number)).all()
    return jobs_of(connection, rows)


def filter_existing(connection: Connection, job_ids: Collection[str], *, ended: bool) -> frozenset[str]:
    """Return those of the IDs that belong to a job, or with ``ended``, to a job that has ended."""
    query = select(jobs.c.id).where(~UNFINISHED) if ended else select(jobs.c.id)
    existing: set[str] = set()
    for batch in in_batches(job_ids):
        existing.update(connection.execute(query.where(jobs.c.id.in_(batch))).scalars())
    return frozenset(existing)


def list_requests(connection: Connection) -> tuple[str, ...]:
    """Return the IDs of all requests, oldest first."""
    query = select(jobs.c.id).where(jobs.c.kind == JobKind.REQUEST).order_by(jobs.c.number)
    return tuple(connection.execute(query).scalars())


def list_abandoned_requests(connection: Connection, now: datetime) -> tuple[str, ...]:
    """Return the IDs of all requests whose caller lease has expired, oldest first."""
    is_abandoned = and_(jobs.c.kind == JobKind.REQUEST, jobs.c.caller_lease_until < now)
    return tuple(connection.execute(select(jobs.c.id).where(is_abandoned).order_by(jobs.c.number)).scalars())


def list_ended_before(connection: Connection, moment: datetime, *, with_recording: bool) -> tuple[str, ...]:
    """Return the IDs of all jobs that ended before a moment, oldest first; optionally only those with a recording."""
    where = and_(~UNFINISHED, jobs.c.ended_at < moment)
    if with_recording:
        where = and_(where, jobs.c.recording)
    return tuple(connection.execute(select(jobs.c.id).where(where).order_by(jobs.c.number)).scalars())
