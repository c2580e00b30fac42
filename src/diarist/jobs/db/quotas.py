"""Whether a new job is taken: one that was ordered before is not made again, and there is an end to how many wait."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from diarist.errors import IdempotencyConflict, QueueFull
from diarist.jobs.db.job_queries import UNFINISHED
from diarist.jobs.db.schema import jobs
from diarist.jobs.model import Job, JobKind, Limits


def check_fingerprint(earlier: Job, fingerprint: str) -> Job:
    """The earlier job, where it was the same order. Raises ``IdempotencyConflict``."""
    if earlier.spec.fingerprint != fingerprint:
        raise IdempotencyConflict(
            "This Idempotency-Key came before with another recording or other options. Use a new key for a new job; "
            "send exactly the same request to learn of the earlier one."
        )
    return earlier


def check_limits(connection: Connection, owner: str, limits: Limits) -> None:
    """Raises ``QueueFull`` where one more job of this owner would be too many."""
    unfinished = select(func.count()).select_from(jobs).where(UNFINISHED, jobs.c.kind == JobKind.JOB)
    if connection.execute(unfinished.where(jobs.c.owner == owner)).scalar_one() >= limits.owner:
        raise QueueFull(
            f"{limits.owner} of your jobs wait or run already, the most that this key may have at once. Wait until one "
            "has ended, or cancel one."
        )
    if connection.execute(unfinished).scalar_one() >= limits.all:
        raise QueueFull(
            f"{limits.all} jobs wait or run already, the most that this service holds. Send yours again later; whoever "
            "runs it can raise MAX_QUEUED."
        )
