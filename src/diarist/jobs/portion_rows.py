"""What follows for the portions of a job from what becomes of the job, or of a worker."""

from __future__ import annotations

from sqlalchemy import Connection, delete, update

from diarist.jobs.schema import portions


def free(connection: Connection, worker: str, *, died: bool) -> None:
    """What this worker has in hand may be taken by others; ``died``: it counts as the death of a worker."""
    held = update(portions).where(portions.c.worker == worker, ~portions.c.done)
    deaths = portions.c.deaths + (1 if died else 0)
    connection.execute(held.values(worker=None, lease_until=None, deaths=deaths))


def forget(connection: Connection, job_id: str) -> None:
    """Nobody wants the portions of this job any more."""
    connection.execute(delete(portions).where(portions.c.job_id == job_id))
