"""The estimated time until a running job ends."""

from __future__ import annotations

from diarist.jobs.db.database import utc_now
from diarist.jobs.model import Job, JobState
from diarist.types import Seconds

MIN_PROGRESS = 0.02
"""The progress below which an estimate would be meaningless."""


def estimate_eta_s(job: Job) -> Seconds | None:
    """Return the estimated seconds until ``job`` ends, extrapolated from its progress; None if it is unknown."""
    if job.state is not JobState.RUNNING or job.started_at is None or job.progress < MIN_PROGRESS:
        return None
    elapsed_s = (utc_now() - job.started_at).total_seconds()
    return max(elapsed_s * (1 - job.progress) / job.progress, 0.0)
