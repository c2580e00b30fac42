"""The jobs that a request may see: those of its key."""

from __future__ import annotations

import re

from diarist.api import access
from diarist.api.runtime import runtime
from diarist.errors import JobNotFound
from diarist.jobs.model import Job

_ID = re.compile(r"[A-Za-z0-9_-]{22}")


def get_owned_job(job_id: str) -> Job:
    """The job with this id. Raises ``JobNotFound`` also where it is another owner's."""
    if not _ID.fullmatch(job_id):
        # Not asked of the store: what is no id may hold what a database refuses.
        raise JobNotFound(f"There is no job {job_id[:80]!r}: ids are 22 letters, digits, '-' and '_'.")
    return runtime().jobs.get(job_id, access.owner())
