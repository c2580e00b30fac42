"""Checks before a job is created: idempotency keys, the numbers of unfinished jobs, and the size of recordings."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from diarist.errors import IdempotencyConflict, QueueFull, QuotaExceeded
from diarist.jobs.db.job_queries import UNFINISHED
from diarist.jobs.db.schema import api_keys, jobs
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


def check_stored_bytes(connection: Connection, owner: str, size_bytes: int, default_limit_bytes: int | None) -> None:
    """Raise ``QuotaExceeded`` if the recordings of an owner would be too large together with another one.

    Args:
        connection: The connection with the transaction.
        owner: The ID of an API key. Without one, there is no limit.
        size_bytes: The size of the other recording, as far as it is known.
        default_limit_bytes: The limit of keys that have none of their own; None means that there is none.
    """
    if not owner:
        return
    own_limit_mb = connection.execute(select(api_keys.c.storage_limit_mb).where(api_keys.c.id == owner)).scalar()
    limit_bytes = default_limit_bytes if own_limit_mb is None else own_limit_mb * 2**20
    if limit_bytes is None:
        return
    of_owner = select(func.coalesce(func.sum(jobs.c.size_bytes), 0)).where(
        jobs.c.owner == owner, jobs.c.kind == JobKind.JOB, jobs.c.recording
    )
    stored_bytes = int(connection.execute(of_owner).scalar_one())
    if stored_bytes + max(size_bytes, 1) > limit_bytes:
        raise QuotaExceeded(
            f"The recordings of your key take {stored_bytes / 2**20:.1f} of {limit_bytes // 2**20} MB, so there is no "
            "space for this one. Delete jobs that you no longer need, or wait until their recordings expire; the "
            "operator of the service can give your key more space."
        )
