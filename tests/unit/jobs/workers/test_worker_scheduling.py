"""The order in which jobs run: waiting requests first, then by owner; canceled work ends soon, errors are retried."""

from __future__ import annotations

import io
import logging

import pytest

from diarist.errors import JobFailed, NotAudio
from diarist.jobs.model import JobKind, JobSpec, JobState
from diarist.jobs.workers.preemption import PREEMPTIBLE_AFTER_S

pytestmark = pytest.mark.slow

WAIT_S = 30.0


@pytest.fixture
def wait_until(until):
    return until


def test_a_request_interrupts_a_long_job(bench):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("say quickly")
    assert bench.service.wait(request.id, WAIT_S).state is JobState.SUCCEEDED
    running = bench.service.store.get(job.id)
    assert (running.state, running.attempts) == (JobState.RUNNING, 1)
    bench.tell("go")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED
    assert len(bench.lines("loads")) == 1


def test_a_request_that_fails_does_not_affect_the_interrupted_job(bench):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("not-audio")
    bench.service.wait(request.id, WAIT_S)
    with pytest.raises(NotAudio):
        bench.service.result(request.id)
    bench.tell("go")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_a_request_succeeds_when_the_interrupted_job_is_canceled(bench):
    job = bench.submit("wait never", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("wait go")
    bench.until_begun(2)
    bench.service.cancel(job.id)
    bench.tell("go")
    assert bench.service.wait(request.id, WAIT_S).state is JobState.SUCCEEDED
    after = bench.submit("say on", kind=JobKind.JOB)
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    assert bench.service.store.get(job.id).state is JobState.CANCELED
    assert len(bench.lines("loads")) == 1


def test_a_worker_survives_slow_work_that_is_canceled_while_interrupted(bench):
    """It is only canceled at its next step, which takes some time."""
    job = bench.submit("slow never", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("slow go")
    bench.until_begun(2)
    bench.service.cancel(job.id)
    bench.tell("go")
    assert bench.service.wait(request.id, WAIT_S).state is JobState.SUCCEEDED
    after = bench.submit("say on", kind=JobKind.JOB)
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    assert len(bench.lines("loads")) == 1


def test_both_jobs_are_requeued_when_the_worker_dies_during_an_interruption(bench):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("die 2")
    assert bench.service.wait(request.id, WAIT_S).state is JobState.SUCCEEDED
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 1)


def test_a_request_does_not_interrupt_another_one_that_started_recently(bench):
    """Running both together takes as long as one after the other, and the first one would take longer."""
    first = bench.submit("wait go")
    bench.until_begun()
    second = bench.submit("say on")
    assert bench.service.wait(second.id, min(PREEMPTIBLE_AFTER_S / 4, 2.5)).state is JobState.QUEUED
    bench.tell("go")
    for job in (first, second):
        assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_blocked_work_ends_when_it_is_canceled(bench, wait_until, caplog):
    caplog.set_level(logging.INFO)
    job = bench.submit("block never", kind=JobKind.JOB)
    after = bench.submit("say on", kind=JobKind.JOB)
    bench.until_begun()
    blocked = bench.pid
    bench.service.cancel(job.id)
    wait_until(lambda: blocked not in bench.pids)
    done = bench.service.wait(after.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 0)
    assert bench.service.store.get(job.id).state is JobState.CANCELED
    (ended,) = [record for record in caplog.records if record.getMessage().startswith("The worker process")]
    assert ended.levelno == logging.INFO
    assert ended.getMessage() == (
        "The worker process ended itself, because the work on a job that was canceled, deleted or taken over did not "
        "stop; the next one starts in 0.0 s"
    )


def test_an_internal_error_is_retried_and_reported_if_it_persists(make_bench):
    bench = make_bench(job_retry_s=0.05)
    job = bench.submit("bug", kind=JobKind.JOB)
    failed = bench.service.wait(job.id, WAIT_S)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 3)
    with pytest.raises(JobFailed, match="r-1"):
        bench.service.result(job.id)
    assert [event.state for event in bench.service.store.list_events(job.id)] == [
        JobState.QUEUED, JobState.RUNNING, JobState.QUEUED, JobState.RUNNING, JobState.QUEUED, JobState.RUNNING,
        JobState.FAILED,
    ]  # fmt: skip


def test_an_error_of_the_recording_is_not_retried(make_bench):
    bench = make_bench(job_retry_s=0.05)
    job = bench.submit("not-audio", kind=JobKind.JOB)
    failed = bench.service.wait(job.id, WAIT_S)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 1)


def test_owners_are_served_in_turn(make_bench):
    bench = make_bench()
    first = bench.submit("wait go", kind=JobKind.JOB, owner="greedy")
    bench.until_begun()
    many = [bench.submit(f"say {number}", kind=JobKind.JOB, owner="greedy") for number in range(5)]
    single = bench.submit("say once", kind=JobKind.JOB, owner="modest")
    assert bench.service.queue_positions.get(single.id) == 1
    assert [bench.service.queue_positions.get(job.id) for job in many] == [2, 3, 4, 5, 6]
    bench.tell("go")
    for job in (first, *many, single):
        bench.service.wait(job.id, WAIT_S)
    assert bench.service.store.get(single.id).ended_at < bench.service.store.get(many[0].id).ended_at


def test_final_utterances_are_available_before_the_job_ends(bench, wait_until):
    job = bench.submit("finalize 2\nwait go", kind=JobKind.JOB)
    wait_until(lambda: bench.service.store.get(job.id).finalized == 2)
    assert bench.service.store.get(job.id).state is JobState.RUNNING
    early = bench.service.final_utterances(job.id)
    bench.tell("go")
    bench.service.wait(job.id, WAIT_S)
    assert early == bench.service.final_utterances(job.id) == bench.service.result(job.id).utterances


def test_utterances_finalized_by_two_attempts_are_shown_once(bench, wait_until):
    """The second attempt follows the crash of the first worker."""
    job = bench.submit("finalize 2\ndie 1", kind=JobKind.JOB)
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 1)
    indices = [event.index for event in bench.service.store.list_events(job.id) if event.kind == "utterance"]
    assert indices == [0, 1]
    assert bench.service.final_utterances(job.id) == bench.service.result(job.id).utterances


def test_a_draining_worker_finishes_its_job_and_starts_no_other(bench, wait_until):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    after = bench.submit("say on", kind=JobKind.JOB)
    pool = bench.service._pool
    pool.drain(0.0)
    bench.tell("go")
    pool.drain(WAIT_S)
    assert pool.pids == ()
    assert bench.service.store.get(job.id).state is JobState.SUCCEEDED
    waiting = bench.service.store.get(after.id)
    assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 0)


def test_the_recording_of_a_repeated_submission_is_stored_once(bench):
    order = JobSpec(kind=JobKind.JOB, idempotency_key="k", fingerprint="f")
    first = bench.service.submit(io.BytesIO(b"wait go"), order)
    second = bench.service.submit(io.BytesIO(b"wait go"), order)
    assert second.id == first.id
    assert [entry.name for entry in bench.settings.media_dir.iterdir()] == [first.id]
    bench.tell("go")
    assert bench.service.wait(first.id, WAIT_S).state is JobState.SUCCEEDED
