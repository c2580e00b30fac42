"""Checks before a job is created: idempotency keys and the maximum numbers of unfinished jobs."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from diarist.errors import IdempotencyConflict, QueueFull
from diarist.jobs.db.job_queries import UNFINISHED
from diarist.jobs.db.schema import jobs
from diarist.jobs.model import Job, JobKind, Limits


def check_fingerprint(earlier: Job, fingerprint: str) -> Job:
    """Return the earlier job if its request was the same, or raise ``IdempotencyConflict``."""
    if earlier.spec.fingerprint != fingerprint:
        raise IdempotencyConflict(
            "This Idempotency-Key was used before with another recording or options. Use a new key for a new job; "
            "send exactly the same request to get the earlier job."
        )
    return earlier


def check_limits(connection: Connection, owner: str, limits: Limits) -> None:
    """Raise ``QueueFull`` if one more job of this owner would be too many."""
    unfinished = select(func.count()).select_from(jobs).where(UNFINISHED, jobs.c.kind == JobKind.JOB)
    if connection.execute(unfinished.where(jobs.c.owner == owner)).scalar_one() >= limits.owner:
        raise QueueFull(
            f"{limits.owner} of your jobs are queued or running, which is the maximum for this key. Wait until one has "
            "ended, or cancel one."
        )
    if connection.execute(unfinished).scalar_one() >= limits.all:
        raise QueueFull(
            f"{limits.all} jobs are queued or running, which is the maximum for this service. Try again later; the "
            "operator of the service can raise MAX_QUEUED."
        )
