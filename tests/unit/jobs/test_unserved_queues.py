"""Jobs fail when no worker has served their queue for long, and no other jobs do."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from diarist.errors import QueueUnserved
from diarist.jobs.model import JobKind, JobState, WorkerReport
from diarist.jobs.unserved_queues import UnservedQueues
from support.job_stores import START, Clock, new_job, open_sqlite_store

TIMEOUT_S = 100.0
WEBHOOK = "https://hooks.example/"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    with closing(open_sqlite_store(str(tmp_path), clock)) as opened:
        yield opened


@pytest.fixture
def unserved(store, clock) -> UnservedQueues:
    def elapsed_s() -> float:
        return (clock.now - START).total_seconds()

    return UnservedQueues(store, TIMEOUT_S, elapsed_s)


def report(store, state: str = "ready", queues: tuple[str, ...] = ("any", "cpu", "embedded")) -> None:
    store.save_worker_report(WorkerReport("w", 1, state, (), (), START, "cpu", queues))


def test_a_job_that_nobody_will_process_fails_with_the_reason(store, clock, unserved):
    job = store.create(new_job(queue="gpu", webhook_url=WEBHOOK))
    other = store.create(new_job(queue="cpu"))
    report(store)
    assert unserved.fail_jobs() == 0
    clock.advance(TIMEOUT_S - 1)
    report(store)
    assert unserved.fail_jobs() == 0
    clock.advance(2)
    report(store)
    assert unserved.fail_jobs() == 1
    failed = store.get(job.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error.code == QueueUnserved.code
    assert "No worker has served the queue 'gpu' for 100 s" in failed.error.message
    assert store.get(other.id).state is JobState.QUEUED
    assert unserved.fail_jobs() == 0


@pytest.mark.parametrize(("state", "queues"), [("ready", ("gpu",)), ("ready", ()), ("loading", ())])
def test_a_queue_that_is_served_or_will_be_is_not_failed(store, clock, unserved, state, queues):
    job = store.create(new_job(queue="gpu"))
    for _ in range(5):
        report(store, state, queues)
        assert unserved.fail_jobs() == 0
        clock.advance(TIMEOUT_S)
    assert store.get(job.id).state is JobState.QUEUED


def test_a_worker_that_cannot_load_its_engine_serves_nothing(store, clock, unserved):
    store.create(new_job())
    for expected in (0, 1):
        report(store, "error", ())
        assert unserved.fail_jobs() == expected
        clock.advance(TIMEOUT_S + 1)


def test_the_time_begins_when_the_last_worker_is_gone(store, clock, unserved):
    """A long queue is not failed because all of its workers restart."""
    job = store.create(new_job())
    report(store)
    clock.advance(50 * TIMEOUT_S)
    assert unserved.fail_jobs() == 0
    clock.advance(TIMEOUT_S - 1)
    report(store)
    assert unserved.fail_jobs() == 0
    clock.advance(TIMEOUT_S - 1)
    assert unserved.fail_jobs() == 0
    assert store.get(job.id).state is JobState.QUEUED


def test_a_new_job_in_a_queue_that_is_long_unserved_waits_its_own_time(store, clock, unserved):
    store.create(new_job(queue="gpu"))
    unserved.fail_jobs()
    clock.advance(TIMEOUT_S + 1)
    new = store.create(replace(new_job(queue="gpu"), created_at=clock.now))
    assert unserved.fail_jobs() == 1
    assert store.get(new.id).state is JobState.QUEUED


def test_requests_and_jobs_without_their_recordings_are_left_alone(store, clock, unserved):
    store.create(new_job(kind=JobKind.REQUEST))
    store.create(new_job(ready=False, source_url="https://example.com/a.wav"))
    for _ in range(3):
        assert unserved.fail_jobs() == 0
        clock.advance(TIMEOUT_S + 1)
