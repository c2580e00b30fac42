"""Who is worked on when: callers on the line go first, canceled work ends soon, faults of ours are tried again."""

from __future__ import annotations

import io

import pytest

from diarist.errors import JobFailed, NotAudio
from diarist.jobs.model import JobKind, JobSpec, JobState
from diarist.jobs.workers.worker import LONG_S

pytestmark = pytest.mark.slow

WAIT_S = 30.0


@pytest.fixture
def wait_until(until):
    return until


def test_a_caller_who_holds_the_line_does_not_wait_for_a_long_job(bench):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("say quickly")
    assert bench.service.wait(request.id, WAIT_S).state is JobState.SUCCEEDED
    running = bench.service.get(job.id)
    assert (running.state, running.attempts) == (JobState.RUNNING, 1)
    bench.tell("go")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED
    assert len(bench.lines("loads")) == 1


def test_a_request_that_fails_while_a_job_is_interrupted_for_it_harms_only_itself(bench):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("not-audio")
    bench.service.wait(request.id, WAIT_S)
    with pytest.raises(NotAudio):
        bench.service.result(request.id)
    bench.tell("go")
    assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_a_job_that_is_canceled_while_it_is_interrupted_lets_the_request_end(bench):
    job = bench.submit("wait never", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("wait go")
    bench.until_begun(2)
    bench.service.cancel(job.id)
    bench.tell("go")
    assert bench.service.wait(request.id, WAIT_S).state is JobState.SUCCEEDED
    after = bench.submit("say on", kind=JobKind.JOB)
    assert bench.service.wait(after.id, WAIT_S).state is JobState.SUCCEEDED
    assert bench.service.get(job.id).state is JobState.CANCELED
    assert len(bench.lines("loads")) == 1


def test_slow_work_that_is_canceled_while_it_is_interrupted_costs_no_worker(bench):
    """It hears of it at its next step, which takes its time."""
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


def test_both_are_given_back_when_the_worker_dies_during_a_request_that_was_let_through(bench):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    request = bench.submit("die 2")
    assert bench.service.wait(request.id, WAIT_S).state is JobState.SUCCEEDED
    bench.tell("go")
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 1)


def test_a_request_waits_for_another_one_that_has_not_been_long_at_work(bench):
    """Two at once take as long as two in a row, and the first would wait for longer."""
    first = bench.submit("wait go")
    bench.until_begun()
    second = bench.submit("say on")
    assert bench.service.wait(second.id, min(LONG_S / 4, 2.5)).state is JobState.QUEUED
    bench.tell("go")
    for job in (first, second):
        assert bench.service.wait(job.id, WAIT_S).state is JobState.SUCCEEDED


def test_work_that_hears_nothing_ends_when_it_is_canceled(bench, wait_until):
    job = bench.submit("deaf never", kind=JobKind.JOB)
    after = bench.submit("say on", kind=JobKind.JOB)
    bench.until_begun()
    deaf = bench.pid
    bench.service.cancel(job.id)
    wait_until(lambda: deaf not in bench.pids)
    done = bench.service.wait(after.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 0)
    assert bench.service.get(job.id).state is JobState.CANCELED


def test_a_fault_of_ours_is_tried_again_and_told_when_it_stays(make_bench):
    bench = make_bench(job_retry_s=0.05)
    job = bench.submit("bug", kind=JobKind.JOB)
    failed = bench.service.wait(job.id, WAIT_S)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 3)
    with pytest.raises(JobFailed, match="r-1"):
        bench.service.result(job.id)
    assert [event.state for event in bench.service.events(job.id)] == [
        JobState.QUEUED, JobState.RUNNING, JobState.QUEUED, JobState.RUNNING, JobState.QUEUED, JobState.RUNNING,
        JobState.FAILED,
    ]  # fmt: skip


def test_a_fault_of_the_recording_is_not_tried_again(make_bench):
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
    assert bench.service.position(single.id) == 1
    assert [bench.service.position(job.id) for job in many] == [2, 3, 4, 5, 6]
    bench.tell("go")
    for job in (first, *many, single):
        bench.service.wait(job.id, WAIT_S)
    assert bench.service.get(single.id).ended_at < bench.service.get(many[0].id).ended_at


def test_utterances_are_there_before_the_job_has_ended(bench, wait_until):
    job = bench.submit("settle 2\nwait go", kind=JobKind.JOB)
    wait_until(lambda: bench.service.get(job.id).finalized == 2)
    assert bench.service.get(job.id).state is JobState.RUNNING
    early = bench.service.partial(job.id)
    bench.tell("go")
    bench.service.wait(job.id, WAIT_S)
    assert early == bench.service.partial(job.id) == bench.service.result(job.id).utterances


def test_what_is_settled_twice_is_shown_once(bench, wait_until):
    """By a second attempt after the death of the first worker."""
    job = bench.submit("settle 2\ndie 1", kind=JobKind.JOB)
    done = bench.service.wait(job.id, WAIT_S)
    assert (done.state, done.worker_crashes) == (JobState.SUCCEEDED, 1)
    indices = [event.index for event in bench.service.events(job.id) if event.kind == "utterance"]
    assert indices == [0, 1]
    assert bench.service.partial(job.id) == bench.service.result(job.id).utterances


def test_a_worker_that_is_drained_finishes_what_it_has_in_hand_and_begins_nothing(bench, wait_until):
    job = bench.submit("wait go", kind=JobKind.JOB)
    bench.until_begun()
    after = bench.submit("say on", kind=JobKind.JOB)
    pool = bench.service._pool
    pool.drain(0.0)
    bench.tell("go")
    pool.drain(WAIT_S)
    assert pool.pids == ()
    assert bench.service.get(job.id).state is JobState.SUCCEEDED
    waiting = bench.service.get(after.id)
    assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 0)


def test_a_recording_of_a_repeated_order_is_kept_once(bench):
    spec = JobSpec(kind=JobKind.JOB, idempotency_key="k", fingerprint="f")
    first = bench.service.submit(io.BytesIO(b"wait go"), spec)
    second = bench.service.submit(io.BytesIO(b"wait go"), spec)
    assert second.id == first.id
    assert [entry.name for entry in bench.settings.media_dir.iterdir()] == [first.id]
    bench.tell("go")
    assert bench.service.wait(first.id, WAIT_S).state is JobState.SUCCEEDED
