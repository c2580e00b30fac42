"""Leases of workers on jobs: who holds a job, and what happens to jobs whose worker or service has crashed.

Leases are measured by ``Database.now``, because processes share them. A clock that jumps cannot corrupt results: every
step of a worker names the worker (``renew``, ``finish``, ``fail``), so a job that two workers have claimed still ends
once. A clock that jumps forward can make a running job look abandoned, so that the work is repeated. A clock that jumps
back makes an abandoned job wait longer, unless the supervisor sees the crash and calls ``release``, which does not
depend on a clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, select

from diarist.errors import JobFailed
from diarist.jobs.db.chunks import release_chunks
from diarist.jobs.db.rows import COLUMNS, job_of
from diarist.jobs.db.schema import jobs
from diarist.jobs.db.transitions import FAIL, REQUEUE, apply_transition
from diarist.jobs.model import JobError, JobState

MAX_SERVICE_CRASHES = 25
"""A job fails when the whole service has crashed this often while it was running: the job may be the cause."""

SERVICE_CRASHES_WITHOUT_DELAY = 3
"""After more crashes than this, the job waits longer each time, so that other jobs run in between."""


def held_by(job_id: str, worker: str) -> ColumnElement[bool]:
    """Return the condition that a worker holds a job. An expired lease is held until another worker claims the job."""
    return and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.worker == worker)


def lease_expired(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a job is running and its lease has expired."""
    return and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < now)


def fail_jobs(connection: Connection, now: datetime, where: ColumnElement[bool], error: JobError) -> bool:
    """Mark jobs as failed, and return whether there were any that could fail."""
    return bool(apply_transition(connection, now, FAIL, where, error_code=error.code, error_message=error.message))


def release_jobs(
    connection: Connection,
    now: datetime,
    where: ColumnElement[bool],
    attempts: int,
    *,
    service_crash: bool,
    skip_locked: bool = False,
) -> tuple[str, ...]:
    """Requeue jobs whose worker has crashed, or fail those that have crashed too many workers.

    Args:
        connection: The connection with the transaction.
        now: The current time.
        where: The condition that selects the jobs.
        attempts: How many worker crashes make a job fail.
        service_crash: Whether the whole service has crashed, which makes a job fail only after
            ``MAX_SERVICE_CRASHES`` times.
        skip_locked: Whether to leave out jobs whose rows another transaction has locked.

    Returns:
        The IDs of the jobs, oldest first.
    """
    query = select(*COLUMNS).where(where).order_by(jobs.c.number)
    rows = connection.execute(query.with_for_update(skip_locked=skip_locked)).all()
    for row in rows:
        job = job_of(row)
        # The crash counts against the job, so the chunk that the worker held is not blamed a second time.
        release_chunks(connection, job.worker or "", crashed=False)
        crashes = (job.service_crashes if service_crash else job.worker_crashes) + 1
        counters = {"service_crashes" if service_crash else "worker_crashes": crashes}
        is_job = jobs.c.id == job.id
        if crashes >= (MAX_SERVICE_CRASHES if service_crash else attempts):
            error = JobError(JobFailed.code, _failure_message(crashes, service_crash=service_crash))
            apply_transition(
                connection, now, FAIL, is_job, error_code=error.code, error_message=error.message, **counters
            )
        else:
            excess = crashes - SERVICE_CRASHES_WITHOUT_DELAY if service_crash else 0
            # None rather than the current time: after a clock that goes back the job would have to wait.
            until = now + timedelta(seconds=min(2.0**excess, 60.0)) if excess > 0 else None
            apply_transition(connection, now, REQUEUE, is_job, not_before=until, **counters)
    return tuple(row.id for row in rows)


def _failure_message(crashes: int, *, service_crash: bool) -> str:
    if service_crash:
        return (
            f"The whole service crashed {crashes} times while it was processing this recording, so it is not tried "
            "again. Ask the operator of the service for the cause, then send the recording again."
        )
    return (
        f"The worker crashed {crashes} times while it was processing this recording, so it is not tried again. The "
        "recording may need more memory than is available, or trigger a fault in a library: the log has the details."
    )
