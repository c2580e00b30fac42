"""What follows for the portions of a job from what becomes of the job, or of a worker."""

from __future__ import annotations

from sqlalchemy import Connection, delete, update

from diarist.jobs.db.schema import chunks


def free(connection: Connection, worker: str, *, died: bool, job_id: str | None = None) -> None:
    """What this worker has in hand, of one job or of any, may be taken by others.

    ``died``: it counts as the death of a worker. Whoever locks the job as well does so before: so that no two wait for
    each other.
    """
    held = update(chunks).where(chunks.c.worker == worker, ~chunks.c.done)
    if job_id is not None:
        held = held.where(chunks.c.job_id == job_id)
    worker_crashes = chunks.c.worker_crashes + (1 if died else 0)
    connection.execute(held.values(worker=None, lease_until=None, worker_crashes=worker_crashes))


def forget(connection: Connection, job_id: str) -> None:
    """Nobody wants the portions of this job any more."""
    connection.execute(delete(chunks).where(chunks.c.job_id == job_id))
