from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from diarist.jobs.db.database import utc_now
from diarist.jobs.eta import estimate_eta_s
from diarist.jobs.model import Job, JobSpec, JobState


@pytest.fixture
def running():
    """A job that began a minute ago."""
    now = utc_now()
    return Job("job", JobState.RUNNING, JobSpec(), now, started_at=now - timedelta(seconds=60))


@pytest.mark.parametrize(("progress", "eta_s"), [(0.25, 180), (0.5, 60), (0.75, 20), (1.0, 0)])
def test_the_estimate_extrapolates_the_progress(running, progress, eta_s):
    assert estimate_eta_s(replace(running, progress=progress)) == pytest.approx(eta_s, abs=10)


def test_nothing_is_estimated_at_the_beginning_or_when_the_job_does_not_run(running):
    assert estimate_eta_s(replace(running, progress=0.01)) is None
    assert estimate_eta_s(replace(running, progress=0.5, started_at=None)) is None
    assert estimate_eta_s(replace(running, progress=0.5, state=JobState.QUEUED)) is None
    assert estimate_eta_s(replace(running, progress=0.5, state=JobState.SUCCEEDED)) is None


def test_a_start_in_the_future_gives_no_negative_estimate(running):
    later = utc_now() + timedelta(hours=1)
    assert estimate_eta_s(replace(running, progress=0.5, started_at=later)) == 0.0
